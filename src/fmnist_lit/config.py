"""What a configuration may say: known keys, types, ranges, combinations, and the classes it may build."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the key, the value and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """What a value may be: ``check`` accepts it or not, ``allowed`` says in words what it accepts."""

    allowed: str
    check: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.allowed} or {other.allowed}", lambda value: self.check(value) or other.check(value))


def integer(low: int, high: int | None = None) -> Rule:
    """A whole number, not a truth value, within bounds that are included."""
    allowed = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    return Rule(allowed, lambda v: type(v) is int and low <= v and (high is None or v <= high))


def number(condition: str, check: Callable[[float], bool] = lambda v: True) -> Rule:
    """A finite number that meets a condition, whole or not."""
    return Rule(
        f"a finite number{condition and ' ' + condition}",
        lambda v: type(v) in (int, float) and math.isfinite(v) and check(v),
    )


def one_of(*options: str) -> Rule:
    """One of a few words."""
    return Rule(", ".join(options), lambda v: v in options)


def sequence_of(rule: Rule) -> Rule:
    """A list, maybe empty, of what ``rule`` allows."""
    return Rule(f"a list, each of it {rule.allowed}", lambda v: isinstance(v, list) and all(map(rule.check, v)))


NULL = Rule("null", lambda v: v is None)
BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool))
TEXT = Rule("text", lambda v: isinstance(v, str) and bool(v))
POSITIVE = number("> 0", lambda v: v > 0)
NOT_NEGATIVE = number(">= 0", lambda v: v >= 0)
FRACTION = number(">= 0 and < 1", lambda v: 0 <= v < 1)

DATASETS = {"fashion_mnist": "Fashion-MNIST", "synthetic": "SYNTHETIC stand-in for Fashion-MNIST"}  # for people
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000

RULES = {
    "seed": integer(0, 2**32 - 1),
    "num_threads": integer(1, 1024) | NULL,
    "ckpt_path": TEXT | NULL,
    "total_steps": NULL,
    "evaluate_each_epoch": sequence_of(one_of("val", "test")),
    "flip_average": BOOLEAN,
    "regularization.l1": NOT_NEGATIVE,
    "regularization.decay_biases": BOOLEAN,
    "sweep.fail_fast": BOOLEAN,
    "data.source": one_of("auto", "fashion_mnist", "synthetic"),
    "data.data_dir": TEXT,
    "data.batch_size": integer(1, TRAIN_IMAGES),
    "data.eval_batch_size": integer(1, TRAIN_IMAGES),
    "data.val_size": integer(0, TRAIN_IMAGES - 1),
    "data.train_size": integer(1, TRAIN_IMAGES) | NULL,
    "data.test_size": integer(1, TEST_IMAGES) | NULL,
    "data.shuffle": BOOLEAN,
    "data.normalize": BOOLEAN,
    "data.augmentation.flip": BOOLEAN,
    "data.augmentation.shift": integer(0, 27),
    "data.synthetic_seed": integer(0, 2**32 - 1),
    "model.hidden_sizes": sequence_of(integer(1, 65_536)),
    "model.activation": one_of("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu"),
    "model.dropout": FRACTION,
    "model.batch_norm": BOOLEAN,
    "optimizer.lr": POSITIVE,
    "optimizer.adamw_lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.adamw_weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": FRACTION,
    "optimizer.betas": Rule("two numbers >= 0 and < 1", lambda v: sequence_of(FRACTION).check(v) and len(v) == 2),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.alpha": FRACTION,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "optimizer.nesterov": BOOLEAN,
    "optimizer.ns_steps": integer(1, 99),
    "optimizer.fused": BOOLEAN | NULL,
    "callbacks.ema.decay": FRACTION,
    "scheduler.interval": one_of("step", "epoch"),
    "scheduler.step_size": integer(1),
    "scheduler.gamma": POSITIVE,
    "scheduler.factor": POSITIVE,
    "scheduler.patience": integer(0),
    "scheduler.pct_start": number("from 0 to 1", lambda v: 0 <= v <= 1),
    "scheduler.warmup_fraction": FRACTION,
    "scheduler.eta_min": NOT_NEGATIVE,
    "scheduler.cycle_momentum": BOOLEAN,
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.devices": integer(1, 1024) | one_of("auto") | sequence_of(integer(0)),
    "trainer.precision": one_of("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "trainer.matmul_precision": one_of("highest", "high", "medium"),
    "trainer.max_epochs": integer(1),
    "trainer.max_steps": integer(1) | Rule("-1", lambda v: type(v) is int and v == -1),
    "trainer.gradient_clip_val": POSITIVE | NULL,
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.checkpoint_every_n_steps": integer(1) | NULL,
    "trainer.steps_per_batch": integer(1),
    "loss.label_smoothing": number("from 0 to 1", lambda v: 0 <= v <= 1),
}
# Any other number, such as an option that a new optimiser brings
FINITE = Rule("a finite number", math.isfinite)

# What _target_ may name. A configuration from a stranger must not be able to run code, so nothing here takes code,
# a command or a file to execute. A pattern names classes directly in a module: no further dot, a capital first.
TRUSTED_TARGETS = re.compile(
    r"""fmnist_lit\.(data\.FashionMNISTDataModule|model\.MLP|losses\.(OneHotLoss|LogSoftmaxNLLLoss)
        |optimizers\.MuonWithAdamW|schedulers\.(WarmupLinearLR|OneCycleLR)|checkpoint\.RunCheckpoint
        |averaging\.WeightEMA        |progress\.ProgressBar|loggers\.(TensorBoard|CSV|Console)Logger)
    |torch\.nn\.[A-Z]\w*Loss
    |torch\.optim\.[A-Z]\w*
    |torch\.optim\.lr_scheduler\.[A-Z]\w*
    |lightning\.pytorch\.(callbacks|loggers)\.[A-Z]\w*
    """,
    re.VERBOSE,
)
TRUSTED_HYDRA_TARGETS = re.compile(
    r"""fmnist_lit\.sweep\.callback\.SummaryCallback
    |hydra_plugins\.fmnist_lit_sweeper\.grid_sweeper\.GridSweeper
    |hydra\._internal\.core_plugins\.basic_(sweeper\.BasicSweeper|launcher\.BasicLauncher)
    |hydra_plugins\.hydra_joblib_launcher\.joblib_launcher\.JoblibLauncher
    |hydra_plugins\.hydra_submitit_launcher\.submitit_launcher\.(Local|Slurm)Launcher
    |hydra_plugins\.hydra_ray_launcher\.ray_launcher\.RayLauncher
    |hydra_plugins\.hydra_optuna_sweeper\.optuna_sweeper\.OptunaSweeper
    |optuna\.samplers\.[A-Z]\w*
    """,
    re.VERBOSE,
)
# Keys of launchers and sweepers. Left out: those that take shell commands, functions, options of srun or sbatch at
# will, or the address of a cluster, whose answers would be unpickled.
TRUSTED_PLUGIN_KEYS = re.compile(
    r"""_target_|params(\..+)?|max_batch_size|sampler(\..+)?|direction|study_name|n_trials|n_jobs|max_failure_rate
    |backend|prefer|require|verbose|pre_dispatch|batch_size|timeout|temp_folder|max_nbytes|mmap_mode
    |submitit_folder|name|partition|account|qos|constraint|exclude|comment|timeout_min|signal_delay_s|max_num_timeout
    |array_parallelism|nodes|tasks_per_node|(cpus|gpus)_per_(task|node|gpu)|gres|mem_gb|mem_per_(cpu|gpu)
    |stderr_to_stdout|ray(\.(init|remote))?|ray\.init\.(num_cpus|num_gpus|object_store_memory|include_dashboard)
    |ray\.remote\.(num_cpus|num_gpus|memory|max_retries)
    """,
    re.VERBOSE,
)
TRUSTED_LOGGING_CLASSES = re.compile(
    r"fmnist_lit\.console\.ConsoleHandler|logging\.((Stream|File|Null)Handler|Formatter)|colorlog\.ColoredFormatter"
)
LOG_FILES = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|\w[\w.-]*)\.log")
# Text that Hydra fills in itself; what any other interpolation gives may differ from one time to the next
FILLED_IN_BY_HYDRA = re.compile(r"\$\{hydra\.(runtime\.output_dir|sweep\.dir|job\.name)\}")
HARMLESS_VARIABLES = ("CUDA_VISIBLE_DEVICES", "FMNIST_DATA_DIR", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
LOGGING = (("job_logging",), ("hydra_logging",))
DEEPEST = 40  # levels; deeper is a configuration that refers to itself

GROUPS = ("data", "model", "loss", "optimizer", "scheduler", "trainer", "logger", "callbacks")
TOP_LEVEL_KEYS = {
    *(*GROUPS, "regularization", "sweep", "hydra"),
    *("seed", "num_threads", "ckpt_path", "evaluate_each_epoch", "flip_average", "run_dir", "total_steps"),
}
CLOSED_GROUPS = ("data", "model", "regularization", "sweep")  # whose every key is in RULES
REQUIRED_KEYS = {
    *(TOP_LEVEL_KEYS - {"hydra"}),
    *(key for key in RULES if key.split(".")[0] in (*CLOSED_GROUPS, "trainer")),
    *(f"{group}._target_" for group in ("data", "model", "loss", "optimizer", "scheduler")),
    "scheduler.interval",
}


def check(cfg: DictConfig) -> None:
    """Accept a composed configuration, with or without its ``hydra`` node, or say what is wrong with it.

    Raises:
        ConfigError: at the first thing that is not allowed.
    """
    check_written_out(OmegaConf.to_container(cfg, resolve=False))
    missing = set(REQUIRED_KEYS)
    for path, value in walk(cfg):
        check_trust(path, value)
        key = ".".join(path)
        missing.discard(key)
        if path[0] != "hydra":
            check_value(key, path, value)
    if missing:
        raise ConfigError(f"{min(missing)}: missing, nothing runs without it")
    check_combinations(cfg)


def check_value(key: str, path: tuple[str, ...], value: Any) -> None:
    """Refuse a key that nobody reads, and a value of the wrong type or out of range."""
    known = key in RULES or path[1:] == ("_target_",) or any(rule.startswith(f"{key}.") for rule in RULES)
    item = path[-1].isdigit()  # of a list, which its own rule judges
    unread = path[0] in CLOSED_GROUPS and not (known or item)
    if path[0] not in TOP_LEVEL_KEYS or unread:
        raise ConfigError(unknown_key(key, RULES))
    if key in GROUPS and not isinstance(value, DictConfig):
        raise ConfigError(f"{key}={show(value)}: must be the name of a file in conf/{key}")
    if path[0] in ("callbacks", "logger") and len(path) == 2 and not isinstance(value, DictConfig):
        raise ConfigError(f"{key}={show(value)}: must have a _target_; ~{key} leaves it out")
    try:
        plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: cannot be resolved: {str(error).splitlines()[0]}") from error
    rule = RULES.get(key, FINITE if isinstance(plain, float) else None)
    if rule is not None and not rule.check(plain):
        raise ConfigError(f"{key}={show(plain)}: must be {rule.allowed}")


def show(value: Any) -> str:
    """A value as a person would type it."""
    return {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))


def walk(node: DictConfig | ListConfig, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path in the tree with its value; an interpolation that waits for Hydra to run gives its text.

    Raises:
        ConfigError: if an interpolation can never be resolved, or the tree contains itself.
    """
    if len(path) > DEEPEST:
        raise ConfigError(f"{'.'.join(path[:3])}…: nested more than {DEEPEST} levels deep")
    keys = sorted(node, key=lambda key: key == "hydra") if isinstance(node, DictConfig) else range(len(node))
    for key in keys:  # Hydra's own last: its folder names repeat what is wrong elsewhere
        here = (*path, str(key))
        try:
            value = node[key]
        except (InterpolationToMissingValueError, MissingMandatoryValue):
            value = OmegaConf.to_container(node, resolve=False)[key]
        except OmegaConfBaseException as error:
            value = OmegaConf.to_container(node, resolve=False)[key]
            if "HydraConfig was not set" not in str(error):
                reason = str(error).splitlines()[0]
                raise ConfigError(f"{'.'.join(here)}={value}: cannot be resolved: {reason}") from error
        if isinstance(value, dict | list):  # what a resolver such as oc.decode makes
            value = OmegaConf.create(value)
        yield here, value
        if isinstance(value, DictConfig | ListConfig):
            yield from walk(value, here)


