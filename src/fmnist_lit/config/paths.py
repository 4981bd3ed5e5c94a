"""Paths as people type them: ``~`` at the start is a home, nothing else is expanded, and no folder is named ``~``."""

import os
import re

from fmnist_lit.config import ConfigError

VARIABLE = re.compile(r"\$(env:)?\w+|%\w+%")  # of a shell on any system; not ${…}, which is an interpolation


def expanded(path: str, given: str) -> str:
    """A path with ``~`` or ``~user`` at its start replaced by that home.

    Args:
        path: of any system.
        given: what it was given as, such as ``hydra.run.dir=~/x``, for the message.

    Raises:
        ConfigError: if it would make a folder that removing by its name, as in ``rm -rf ~``, would cost something else.
    """
    result = os.path.expanduser(path)
    parts = re.split(r"[/\\]", result)
    if result.startswith("~") and parts[0] != "~":
        raise ConfigError(f"{given}: {parts[0]} is no user's home; write out the path")
    if "~" in parts:
        raise ConfigError(f"{given}: ~ is a home at the start of a path only; write out the path")
    if variable := VARIABLE.match(result):
        raise ConfigError(f"{given}: {variable[0]} is not expanded here; write ~ for the home, or write out the path")
    return result
