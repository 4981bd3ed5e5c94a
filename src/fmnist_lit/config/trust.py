"""What a configuration from a stranger may name: classes, plugin settings, log handlers; never code.

The person at the keyboard may trust further packages by name; nothing in a file can.
"""

import argparse
import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fmnist_lit.config import ConfigError

# What _target_ may name. A configuration from a stranger must not be able to run code, so nothing here takes code,
# a command or a file to execute. A pattern names classes directly in a module: no further dot, a capital first.
MODELS = r"fmnist_lit\.model\.(MLP|CNN)"
TRUSTED_TARGETS = re.compile(
    rf"""{MODELS}
    |fmnist_lit\.(data\.FashionMNISTDataModule|data\.image_folder\.ImageFolder|losses\.(OneHotLoss|LogSoftmaxNLLLoss)
        |optimizers\.MuonWithAdamW|schedulers\.(Warmup(Linear|Polynomial)LR|OneCycleLR)|run\.checkpoint\.RunCheckpoint
        |averaging\.WeightEMA|dashboard\.(overview\.Overview|pictures\.Pictures|inside\.Inside|projector\.Projector)|debug\.(Memorise|Profile|FirstNonFinite)
        |loggers\.(TensorBoard|CSV|Console|Wandb|MLFlow)Logger|loggers\.progress_bar\.ProgressBar)
    |torchvision\.datasets\.K?MNIST
    |torch\.nn\.[A-Z]\w*Loss
    |torch\.optim\.[A-Z]\w*
    |torch\.optim\.lr_scheduler\.[A-Z]\w*
    |lightning\.pytorch\.(callbacks|loggers)\.[A-Z]\w*
    """,
    re.VERBOSE,
)
# Classes that have moved since 0.1, for configurations that people keep
MOVED = {
    "fmnist_lit.checkpoint.RunCheckpoint": "fmnist_lit.run.checkpoint.RunCheckpoint",
    "fmnist_lit.progress.ProgressBar": "fmnist_lit.loggers.progress_bar.ProgressBar",
}
TRUSTED_HYDRA_TARGETS = re.compile(
    r"""fmnist_lit\.sweep\.callback\.SummaryCallback
    |hydra_plugins\.fmnist_lit_sweeper\.(grid_sweeper\.GridSweeper|search_sweeper\.SearchSweeper|stacked_launcher\.StackedLauncher)
    |hydra\._internal\.core_plugins\.basic_(sweeper\.BasicSweeper|launcher\.BasicLauncher)
    |hydra_plugins\.hydra_joblib_launcher\.joblib_launcher\.JoblibLauncher
    |hydra_plugins\.hydra_submitit_launcher\.submitit_launcher\.(Local|Slurm)Launcher
    |hydra_plugins\.hydra_ray_launcher\.ray_launcher\.RayLauncher
    """,
    re.VERBOSE,
)
# Keys of launchers and sweepers. Left out: those that take shell commands, functions, options of srun or sbatch at
# will, or the address of a cluster, whose answers would be unpickled.
TRUSTED_PLUGIN_KEYS = re.compile(
    r"""_target_|params(\..+)?|max_batch_size|max_members|n_trials|n_jobs|seed|when(\..+)?|(sampler|pruner)(_options(\..+)?)?
    |backend|prefer|require|verbose|pre_dispatch|batch_size|timeout|temp_folder|max_nbytes|mmap_mode
    |submitit_folder|name|partition|account|qos|constraint|exclude|comment|timeout_min|signal_delay_s|max_num_timeout
    |array_parallelism|nodes|tasks_per_node|(cpus|gpus)_per_(task|node|gpu)|gres|mem_gb|mem_per_(cpu|gpu)
    |stderr_to_stdout|ray(\.(init|remote))?|ray\.init\.(num_cpus|num_gpus|object_store_memory|include_dashboard)
    |ray\.remote\.(num_cpus|num_gpus|memory|max_retries)
    """,
    re.VERBOSE,
)
TRUSTED_LOGGING_CLASSES = re.compile(
    r"fmnist_lit\.command_line\.console\.ConsoleHandler|logging\.((Stream|File|Null)Handler|Formatter)|colorlog\.ColoredFormatter"
)
LOG_FILES = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|\w[\w.-]*)\.log")
# Text that Hydra fills in itself; what any other interpolation gives may differ from one time to the next
FILLED_IN_BY_HYDRA = re.compile(r"\$\{hydra\.(runtime\.output_dir|sweep\.dir|job\.name)\}")
HARMLESS_VARIABLES = ("CUDA_VISIBLE_DEVICES", "FMNIST_DATA_DIR", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
LOGGING = (("job_logging",), ("hydra_logging",))
VARIABLE = "FMNIST_LIT_TRUST"  # the packages that the person trusts; the processes that a run starts inherit it


def trusted_packages() -> list[str]:
    """The packages of which configurations and checkpoints may name classes and functions."""
    return [name for part in os.environ.get(VARIABLE, "").split(",") if (name := part.strip())]


def is_of_trusted_package(name: str) -> bool:
    """Whether a dotted name is in a package that the person trusts."""
    return any(name.startswith(f"{package}.") for package in trusted_packages())


def trust(packages: Iterable[str]) -> None:
    """Trust packages for the rest of this process, and of those that it starts.

    They are looked for in the working folder as well, where ``python -m`` finds them and an installed command does not.

    Raises:
        ConfigError: if one of them, or of those in ``$FMNIST_LIT_TRUST``, cannot be found.
    """
    together = list(dict.fromkeys([*trusted_packages(), *packages]))
    if not together:
        return
    search_in(os.getcwd())
    for name in together:
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            raise ConfigError(f"--trust {name}: must be the name of a package, as in import {parts[0] or 'mypackage'}")
        if parts[0] not in sys.modules and importlib.util.find_spec(parts[0]) is None:
            raise ConfigError(f"--trust {name}: there is no package {parts[0]}, neither installed nor in this folder")
    os.environ[VARIABLE] = ",".join(together)


@contextlib.contextmanager
def trusting(packages: Iterable[str]) -> Iterator[None]:
    """As ``trust``, for the length of a block."""
    before = os.environ.get(VARIABLE)
    try:
        trust(packages)
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def search_in(folder: str) -> None:
    """Let modules be imported from a folder, after all others."""
    importlib.invalidate_caches()  # one may have been written a moment ago
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--trust``."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help=f"let configurations and checkpoints name classes and functions of PACKAGE; repeatable, also ${VARIABLE}",
    )


