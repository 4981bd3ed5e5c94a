"""What run folders are called, and how to type a command that names one."""

import hashlib
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterable

from omegaconf import OmegaConf

LONGEST_NAME = 160  # bytes; file systems stop at 255
DEVICES = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)"  # which Windows takes for no file, with any suffix


def slug(text: str) -> str:
    """Text as a folder name; what a file system or a shell would trip over becomes _."""
    name = re.sub(r"[^\w.=,+-]+", "_", text) or "defaults"
    name = re.sub(r"\.$", "_", name)  # Windows would drop it
    if re.match(DEVICES, name):
        name = f"_{name}"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return (
        f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


def unique(overrides: str = "") -> str:
    """The end of a new folder's name: what was overridden, for people to recognise it by, and a random part."""
    return "_".join(filter(None, [slug(overrides)[:80] if overrides else "", secrets.token_hex(3)]))


def place(debug: str | None, otherwise: str) -> str:
    """The folder in outputs: runs under a debug preset have one of their own."""
    return "debug" if debug else otherwise


def shell_command(words: Iterable[str]) -> str:
    """A command line for the shell that people here use."""
    return subprocess.list2cmdline(list(words)) if sys.platform == "win32" else shlex.join(words)


# in every process that composes a run's configuration
OmegaConf.register_new_resolver("unique", unique)
OmegaConf.register_new_resolver("job_name", slug)
OmegaConf.register_new_resolver("place", place)
