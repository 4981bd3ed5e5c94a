"""How to quote one error in the message of another."""


def in_one_line(error: BaseException) -> str:
    """What an error says, in at most 200 characters; the name of its class if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
