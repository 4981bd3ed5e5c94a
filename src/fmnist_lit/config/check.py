"""Whether a composed configuration may run: its keys, its values, what they come to together, and whom it trusts."""

import difflib
import importlib.util
from collections.abc import Collection
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit.config import ConfigError
from fmnist_lit.config.arguments import Nodes, check_arguments
from fmnist_lit.config.criterion import check_selection
from fmnist_lit.config.lightning_options import REFUSED_CALLBACKS, REFUSED_TRAINER_OPTIONS
from fmnist_lit.config.rules import FINITE, RULES, TEST_IMAGES, TRAIN_IMAGES
from fmnist_lit.config.tree import plain, walk
from fmnist_lit.config.trust import is_of_trusted_package, require_trusted, require_written_out

GROUPS = ("data", "model", "loss", "optimizer", "scheduler", "trainer", "logger", "callbacks")
TOP_LEVEL_KEYS = {
    *(*GROUPS, "regularization", "select", "sweep", "hydra"),
    *("seed", "num_threads", "debug", "ckpt_path", "init_from", "evaluate_each_epoch", "flip_average"),
    *("run_dir", "total_steps", "tags", "note"),
}
GLOBAL_GROUPS = ("experiment", "study", "local")  # whose files set keys of all groups
# What other programs call our keys
ALSO_CALLED = {
    **dict.fromkeys(("learning_rate", "learningrate", "max_lr"), ("optimizer.lr",)),
    **dict.fromkeys(("bs", "batch"), ("data.batch_size",)),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "nb_epochs"), ("trainer.max_epochs",)),
    **dict.fromkeys(("gpus", "num_gpus", "device"), ("trainer.accelerator", "trainer.devices")),
    **dict.fromkeys(("hidden", "hidden_size", "layers"), ("model.hidden_sizes",)),
    "wd": ("optimizer.weight_decay",),
    "random_seed": ("seed",),
    "threads": ("num_threads",),
    "resume": ("ckpt_path",),
}
CLOSED_GROUPS = ("data", "regularization", "select", "sweep")  # whose every key is in RULES
OPEN_NODES = (("data", "source"),)  # within them
DATA_MODULE = "fmnist_lit.data.FashionMNISTDataModule"
OPTIONAL_KEYS = {  # of those in RULES that a configuration may lack
    *("trainer.gradient_clip_algorithm", "trainer.overfit_batches", "trainer.detect_anomaly"),
    *(f"trainer.limit_{split}_batches" for split in ("train", "val", "test")),
    *(key for key in RULES if key.startswith("data.source.")),
}
TRACKERS = {"fmnist_lit.loggers.WandbLogger": "wandb", "fmnist_lit.loggers.MLFlowLogger": "mlflow"}  # and the extra
REQUIRED_KEYS = {
    *(TOP_LEVEL_KEYS - {"hydra"}),
    *(key for key in RULES if key.split(".")[0] in (*CLOSED_GROUPS, "trainer") and key not in OPTIONAL_KEYS),
    *(f"{group}._target_" for group in ("data", "model", "loss", "optimizer", "scheduler")),
    "scheduler.interval",
}


def check_configuration(cfg: DictConfig) -> None:
    """Accept a composed configuration, with or without its ``hydra`` node, or say what is wrong with it.

    Raises:
        ConfigError: at the first thing that is not allowed.
    """
    require_written_out(plain(cfg, resolve=False))
    missing = set(REQUIRED_KEYS)
    nodes: Nodes = {}
    tree = list(walk(cfg))
    # what a part of somebody's own may be given is for its signature to say, whatever its keys are called
    own = {path[:-1] for path, value in tree if path[-1] == "_target_" and is_of_trusted_package(str(value))}
    for path, value in tree:
        require_trusted(path, value)
        nodes.setdefault(path[:-1], {})[path[-1]] = value
        key = ".".join(path)
        missing.discard(key)
        if path[0] != "hydra":
            check_value(key, path, value, has_rules=not any(path[:length] in own for length in range(1, len(path))))
    if missing:
        raise ConfigError(f"{min(missing)}: missing, nothing runs without it")
    check_lightning(cfg)
    check_trackers(cfg)
    check_arguments(nodes)
    check_combinations(cfg)


def check_values(cfg: DictConfig, keys: Collection[str]) -> None:
    """Accept a configuration that differs from an accepted one in the values of some keys, in a tenth of the time.

    Args:
        cfg: the configuration.
        keys: those in which it differs. What refers to them is not looked at.

    Raises:
        ConfigError: at the first thing that is not allowed.
    """
    values = {key: OmegaConf.select(cfg, key) for key in keys}
    if any(
        isinstance(value, DictConfig | ListConfig) or key.split(".")[-1].startswith("_")
        for key, value in values.items()
    ):
        check_configuration(cfg)
        return
    for key, value in values.items():
        path = tuple(key.split("."))
        nodes = [OmegaConf.select(cfg, ".".join(path[:length])) for length in range(1, len(path))]
        own = any(is_of_trusted_package(str(node.get("_target_"))) for node in nodes if isinstance(node, DictConfig))
        require_trusted(path, value)
        check_value(key, path, value, has_rules=not own)
    check_lightning(cfg)
    check_combinations(cfg)


