"""Shows our own modules, and no others, a Python as on Windows: what that lacks is not there, what differs differs."""

import builtins
import enum
import functools
import multiprocessing
import os
import signal
import sys
import types

LACKING = {
    "os": ("fork", "getuid", "geteuid", "getpgid", "setsid", "killpg", "mkfifo", "uname", "WNOHANG", "O_DIRECTORY"),
    "signal": ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "pthread_sigmask", "alarm"),
}
ABSENT = ("fcntl", "grp", "pwd", "resource", "termios")


class Signals(enum.IntEnum):
    SIGINT, SIGILL, SIGABRT, SIGFPE, SIGSEGV, SIGTERM = 2, 4, 6, 8, 11, 15
    SIGBREAK = 21


class StandIn(types.ModuleType):
    """A module without some of its names, and with others in their place."""

    def __init__(self, module, lacking=(), **others):
        self.__dict__.update(module=module, lacking=lacking, others=others)

    def __getattr__(self, name):
        if name in self.lacking:
            raise AttributeError(f"module {self.module.__name__!r} has no attribute {name!r}")
        return self.others[name] if name in self.others else getattr(self.module, name)

    def __setattr__(self, name, value):
        setattr(self.module, name, value)


refused = set()


def replace(source, target):
    """Somebody reads a file the first time that it is to be replaced."""
    if os.path.exists(target) and target not in refused:
        refused.add(target)
        raise PermissionError(13, "Access is denied")
    os.replace(source, target)


def link(*_):
    raise OSError(1, "Incorrect function")  # FAT


def open_descriptor(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return os.open(path, *arguments, **options)


def get_context(method=None):
    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {method!r}")
    return multiprocessing.get_context("spawn")


def kill(*_):
    raise AssertionError("os.kill ends a process on Windows, whatever the signal")


STAND_INS = {
    "sys": StandIn(sys, platform="win32"),
    "os": StandIn(os, LACKING["os"], replace=replace, link=link, open=open_descriptor, kill=kill, name="nt"),
    "signal": StandIn(signal, LACKING["signal"], Signals=Signals, SIGBREAK=Signals.SIGBREAK),
    "multiprocessing": StandIn(multiprocessing, get_context=get_context),
}


@functools.wraps(builtins.__import__)
def import_as_on_windows(name, globals=None, locals=None, fromlist=(), level=0, original=builtins.__import__):
    module = original(name, globals, locals, fromlist, level)
    importer = (globals or {}).get("__spec__") and globals["__spec__"].name
    if not str(importer or "").startswith("fmnist_lit"):
        return module
    if name in ABSENT:
        raise ModuleNotFoundError(f"No module named {name!r}")
    return STAND_INS.get(name, module) if level == 0 else module


builtins.__import__ = import_as_on_windows
