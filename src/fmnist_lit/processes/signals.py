"""Signals that ask a run to stop: at the next optimiser step, with a checkpoint; a second one stops at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

# that ask a run to stop, where the system has them; SIGUSR1 and SIGUSR2 are what Slurm and submitit send before the
# time is up, SIGHUP comes with the end of a terminal, SIGBREAK is Windows' own
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)


class InterruptedRunError(BaseException):
    """A signal asked the run to stop. No ``Exception``, so that nothing takes it for a failure of its own.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.signum,)


class StopRequest:
    """The signal that has arrived, here or at another rank, if one has; who defers it has to ask."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.received = False
        self.second_is_final = True
        self.is_guest = False  # in a process that is to live on
        self.deferred = False
        self.is_shared = False  # by jobs that take turns in this process

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: remember the signal, or raise it at once where no training step is under way."""
        if self.received and self.second_is_final:
            if self.is_guest:
                raise InterruptedRunError(signum)
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.signum, self.received = signum, True
        if not self.deferred:
            raise InterruptedRunError(signum)

    def raise_if_received(self) -> None:
        """For whoever defers, once it is safe.

        Raises:
            InterruptedRunError: if a signal has arrived.
        """
        if self.signum is not None:
            raise InterruptedRunError(self.signum)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in this block, where the thread may; forget any earlier one. Who shares them need not."""
        if self.is_shared:
            yield
            return
        self.signum, self.received = None, False
        before = self.install()
        try:
            yield
        finally:
            put_back(before)

    def install(self) -> dict[signal.Signals, Any]:
        """Be the handler of the signals, where the thread may; returns those before."""
        return handle(self.receive)

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Keep a signal that arrives in this block until somebody asks for it."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Let all that listen in this block hear the same signal."""
        self.is_shared = True
        try:
            yield
        finally:
            self.is_shared = False


def handle(handler: Callable[[int, FrameType | None], Any]) -> dict[signal.Signals, Any]:
    """Let ``handler`` have the signals, where the thread may; returns those before.

    What is ignored stays so: nohup ignores SIGHUP for a command, a shell SIGINT for one in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in heeded}


def put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    """Undo ``handle``; a handler that is none of Python's cannot be put back."""
    for signum, handler in handlers.items():
        if handler is not None:
            signal.signal(signum, handler)


stop_request = StopRequest()  # one a process, as signals are