def check_value(key: str, path: tuple[str, ...], value: Any, *, has_rules: bool = True) -> None:
    """Refuse a key that nobody reads, and a value that is not given, of the wrong type or out of range."""
    known = key in RULES or path[1:] == ("_target_",) or any(rule.startswith(f"{key}.") for rule in RULES)
    item = path[-1].isdigit()  # of a list, which its own rule judges
    unread = path[0] in CLOSED_GROUPS and not (known or item or path[:2] in OPEN_NODES)
    if path[0] in GLOBAL_GROUPS:
        raise ConfigError(f"{key}: no such key; the first line of a file in {path[0]}/ must be # @package _global_")
    if path[0] not in TOP_LEVEL_KEYS or unread:
        raise ConfigError(unknown_key(key))
    if key == "data._target_" and value != DATA_MODULE:
        raise ConfigError(f"{key}={value}: must be {DATA_MODULE}; a data set of your own is data.source._target_")
    if value == "???":
        raise ConfigError(f"{key}=???: must be given")
    if key in GROUPS and not isinstance(value, DictConfig):
        raise ConfigError(f"{key}={as_typed(value)}: must be the name of a file in conf/{key}")
    if path[0] in ("callbacks", "logger") and len(path) == 2 and not isinstance(value, DictConfig):
        raise ConfigError(f"{key}={as_typed(value)}: must have a _target_; ~{key} leaves it out")
    try:
        resolved = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: cannot be resolved: {str(error).splitlines()[0]}") from error
    rule = RULES.get(key) if has_rules else None
    rule = rule or (FINITE if isinstance(resolved, float) else None)
    if rule is not None and not rule.check(resolved):
        raise ConfigError(f"{key}={as_typed(resolved)}: must be {rule.allowed}")


def as_typed(value: Any) -> str:
    """A value as a person would type it."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))


def check_lightning(cfg: DictConfig) -> None:
    """Refuse what of Lightning's a run cannot have; accepted and ignored would be worse."""
    for option, reason in REFUSED_TRAINER_OPTIONS.items():
        if option in cfg.trainer:
            raise ConfigError(f"trainer.{option}={as_typed(cfg.trainer[option])}: not an option of a run; {reason}")
    for name, callback in cfg.callbacks.items():
        package, _, kind = str(callback.get("_target_")).rpartition(".")
        if package == "lightning.pytorch.callbacks" and kind in REFUSED_CALLBACKS:
            raise ConfigError(f"callbacks.{name}._target_={package}.{kind}: cannot be used; {REFUSED_CALLBACKS[kind]}")


def check_trackers(cfg: DictConfig) -> None:
    """Refuse a tracker whose package is not installed."""
    for node in cfg.logger.values():
        package = TRACKERS.get(str(node.get("_target_")))
        if package is not None:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:  # or a folder of that name is here, such as W&B makes
                raise ConfigError(f"logger={package}: is not installed; pip install 'fmnist_lit[{package}]'")


def check_combinations(cfg: DictConfig) -> None:
    """Refuse values that are fine alone and wrong together."""
    train_size = None
    if isinstance(cfg.data.source, str):  # else the sizes are known once it is read
        train_size, _ = sizes(cfg.data.train_size, cfg.data.val_size, TRAIN_IMAGES)
        if cfg.data.test_size is not None and cfg.data.test_size > TEST_IMAGES:
            raise ConfigError(f"data.test_size={cfg.data.test_size}: more than the {TEST_IMAGES} test images")
    check_selection(cfg)
    if "ReduceLROnPlateau" in cfg.scheduler._target_ and cfg.trainer.get("check_val_every_n_epoch", 1) != 1:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch={cfg.trainer.check_val_every_n_epoch}: "
            "scheduler=plateau follows a figure of every epoch"
        )
    for name, callback in cfg.callbacks.items():
        if "BatchSizeFinder" in str(callback.get("_target_")) and "total_steps" in str(cfg.scheduler):
            raise ConfigError(
                f"callbacks.{name}: BatchSizeFinder changes the number of steps, for which the schedule is laid out; "
                "find the size with scheduler=constant, then give data.batch_size"
            )
    if cfg.optimizer.get("nesterov") and not cfg.optimizer.get("momentum"):
        raise ConfigError("optimizer.nesterov=true: needs optimizer.momentum > 0")
    if "Muon" in cfg.optimizer._target_ and cfg.model.get("hidden_sizes") == []:
        raise ConfigError("optimizer=muon: needs a hidden layer, but model.hidden_sizes is empty")
    if cfg.model.get("batch_norm") and train_size is not None and train_size % cfg.data.batch_size == 1:
        raise ConfigError(
            f"data.batch_size={cfg.data.batch_size}: leaves a last batch of one image, which model.batch_norm=true "
            "cannot normalise"
        )


def sizes(train_size: int | None, val_size: float, available: int) -> tuple[int, int]:
    """How many of the available training images train and how many validate.

    Args:
        train_size: as ``data.train_size``: None for all that validation leaves.
        val_size: as ``data.val_size``: a number, or a share.
        available: how many there are.

    Raises:
        ConfigError: if there are not so many.
    """
    validating = val_size if isinstance(val_size, int) else round(val_size * available)
    training = available - validating if train_size is None else train_size
    if training < 1 or training + validating > available:
        raise ConfigError(
            f"data.train_size={as_typed(train_size)} and data.val_size={val_size}: "
            f"together more than the {available} training images"
        )
    return training, validating


def unknown_key(key: str) -> str:
    """An error text that names the keys which end as the given one does, or else the nearest."""
    known = sorted(TOP_LEVEL_KEYS | RULES.keys())
    last = key.rpartition(".")[2]
    by_ending: dict[str, list[str]] = {}
    for other in known:
        by_ending.setdefault(other.rpartition(".")[2], []).append(other)
    meant = list(ALSO_CALLED.get(last, by_ending.get(last, ())))
    if not meant and "." not in key:
        meant = [other for ending in difflib.get_close_matches(key, by_ending, n=1) for other in by_ending[ending]]
    meant = meant or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{key}: no such key" + (f"; did you mean {' or '.join(meant)}?" if meant else "; --cfg job shows all keys")
