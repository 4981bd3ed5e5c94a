"""One writer a folder: a lock of which the kernel lets go however its process ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # in the folders of runs, of sweeps and of their jobs
PATIENCE = 1.0  # seconds: another process's is_held takes the lock for a moment to find out


def lock_of(folder: Path) -> FileLock:
    """The one lock that this process has for a folder: a thread that holds it may take it again."""
    return FileLock(folder / LOCK, is_singleton=True, fallback_to_soft=False)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only one who writes to a folder. Where the file system has no locks, nobody is kept out.

    Raises:
        filelock.Timeout: if another process, or another thread, writes to it.
    """
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise
    except OSError:  # what cannot be written to shows when it is
        yield
        return
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path, otherwise: bool) -> bool:
    """Whether a living process writes to a folder, which need not exist; ``otherwise`` where that cannot be told."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True
    except OSError:
        return otherwise
