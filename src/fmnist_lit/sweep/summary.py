"""Placeholder until the summary is written."""


def summarize(folders, *, live=False, pictures=True):
    """Nothing yet."""
