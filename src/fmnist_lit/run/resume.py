"""Going on with an earlier run: where it is, and what may differ from it."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import quoted
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.config.tree import flatten, plain
from fmnist_lit.run.files import read_json, read_yaml, write_text

# Keys whose change does not make it another run
MAY_CHANGE = {
    *("ckpt_path", "run_dir", "sweep.fail_fast", "sweep.halving", "sweep.until_epoch", "total_steps"),
    *("num_threads", "data.data_dir", "data.source"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.accelerator"),
    *("trainer.checkpoint_every_n_steps", "trainer.steps_per_batch", "trainer.cuda_graph", "tags", "note"),
}
# Keys that earlier versions did not know, and what they did
NEW_SINCE_0_1 = {
    "debug": None,
    "init_from": None,
    "select.metric": "accuracy/val",
    "select.mode": "max",
    "scheduler.monitor": None,
}
LIMITS = ("trainer.max_epochs", "trainer.max_steps")
GROUPS_THAT_MAY_CHANGE = ("logger", "callbacks")


def locate(ckpt_path: str) -> tuple[Path | None, Path]:
    """The run folder that a checkpoint belongs to, if it does, and the checkpoint.

    Args:
        ckpt_path: a checkpoint, or a run folder, whose last checkpoint is meant.

    Raises:
        ConfigError: if there is nothing to resume from.
    """
    path = Path(expanded(ckpt_path, f"ckpt_path={ckpt_path}")).absolute()
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not checkpoint.is_file():
        wanted = "checkpoints/last.ckpt in it" if path.is_dir() else "such file or run folder"
        raise ConfigError(f"ckpt_path={ckpt_path}: nothing to resume from, there is no {wanted}")
    run_dir = checkpoint.parent.parent
    is_run = checkpoint.parent.name == "checkpoints" and (run_dir / ".hydra" / "config.yaml").is_file()
    return run_dir if is_run else None, checkpoint


def earlier_overrides(run_dir: Path) -> list[str]:
    """The command line of the earlier run.

    Raises:
        ConfigError: if the run folder does not tell it, or tells more than a run writes there.
    """
    lines = read_yaml(run_dir / ".hydra" / "overrides.yaml") or []
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ConfigError(f"{run_dir / '.hydra' / 'overrides.yaml'}: not a list of overrides")
    for line in lines:
        if line.lstrip("+~").startswith("hydra"):
            raise ConfigError(f"{run_dir / '.hydra' / 'overrides.yaml'}: {line} is none of a run's own overrides")
    return lines


def earlier_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of the earlier run, interpolations as written.

    Raises:
        ConfigError: if the run folder does not tell it.
    """
    config = read_yaml(run_dir / ".hydra" / "config.yaml")
    if not isinstance(config, dict):
        raise ConfigError(f"{run_dir / '.hydra' / 'config.yaml'}: not a configuration")
    return config


def started_in(run_dir: Path) -> Path | None:
    """The working folder in which a run was started, if that can still be told."""
    try:
        return Path(read_yaml(run_dir / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"])
    except (ConfigError, LookupError, TypeError):
        return None


def as_the_run_had(data_dir: str, run_dir: Path) -> Path:
    """``data_dir`` as seen from the folder in which the run was started, if that can still be told and is here."""
    folder = started_in(run_dir)
    there = Path(os.path.expanduser(data_dir)) if folder is None else folder / os.path.expanduser(data_dir)
    return there if there.is_dir() else Path(data_dir)


def own_data(run_dir: Path, checkpoint: Path, data: DictConfig, given: Collection[str]) -> list[str]:
    """Overrides that make a resumed run open the data that it had, wherever it goes on.

    Where the command line or ``$FMNIST_DATA_DIR`` says now where the data are, that counts.

    Args:
        run_dir: of the run.
        checkpoint: from which it goes on.
        data: the configuration of the data as it would be without these overrides.
        given: the keys on the command line.
    """
    if data.source == "synthetic":
        return []
    overrides = []
    now = os.environ.get("FMNIST_DATA_DIR")
    if "data.data_dir" in given:
        folder = Path(data.data_dir)
    elif now:
        folder = Path(now)
    else:
        from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint  # torch takes seconds

        try:
            had = load_checkpoint(checkpoint)["hyper_parameters"]
            folder = as_the_run_had(had["data"]["data_dir"], run_dir)
            if not folder.is_dir() and Path(data.data_dir).is_dir():  # it comes from another machine
                folder = Path(data.data_dir)
        except (CheckpointError, LookupError, TypeError):  # which is said when the run goes on
            return []
        if data.source == "auto" and not {"data", "data.source"} & set(given) and had.get("dataset") in DATASETS:
            overrides.append(f"data.source={had['dataset']}")
    same_place = Path.cwd() == started_in(run_dir)
    if Path(data.data_dir) != folder.absolute() and not (same_place and Path(data.data_dir) == folder):
        overrides.append(f"data.data_dir={quoted(folder.absolute())}")
    return overrides


def require_same(earlier: Mapping[str, Any], now: Mapping[str, Any], source: str | Path) -> None:
    """Refuse to resume into another run.

    Args:
        earlier: the configuration of the run to resume, nested plain values.
        now: the configuration asked for, likewise.
        source: where ``earlier`` is from, for the message.

    Raises:
        ConfigError: naming both values of the first key that differs and may not.
    """
    before, after = flatten(earlier), flatten(now)
    for key in [*before, *(key for key in after if key not in before)]:
        group = key.split(".")[0]
        if key in MAY_CHANGE or (group in GROUPS_THAT_MAY_CHANGE and not key.startswith("callbacks.ema")):
            continue
        if key == "classes" and key not in before:  # 0.1 did not keep them
            continue
        old, new = before.get(key, NEW_SINCE_0_1.get(key, "nothing")), after.get(key, "nothing")
        if old != new:
            raise ConfigError(f"{key}={new}: the run in {source} has {old}; resuming keeps it, or start a new run")
    laid_out = "total_steps" in str(now.get("scheduler"))
    for key in LIMITS:
        if laid_out and before.get(key) != after.get(key):
            raise ConfigError(
                f"{key}={after.get(key)}: the schedule of the run in {source} is laid out for {before.get(key)}; "
                "resume to that, or start a new run"
            )


def is_complete(run_dir: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run has nothing left to do under the configuration ``now``; it may have ended before its last epoch."""
    results = read_json(run_dir / "results.json")
    if results.get("status") != "completed":
        return False
    before, after = flatten(earlier), flatten(now)
    if all(before.get(limit) == after.get(limit) for limit in LIMITS):
        return True
    max_epochs, max_steps = (int(after[limit]) for limit in LIMITS)
    epochs, steps = (int(results.get(key, 0)) for key in ("epochs", "steps"))
    return epochs >= max_epochs or 0 < max_steps <= steps


def keep_configuration(cfg: DictConfig) -> None:
    """Record what a run goes on with in its folder, in place of Hydra, which would not do it durably.

    Only once it is accepted: a refused command line must not become the run's own.
    """
    if not HydraConfig.initialized() or HydraConfig.get().output_subdir is not None:
        return
    raw = {**plain(cfg, resolve=False), "total_steps": None}
    folder = Path(cfg.run_dir) / ".hydra"
    for name, content in (("config.yaml", raw), ("overrides.yaml", HydraConfig.get().overrides.task)):
        write_text(folder / name, OmegaConf.to_yaml(OmegaConf.create(content)))
