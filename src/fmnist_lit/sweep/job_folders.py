"""The names of the folders of a sweep's jobs, as ``hydra.sweep.subdir`` has them."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fmnist_lit.config import ConfigError
from fmnist_lit.sweep.plan import is_inside

LONGEST = 240  # bytes of a folder's name; file systems stop at 255, and two names alike get a longer one


def subdir_of(hydra: DictConfig) -> str:
    """``hydra.sweep.subdir`` as it is written."""
    return str(OmegaConf.to_container(hydra.sweep, resolve=False)["subdir"])  # type: ignore[call-overload,index]


def override_dirname(lines: Iterable[str], naming: Any) -> str:
    """What Hydra makes of the overrides that name a job; ``naming`` is ``hydra.job.config.override_dirname``."""
    joined: str = naming.item_sep.join(sorted(lines))
    return joined.replace("=", naming.kv_sep)


def facts_of(hydra: DictConfig, number: int, lines: Iterable[str]) -> dict[str, Any]:
    """What a launcher will set in ``hydra.job``, for a job of that number, which these overrides name."""
    dirname = override_dirname(lines, hydra.job.config.override_dirname)
    return {"num": number, "id": str(number), "override_dirname": dirname, "name": hydra.job.name}


def filled_in(subdir: str, facts: Mapping[str, Any]) -> str:
    """``hydra.sweep.subdir`` of a job, if it refers to these facts only; composing would take 40 ms.

    Raises:
        OmegaConfBaseException: if it refers to others.
    """
    own = {"job": facts, "sweep": {"subdir": subdir.replace("${hydra:", "${hydra.")}}
    return str(OmegaConf.select(OmegaConf.create({"hydra": own}), "hydra.sweep.subdir"))


def require_inside(folder: str) -> None:
    """Refuse a name that leads out of the sweep's folder.

    Raises:
        ConfigError: naming it.
    """
    if not is_inside(folder):
        raise ConfigError(f"hydra.sweep.subdir={folder}: must be a folder below hydra.sweep.dir")


def is_too_long(folder: str) -> bool:
    """Whether a part of the name is longer than file systems take."""
    return any(len(os.fsencode(part)) > LONGEST for part in Path(folder).parts)
