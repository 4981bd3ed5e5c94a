"""Folders that are made before anything is written to them, exclusively."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from fmnist_lit.config import ConfigError

LEAST_ROOM = 65_536  # bytes, of what a run writes before it trains


def make_folder(key: str, draw: Callable[[], Path], named: bool) -> Path:
    """Make the folder that ``draw`` names; exclusively, unless a person named it.

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
        if (folder / "results.json").exists():
            raise ConfigError(
                f"{key}={folder}: holds a run already; name another, or resume it with ckpt_path={folder}"
            )
        return folder


def require_room(key: str, folder: Path) -> None:
    """Refuse a folder that nothing can be written to, before Hydra tries and leaves halves.

    Raises:
        ConfigError: with the system's reason, such as a full disk.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(LEAST_ROOM))
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be written to: {error.strerror}") from error
