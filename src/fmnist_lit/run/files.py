"""Files that are never half written: write beside the target, fsync, rename."""

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from omegaconf._utils import get_yaml_loader

from fmnist_lit.config import ConfigError

# what SMB, sshfs and some FUSE file systems answer
CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES)
# Windows replaces no file that somebody reads, such as a virus scanner or a table that is looked at
REPLACE_AGAIN = 100 if sys.platform == "win32" else 0  # times
SECONDS_BETWEEN = 0.05


def write_durably(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replace ``path`` by what ``write`` writes, so that a crash at any moment leaves the old file or the new one.

    Raises:
        OSError: if the file cannot be written in full; the old file is untouched and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def link_durably(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``. Safe because neither is ever written in place."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without hard links
        with open(source, "rb") as content:
            write_durably(target, lambda file: shutil.copyfileobj(content, file))
        return
    replace(temporary, target)
    # POSIX: renaming one hard link of a file onto another does nothing and leaves both
    temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def replace(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, which may exist; where somebody reads that, wait for them for some seconds.

    Raises:
        OSError: if it cannot be done, and ``source`` is still there.
    """
    for _ in range(REPLACE_AGAIN):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(SECONDS_BETWEEN)
    os.replace(source, target)


def remove_orphans(folder: Path) -> None:
    """Delete what a process that was killed in ``write_durably`` left in a folder that nobody else writes to."""
    for orphan in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # it does no harm
            orphan.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut, where the system and the file system can."""
    if sys.platform == "win32":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_text(path: Path, text: str) -> None:
    """Write text durably, in UTF-8; bytes of a folder's name that are none are escaped."""
    write_durably(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, durably; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file; nothing in it is executed.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        with open(file, encoding="utf-8") as content:
            return yaml.load(content, get_yaml_loader())  # OmegaConf's: a safe loader that takes 1e-3 for a number
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file}: cannot be read: {reason}") from error
