"""The range of every number and the options of every choice: the one file to edit for a new one."""

import math
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fmnist_lit.config.criterion import is_of_test


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        allowed: in words, for people.
        check: whether a value is.
        schema: as JSON Schema, for editors; it may accept more, but nothing less.
    """

    allowed: str
    check: Callable[[Any], bool]
    schema: Mapping[str, Any]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(
            f"{self.allowed} or {other.allowed}",
            lambda value: self.check(value) or other.check(value),
            {"anyOf": [self.schema, other.schema]},
        )


# Bounds by their names in JSON Schema
BOUNDS = {
    "exclusiveMinimum": (">", operator.gt),
    "minimum": (">=", operator.ge),
    "exclusiveMaximum": ("<", operator.lt),
    "maximum": ("<=", operator.le),
}


def integer(low: int, high: int | None = None) -> Rule:
    """A whole number, not a truth value, within bounds that are included."""
    allowed = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    return Rule(
        allowed,
        lambda v: type(v) is int and low <= v and (high is None or v <= high),
        {"type": "integer", "minimum": low, **({} if high is None else {"maximum": high})},
    )


def number(note: str = "", **bounds: float) -> Rule:
    """A finite number within BOUNDS, whole or not; ``note`` is said beside them."""
    words = " and ".join(f"{BOUNDS[name][0]} {bound}" for name, bound in bounds.items())
    return Rule(
        f"a finite number {words}{note}",
        lambda v: (
            type(v) in (int, float)
            and math.isfinite(v)
            and all(BOUNDS[name][1](v, bound) for name, bound in bounds.items())
        ),
        {"type": "number", **bounds},
    )


def one_of(*options: str) -> Rule:
    """One of a few words."""
    return Rule(", ".join(options), lambda v: v in options, {"enum": list(options)})


def sequence_of(rule: Rule) -> Rule:
    """A list, maybe empty, of what ``rule`` allows."""
    return Rule(
        f"a list, each of it {rule.allowed}",
        lambda v: isinstance(v, list) and all(map(rule.check, v)),
        {"type": "array", "items": rule.schema},
    )


NULL = Rule("null", lambda v: v is None, {"type": "null"})
BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool), {"type": "boolean"})
TEXT = Rule("text", lambda v: isinstance(v, str) and bool(v), {"type": "string", "minLength": 1})
FIGURE = Rule(
    "a figure such as accuracy/val or loss/val, but not of the test set, which is read once, at the end",
    lambda v: TEXT.check(v) and not is_of_test(v),
    {**TEXT.schema, "not": {"pattern": "(^|[^A-Za-z])[Tt][Ee][Ss][Tt]([^A-Za-z]|$)"}},
)
PATH = Rule(
    "text, a path; ~ or ~name at its start is a user's home",
    lambda v: TEXT.check(v) and not os.path.expanduser(v).startswith("~"),
    TEXT.schema,
)
POSITIVE = number(exclusiveMinimum=0)
NOT_NEGATIVE = number(minimum=0)
FRACTION = number(minimum=0, exclusiveMaximum=1)
SHARE = Rule(
    "a share from 0.0 to 1.0",
    lambda v: type(v) is float and 0 <= v <= 1,
    {"type": "number", "minimum": 0, "maximum": 1},
)
BATCHES = integer(0) | SHARE | NULL
DATASETS = {"fashion_mnist": "Fashion-MNIST", "synthetic": "SYNTHETIC stand-in for Fashion-MNIST"}  # for people
PART = Rule(
    "the class of a data set in data.source._target_",
    lambda v: isinstance(v, Mapping) and "_target_" in v,
    {"type": "object", "required": ["_target_"]},
)
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000


def title_of(dataset: str) -> str:
    """A data set's name as people are shown it; one of somebody's own has its own name."""
    return DATASETS.get(dataset, dataset)


RULES = {
    "seed": integer(0, 2**32 - 1),
    "num_threads": integer(1, 1024) | NULL,
    "debug": TEXT | NULL,
    "ckpt_path": TEXT | NULL,
    "init_from": TEXT | NULL,
    "total_steps": NULL,
    "select.metric": FIGURE,
    "select.mode": one_of("max", "min"),
    "tags": replace(sequence_of(TEXT), allowed="a list of text, such as [baseline,'2nd']"),
    "note": TEXT | NULL,
    "evaluate_each_epoch": sequence_of(one_of("val", "test")),
    "flip_average": BOOLEAN,
    "regularization.l1": NOT_NEGATIVE,
    "regularization.decay_biases": BOOLEAN,
    "sweep.fail_fast": BOOLEAN,
    "sweep.halving": integer(2) | NULL,
    "sweep.until_epoch": integer(1) | NULL,
    "data.source": one_of("auto", "fashion_mnist", "synthetic") | PART,
    "data.source.test_share": number(exclusiveMinimum=0, exclusiveMaximum=1),
    "data.source.background": one_of("auto", "black", "white"),
    "data.source.trim": BOOLEAN,
    "data.data_dir": PATH,
    "data.batch_size": integer(1, TRAIN_IMAGES),
    "data.eval_batch_size": integer(1, TRAIN_IMAGES),
    "data.val_size": integer(0) | number(", a share of the training images", exclusiveMinimum=0, exclusiveMaximum=1),
    "data.train_size": integer(1) | NULL,
    "data.test_size": integer(1) | NULL,
    "data.shuffle": BOOLEAN,
    "data.normalize": BOOLEAN,
    "data.augmentation.flip": BOOLEAN,
    "data.augmentation.shift": integer(0, 27),
    "data.synthetic_seed": integer(0, 2**32 - 1),
    "model.hidden_sizes": sequence_of(integer(1, 65_536)),
    "model.channels": sequence_of(integer(1, 65_536)),
    "model.hidden_size": integer(1, 65_536),
    "model.activation": one_of("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu"),
    "model.dropout": FRACTION,
    "model.batch_norm": BOOLEAN,
    "optimizer.lr": POSITIVE,
    "optimizer.adamw_lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.adamw_weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": FRACTION,
    "optimizer.betas": Rule(
        "two numbers >= 0 and < 1",
        lambda v: sequence_of(FRACTION).check(v) and len(v) == 2,
        {**sequence_of(FRACTION).schema, "minItems": 2, "maxItems": 2},
    ),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.alpha": FRACTION,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "optimizer.nesterov": BOOLEAN,
    "optimizer.ns_steps": integer(1, 99),
    "optimizer.fused": BOOLEAN | NULL,
    "callbacks.ema.decay": FRACTION,
    "callbacks.overview.graph": BOOLEAN,
    "callbacks.projector.num_images": integer(1),
    **{
        f"callbacks.pictures.{key}": BOOLEAN
        for key in ("training_images", "weights", "confusion_matrix", "mistakes", "precision_recall")
    },
    **{f"callbacks.inside.{key}": BOOLEAN for key in ("histograms", "dead_units", "gradients", "updates", "warnings")},
    "logger.wandb.project": Rule(
        r"a name of at most 128 characters, none of them of /\#?%:",
        lambda v: TEXT.check(v) and len(v) <= 128 and not set(v) & set(r"/\#?%:"),
        {**TEXT.schema, "maxLength": 128, "pattern": r"^[^/\\#?%:]*$"},
    ),
    "logger.wandb.log_model": BOOLEAN,
    "logger.mlflow.experiment_name": TEXT,
    "logger.mlflow.log_model": BOOLEAN,
    "scheduler.interval": one_of("step", "epoch"),
    "scheduler.monitor": FIGURE | NULL,
    "scheduler.step_size": integer(1),
    "scheduler.gamma": POSITIVE,
    "scheduler.factor": POSITIVE,
    "scheduler.patience": integer(0),
    "scheduler.pct_start": number(minimum=0, maximum=1),
    "scheduler.warmup_fraction": FRACTION,
    "scheduler.power": POSITIVE,
    "scheduler.eta_min": NOT_NEGATIVE,
    "scheduler.cycle_momentum": BOOLEAN,
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.devices": integer(1, 1024) | one_of("auto") | sequence_of(integer(0)),
    "trainer.precision": one_of("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.matmul_precision": one_of("highest", "high", "medium"),
    "trainer.max_epochs": integer(1),
    "trainer.max_steps": integer(1) | Rule("-1", lambda v: type(v) is int and v == -1, {"const": -1}),
    "trainer.gradient_clip_val": POSITIVE | NULL,
    "trainer.gradient_clip_algorithm": one_of("norm", "value") | NULL,
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.checkpoint_every_n_steps": integer(1) | NULL,
    **{f"trainer.limit_{split}_batches": BATCHES for split in ("train", "val", "test")},
    "trainer.overfit_batches": BATCHES,
    "trainer.detect_anomaly": BOOLEAN,
    "trainer.steps_per_batch": integer(1) | one_of("auto"),
    "trainer.cuda_graph": BOOLEAN,
    "loss.label_smoothing": number(minimum=0, maximum=1),
}
# Any other number, such as an option that a new optimiser brings
FINITE = Rule("a finite number", math.isfinite, {"type": "number"})
