"""What a configuration from a stranger may name: classes, plugin settings, log handlers; never code."""

import re
from typing import Any

from fmnist_lit.config import ConfigError

# What _target_ may name. A configuration from a stranger must not be able to run code, so nothing here takes code,
# a command or a file to execute. A pattern names classes directly in a module: no further dot, a capital first.
TRUSTED_TARGETS = re.compile(
    r"""fmnist_lit\.(data\.FashionMNISTDataModule|model\.MLP|losses\.(OneHotLoss|LogSoftmaxNLLLoss)
        |optimizers\.MuonWithAdamW|schedulers\.(WarmupLinearLR|OneCycleLR)|run\.checkpoint\.RunCheckpoint
        |averaging\.WeightEMA|loggers\.(TensorBoard|CSV|Console)Logger|loggers\.progress_bar\.ProgressBar)
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
    r"fmnist_lit\.command_line\.console\.ConsoleHandler|logging\.((Stream|File|Null)Handler|Formatter)|colorlog\.ColoredFormatter"
)
LOG_FILES = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|\w[\w.-]*)\.log")
# Text that Hydra fills in itself; what any other interpolation gives may differ from one time to the next
FILLED_IN_BY_HYDRA = re.compile(r"\$\{hydra\.(runtime\.output_dir|sweep\.dir|job\.name)\}")
HARMLESS_VARIABLES = ("CUDA_VISIBLE_DEVICES", "FMNIST_DATA_DIR", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
LOGGING = (("job_logging",), ("hydra_logging",))


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


def require_trusted(path: tuple[str, ...], value: Any) -> None:
    """Refuse whatever would make Hydra or ``logging`` call something that is not on the list."""
    key, name = ".".join(path), path[-1]
    if name == "_target_":
        trusted = TRUSTED_HYDRA_TARGETS if path[0] == "hydra" else TRUSTED_TARGETS
        if not (isinstance(value, str) and trusted.fullmatch(MOVED.get(value, value))):
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