def split_trust(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages that a command line trusts, and its other words."""
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit", add_help=False, allow_abbrev=False)
    add_trust_option(parser)
    found, others = parser.parse_known_args(list(arguments))
    return found.trust, others


def trust_words() -> list[str]:
    """The words of a command line that trusts what this process does."""
    return [word for package in trusted_packages() for word in ("--trust", package)]


def require_written_out(node: Any, path: tuple[str, ...] = ()) -> None:
    """Refuse interpolations where they could name code: what is checked here is not what Hydra would see later."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            require_written_out(value, (*path, str(key)))
        return
    builds = path[:1] == ("hydra",) and path[1:2] in [("callbacks",), ("launcher",), ("sweeper",), *LOGGING]
    if (builds or "_target_" in path[-1:]) and "${" in FILLED_IN_BY_HYDRA.sub("", str(node)):
        raise ConfigError(f"{'.'.join(path)}={node}: must be written out, without an interpolation")
    if path[1:2] in LOGGING and path[-1] == "filename" and not LOG_FILES.fullmatch(str(node)):
        raise ConfigError(f"{'.'.join(path)}={node}: must be ${{hydra.runtime.output_dir}}/NAME.log")


def own_package(target: Any) -> str | None:
    """The package of a name where that may be somebody's own; None where it is Python's or one of ours."""
    package, dot, _ = str(target).partition(".")
    others = {*sys.stdlib_module_names, "torch", "torchvision", "lightning", "hydra", "omegaconf", "fmnist_lit"}
    return package if dot and package.isidentifier() and package not in others else None


def require_own(target: str) -> None:
    """Refuse a name that leads out of a trusted package, as ``mypackage.os.system`` does; it is imported to see.

    Raises:
        ConfigError: naming what it leads to.
    """
    if TRUSTED_TARGETS.fullmatch(MOVED.get(target, target)):
        return
    parts = target.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[: number + 1]))
        found = getattr(found, part)
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if not is_of_trusted_package(home) or not callable(found):
        raise ConfigError(f"{target}: leads to {home}, which is not a class or function of a package you trust")


def require_trusted(path: tuple[str, ...], value: Any) -> None:
    """Refuse whatever would make Hydra or ``logging`` call something that is not on the list."""
    key, name = ".".join(path), path[-1]
    if name == "_target_":
        trusted = TRUSTED_HYDRA_TARGETS if path[0] == "hydra" else TRUSTED_TARGETS
        known = isinstance(value, str) and trusted.fullmatch(MOVED.get(value, value))
        # Hydra makes its own parts itself, and would not see whether a name leads out of its package
        if not (known or (path[0] != "hydra" and isinstance(value, str) and is_of_trusted_package(value))):
            if path[0] != "hydra" and (package := own_package(value)):
                raise ConfigError(f"{key}={value}: is not trusted; if you trust {package}, add --trust {package}")
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