def check_written_out(node: Any, path: tuple[str, ...] = ()) -> None:
    """Refuse interpolations where they could name code: what is checked here is not what Hydra would see later."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_written_out(value, (*path, str(key)))
        return
    builds = path[:1] == ("hydra",) and path[1:2] in [("callbacks",), ("launcher",), ("sweeper",), *LOGGING]
    if (builds or "_target_" in path[-1:]) and "${" in FILLED_IN_BY_HYDRA.sub("", str(node)):
        raise ConfigError(f"{'.'.join(path)}={node}: must be written out, without an interpolation")
    if path[1:2] in LOGGING and path[-1] == "filename" and not LOG_FILES.fullmatch(str(node)):
        raise ConfigError(f"{'.'.join(path)}={node}: must be ${{hydra.runtime.output_dir}}/NAME.log")


def check_trust(path: tuple[str, ...], value: Any) -> None:
    """Refuse whatever would make Hydra or ``logging`` call something that is not on the list."""
    key, name = ".".join(path), path[-1]
    if name == "_target_":
        trusted = TRUSTED_HYDRA_TARGETS if path[0] == "hydra" else TRUSTED_TARGETS
        if not (isinstance(value, str) and trusted.fullmatch(value)):
            raise ConfigError(
                f"{key}={value}: not a class that a configuration may name; allowed are losses in torch.nn, "
                "torch.optim, torch.optim.lr_scheduler, lightning.pytorch.callbacks and .loggers, and fmnist_lit's own"
            )
    if path[0] == "hydra" and path[1:2] in (("launcher",), ("sweeper",)) and len(path) > 2:
        if value not in (None, {}) and not TRUSTED_PLUGIN_KEYS.fullmatch(".".join(path[2:])):
            raise ConfigError(f"{key}={value}: not a key of a {path[1]} that a configuration may set")
        if path[1] == "launcher" and isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{key}={value!r}: must be one line")  # it becomes one of a shell script
    if path[:3] == ("hydra", "job", "env_set") and len(path) == 4 and name not in HARMLESS_VARIABLES:
        raise ConfigError(f"{key}={value}: not an environment variable that a configuration may set")
    if key == "hydra.job.name" and not re.fullmatch(r"\w[\w.-]*", str(value)):
        raise ConfigError(f"{key}={value}: must be a plain word, it names the log")
    if key == "hydra.output_subdir" and value not in (".hydra", None):
        raise ConfigError(f"{key}={value}: must be .hydra, where resuming looks for the configuration")
    if path[:2] in (("hydra", "job_logging"), ("hydra", "hydra_logging")):
        if name in ("()", "factory", ".") or (name == "class" and not TRUSTED_LOGGING_CLASSES.fullmatch(str(value))):
            raise ConfigError(f"{key}={value}: not a logging class that a configuration may name")
        if isinstance(value, str) and re.match(r"(ext|cfg)://(?!sys\.std(out|err)$)", value):
            raise ConfigError(f"{key}={value}: must be ext://sys.stdout or ext://sys.stderr")


def check_combinations(cfg: DictConfig) -> None:
    """Refuse values that are fine alone and wrong together."""
    train_size = cfg.data.train_size or TRAIN_IMAGES - cfg.data.val_size
    if train_size + cfg.data.val_size > TRAIN_IMAGES:
        raise ConfigError(
            f"data.train_size={cfg.data.train_size} and data.val_size={cfg.data.val_size}: "
            f"together more than the {TRAIN_IMAGES} training images"
        )
    if "ReduceLROnPlateau" in cfg.scheduler._target_ and not (cfg.data.val_size and "val" in cfg.evaluate_each_epoch):
        raise ConfigError("scheduler=plateau follows the validation loss: needs data.val_size > 0 and val evaluated")
    if cfg.optimizer.get("nesterov") and not cfg.optimizer.get("momentum"):
        raise ConfigError("optimizer.nesterov=true: needs optimizer.momentum > 0")
    if "Muon" in cfg.optimizer._target_ and not cfg.model.hidden_sizes:
        raise ConfigError("optimizer=muon: needs a hidden layer, but model.hidden_sizes is empty")
    if cfg.model.batch_norm and train_size % cfg.data.batch_size == 1:
        raise ConfigError(
            f"data.batch_size={cfg.data.batch_size}: leaves a last batch of one image, which model.batch_norm=true "
            "cannot normalise"
        )


def unknown_key(key: str, known: Iterable[str]) -> str:
    """An error text that names the nearest known key."""
    nearest = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"{key}: no such key" + (f"; did you mean {nearest[0]}?" if nearest else "; --cfg job shows all keys")
