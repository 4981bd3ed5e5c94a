"""What makes one epoch, or one run, better than another: ``select.metric`` and ``select.mode``."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from fmnist_lit.config import ConfigError
from fmnist_lit.config.trust import is_of_trusted_package

KINDS = ("accuracy", "loss")
SPLITS = {"train": "training", "val": "validation"}  # never test, which is read once, at the end
FLIP_AVERAGE = "_flip_average"
BETTER = {"loss": "min", "accuracy": "max"}
PLATEAU_METRIC = "loss/val"


def is_of_test(metric: str) -> bool:
    """Whether a figure's name says that it is of the test set."""
    return "test" in re.split(r"[^a-z]+", metric.lower())


def was_not_logged(what: str, logged: Iterable[str]) -> str:
    """An error text for a figure that an epoch turns out not to have, with those that it has."""
    there = sorted({name for name in logged if not is_of_test(name)} - {"lr", "seconds"})
    return f"{what}: not among the figures of the epoch, which are {', '.join(there)}"


@dataclass(frozen=True)
class Criterion:
    """A figure by which the best is chosen, and whether high or low is good.

    Attributes:
        metric: its TensorBoard tag.
        mode: ``max`` or ``min``.
    """

    metric: str = "accuracy/val"
    mode: str = "max"

    @classmethod
    def of(cls, node: Any) -> "Criterion":
        """As a ``select`` node says; the default where there is none, as before there were others."""
        metric, mode = (node.get(key) if isinstance(node, Mapping) else None for key in ("metric", "mode"))
        return cls(metric, mode) if isinstance(metric, str) and mode in ("max", "min") else DEFAULT

    @property
    def is_default(self) -> bool:
        """Whether it is what is chosen by where nobody says anything."""
        return self == DEFAULT

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share of right answers, which people read as a percentage."""
        return self.metric.startswith("accuracy/")

    @property
    def column(self) -> str:
        """What ``results.json`` and tables call the figure: ``val_accuracy``; the tag, if it is a callback's."""
        kind, _, split = self.metric.partition("/")
        name = split.removesuffix(FLIP_AVERAGE)
        return f"{name}_{kind}{split[len(name) :]}" if kind in KINDS and name in SPLITS else self.metric

    @property
    def words(self) -> str:
        """What people call the figure: ``validation accuracy``."""
        kind, _, split = self.metric.partition("/")
        name = split.removesuffix(FLIP_AVERAGE)
        if kind not in KINDS or name not in SPLITS:
            return self.metric
        return f"{SPLITS[name]} {kind}{' averaged over flips' if name != split else ''}"

    @property
    def superlative(self) -> str:
        """The best in words: ``lowest validation loss``."""
        return f"{'highest' if self.mode == 'max' else 'lowest'} {self.words}"

    @property
    def worst(self) -> float:
        """What a run without the figure counts as for a sweeper, which needs a number."""
        return 0.0 if self.is_share else self.cost(math.inf)

    def cost(self, value: float) -> float:
        """A number that is lower for what is better."""
        return value if self.mode == "min" else -value

    def improves(self, value: float | None, best: float | None) -> bool:
        """Whether a figure is better than the best so far, if there is one; what is not finite never is."""
        if value is None or not math.isfinite(value):
            return False
        return best is None or self.cost(value) < self.cost(best)

    def shown(self, value: float, std: float | None = None) -> str:
        """A figure, with its standard deviation if there is one, as people read it."""
        if self.is_share:
            return f"{100 * value:.2f} %" if std is None else f"{100 * value:.2f} ± {100 * std:.2f} %"
        return f"{value:.4f}" if std is None else f"{value:.4f} ± {std:.4f}"


DEFAULT = Criterion()


def watched_by_plateau(cfg: DictConfig) -> tuple[str, str]:
    """The metric that ``ReduceLROnPlateau`` follows, and its mode.

    That is the one that selects, except that the loss stands in for the accuracy, which moves in steps of an image.
    """
    monitor = cfg.scheduler.get("monitor")
    criterion = Criterion.of(cfg.get("select"))
    if monitor is not None or criterion.is_default or criterion.metric == PLATEAU_METRIC:
        return monitor or PLATEAU_METRIC, cfg.scheduler.get("mode", "min")
    return criterion.metric, criterion.mode


def check_selection(cfg: DictConfig) -> None:
    """Refuse to select, to stop or to follow a plateau by a figure that no epoch will have.

    Raises:
        ConfigError: naming the key.
    """
    criterion = Criterion(cfg.select.metric, cfg.select.mode)
    for word, mode in BETTER.items():
        if word in re.split(r"[^a-z]+", criterion.metric.lower()) and criterion.mode != mode:
            raise ConfigError(
                f"select.mode={criterion.mode}: of select.metric={criterion.metric}, the "
                f"{'lowest' if mode == 'min' else 'highest'} is the best; must be {mode}"
            )
    if not criterion.is_default:
        require_figure(cfg, "select.metric", criterion.metric)
    if "ReduceLROnPlateau" in cfg.scheduler._target_:
        require_figure(cfg, "scheduler=plateau follows", watched_by_plateau(cfg)[0])
    for name, callback in cfg.callbacks.items():
        if "EarlyStopping" in str(callback.get("_target_")) and isinstance(callback.get("monitor"), str):
            require_figure(cfg, f"callbacks.{name}.monitor", callback.monitor)


def require_figure(cfg: DictConfig, key: str, metric: str) -> None:
    """Refuse a figure of the test set, and one that the run will not have, where that can be known before it.

    Raises:
        ConfigError: saying what it needs, or which figures there are.
    """
    told = f"{key} {metric}" if " " in key else f"{key}={metric}"
    if is_of_test(metric):
        raise ConfigError(f"{told}: the test set is read once, at the end, and decides nothing before")
    kind, _, split = metric.partition("/")
    name = split.removesuffix(FLIP_AVERAGE)
    if kind in KINDS and name == "val" and not (cfg.data.val_size and "val" in cfg.evaluate_each_epoch):
        raise ConfigError(f"{told}: needs data.val_size > 0 and val in evaluate_each_epoch")
    if kind in KINDS and name == "val" and name != split and not cfg.flip_average:
        raise ConfigError(f"{told}: needs flip_average=true")
    splits = ["train", *(["val"] if cfg.data.val_size and "val" in cfg.evaluate_each_epoch else [])]
    if cfg.flip_average:
        splits += [f"{each}{FLIP_AVERAGE}" for each in splits[1:]]
    known = [f"{each}/{of}" for of in splits for each in KINDS]
    targets = [str(callback.get("_target_")) for callback in cfg.callbacks.values()]
    if metric not in known and not any(map(is_of_trusted_package, targets)):
        close = difflib.get_close_matches(metric, known, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{told}: no callback of your own logs it, and there are only {', '.join(known)}{meant}")
