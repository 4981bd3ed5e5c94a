"""Standard output and error: whatever becomes of them, and whatever characters they take, no run fails for it."""

import errno
import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

READER_LEFT = 128 + 13  # what a shell says of a command that SIGPIPE ended


class Outlet(io.RawIOBase):
    """Writes to a stream until that fails, because a reader, a terminal or the room on a disk has gone; then nowhere.

    Attributes:
        error: why it failed; None as long as it has not.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.name, self.mode = stream.name, stream.mode
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some of ``data``; a pipe that does not block is waited for all the same."""
        while self.error is None:
            try:
                written: int | None = self.stream.write(data)
            except OSError as error:
                self.error = error
            else:
                if written is not None:
                    return written
                time.sleep(0.01)
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self.stream.fileno()
        return number

    def isatty(self) -> bool:
        return bool(self.stream.isatty())


def guard_streams() -> None:
    """Let ``sys.stdout`` and ``sys.stderr`` take anything; one that is closed, or somebody else's, is left alone."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get its number, and what other libraries print
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  to the end of the process
        elif stream is getattr(sys, f"__{name}__") and outlet(stream) is None:
            setattr(sys, name, guarded(stream))


def guarded(stream: Any) -> TextIO:
    """The same stream through an ``Outlet``; characters that its encoding has not are escaped."""
    stream.flush()
    buffered = io.BufferedWriter(Outlet(getattr(stream.buffer, "raw", stream.buffer)))
    options = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    return io.TextIOWrapper(buffered, stream.encoding, errors="backslashreplace", **options)


def outlet(stream: Any) -> Outlet | None:
    """The ``Outlet`` under a stream, if it has one."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Outlet) else None


def output_error() -> OSError | None:
    """Why standard output cannot be written to any more, as far as that is known."""
    under = outlet(sys.stdout)
    return None if under is None else under.error


def reader_has_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more; Windows calls that an invalid argument."""
    error = output_error()
    return isinstance(error, BrokenPipeError) or (error is not None and error.errno == errno.EINVAL)


def run_printing(main: Callable[[], int]) -> int:
    """Run a command whose output is wanted.

    Returns:
        The exit code of ``main``, or 1 where its output could not be written and somebody was to read it.
    """
    guard_streams()
    code = main()
    sys.stdout.flush()
    if (error := output_error()) is None or reader_has_left():
        return code
    print(f"error: standard output: {error.strerror}", file=sys.stderr)
    return code or 1
