"""How to quote one error in the message of another."""


def in_one_line(error: BaseException) -> str:
    """What an error says, in at most 200 characters; the name of its class if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def named_error(error: BaseException) -> str:
    """What an error of somebody else's code says, after the name of its class, which may say more."""
    return f"{type(error).__name__}: {in_one_line(error)}"
