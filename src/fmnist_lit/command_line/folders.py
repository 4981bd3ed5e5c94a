"""Folders that are made before anything is written to them, exclusively."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from filelock import Timeout

from fmnist_lit.command_line.messages import already_led, already_written
from fmnist_lit.config import ConfigError
from fmnist_lit.processes.lock import is_held, writing

LEAST_ROOM = 65_536  # bytes, of what a run writes before it trains
FOLDERS = (".hydra", "checkpoints")  # that a run makes in its own, and its files there
FILES = ("results.json", "metrics.csv", "train.log")


def make_folder(key: str, draw: Callable[[], Path], named: bool, locks: ExitStack) -> Path:
    """Make the folder that ``draw`` names; exclusively, unless a person named it. It is locked until ``locks`` close.

    Raises:
        ConfigError: if it cannot be made, or holds a run already, which a second one would overwrite.
    """
    while True:
        folder = draw()
        try:
            folder.mkdir(parents=True, exist_ok=named)
            require_room(key, folder)
        except FileExistsError as error:
            if named:
                raise ConfigError(f"{key}={folder}: is a file, must be a folder") from error
            continue  # a run started in the same second drew the same name
        except OSError as error:
            raise ConfigError(f"{key}={folder}: cannot be made: {error.strerror}") from error
        claim(key, folder, locks)
        if (folder / "results.json").exists():
            raise ConfigError(
                f"{key}={folder}: holds a run already; name another, or resume it with ckpt_path={folder}"
            )
        return folder


def claim(key: str, folder: Path, locks: ExitStack) -> None:
    """Be the only one who writes to a folder, until ``locks`` close.

    Raises:
        ConfigError: if somebody else does, or leads the sweep whose job it is.
    """
    try:
        locks.enter_context(writing(folder))
    except Timeout as error:
        told = already_led(folder) if key == "hydra.sweep.dir" else already_written(key, folder)
        raise ConfigError(told) from error
    sweep_dir = folder.absolute().parent
    # it has claimed its own folder before it looks at its jobs': one of the two sees the other
    if (sweep_dir / "sweep.json").exists() and is_held(sweep_dir, otherwise=False):
        raise ConfigError(f"{key}={folder}: the sweep in {sweep_dir} is running; wait for it or stop it")


def require_room(key: str, folder: Path) -> None:
    """Refuse a folder in which nothing, or not all that a run leaves, can be written, before Hydra leaves halves.

    Raises:
        ConfigError: with the system's reason, such as a full disk.
    """
    for place in (folder, *(folder / name for name in FOLDERS)):
        if place == folder or place.exists():
            try:
                with tempfile.TemporaryFile(dir=place) as file:
                    file.write(bytes(LEAST_ROOM))
            except OSError as error:
                which = "" if place == folder else f"{place.name} in it "
                raise ConfigError(f"{key}={folder}: {which}cannot be written to: {error.strerror}") from error
    for name in FILES:
        if (folder / name).is_dir():
            raise ConfigError(f"{key}={folder}: {name} in it is a folder, must be a file")
