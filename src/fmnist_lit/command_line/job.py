"""One Hydra job: a run whose status is on disk whatever happens to it."""

import contextlib
import functools
import gc
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.command_line.folders import FOLDERS, require_room
from fmnist_lit.command_line.messages import already_written
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import TRACKERS, check_configuration
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.config.rules import title_of
from fmnist_lit.config.trust import search_in, trusted_packages
from fmnist_lit.processes import ranks, workers
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.processes.streams import guard_streams
from fmnist_lit.run.files import read_json, remove_orphans, write_json
from fmnist_lit.run.names import (  # with the resolvers that name folders, in a worker too
    config_words,
    relative,
    shell_command,
)
from fmnist_lit.run.results import selected_by
from fmnist_lit.run.status import PRUNED, DivergedError, PrunedError, is_pruned

log = logging.getLogger(__name__)

TRAIN = "fmnist_lit.train.train"  # by name: importing it takes seconds
FIGURES = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_accuracy", "train_loss", "best_epoch")


def run_job(cfg: DictConfig) -> float:
    """Train as ``cfg`` says and leave ``results.json`` with the status.

    Returns:
        The figure that selects, for sweepers that optimise one; if there is none, NaN, in a sweep the worst.

    Raises:
        SystemExit: with 128 + the signal's number, if a signal interrupted the run and not only one of several that
            run in processes of their own, or with 1 if it did not complete and ``sweep.fail_fast`` is set; that ends a
            sweep too. With 2, outside a sweep, if it may not be resumed so, or another process writes to its folder.
    """
    place = ranks.outside()
    if place is not None and place.rank:
        return follow(cfg, place.rank)
    if workers.in_worker():  # whose streams nobody has seen to yet
        guard_streams()
    if trusted_packages():
        search_in(HydraConfig.get().runtime.cwd)  # where the command was given
    run_dir = Path(cfg.run_dir)
    earlier = read_json(run_dir / "results.json")
    refused: ConfigError | None = None
    results: dict[str, Any] = {"status": "running", "stopped_by": None, **dict.fromkeys(FIGURES), "seed": cfg.seed}
    if cfg.get("debug"):  # however it ends
        results["partial"] = f"debug={cfg.debug}"
    logging.raiseExceptions = "HYDRA_FULL_ERROR" in os.environ  # a log that cannot be written ends no run
    criterion = Criterion.of(cfg.get("select"))
    results |= {"select": selected_by(criterion, {}), **labels(cfg)}
    results["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with stop_request.listening(), contextlib.ExitStack() as work:
        try:
            work.enter_context(workers.working(run_dir))
        except Timeout:
            taken = ConfigError(already_written("run_dir", run_dir))
            log.error("error: %s", taken)
            if in_sweep():
                return criterion.worst
            raise SystemExit(2) from taken
        try:
            with noting_the_end(cfg, results):
                run_dir.mkdir(parents=True, exist_ok=True)
                require_room("run_dir", run_dir)
                for folder in (run_dir, *(run_dir / name for name in FOLDERS)):
                    remove_orphans(folder)
                write_json(run_dir / "results.json", results)
                check_configuration(cfg)  # again: what could not be resolved before there was a run folder is known now
                results |= {"status": "completed", **training(cfg)(cfg)}
        except InterruptedRunError as stop:
            results |= {"status": "interrupted", "signal": str(stop), "stopped_by": str(stop)}
            log.error("Interrupted by %s. %s", stop, resume_hint(run_dir))
        except PrunedError as pruned:
            results |= {"status": "interrupted", "stopped_by": f"{PRUNED}{pruned}"}
            log.info("Pruned: %s. %s", pruned, resume_hint(run_dir))
        except ConfigError as error:  # of a run to resume: what is known of that stays
            results = earlier or results | {"status": "failed", "error": str(error)}
            log.error("error: %s", error)
            refused = error if earlier else None
        with stop_request.deferring():
            try:
                write_json(run_dir / "results.json", results)
            except OSError as error:
                log.error("Failed: %s cannot be written: %s", run_dir / "results.json", error)
            if not refused:
                end_trackers(cfg, results)
    job_alone = workers.in_worker() and workers.sweep_is_led()
    if stop_request.signum is not None and not job_alone:
        raise SystemExit(128 + stop_request.signum)
    if refused is not None and not in_sweep():
        raise SystemExit(2) from refused
    if results["status"] == "completed":
        log.info("%s", summary(run_dir, results))
    elif cfg.sweep.fail_fast and not is_pruned(results):
        raise SystemExit(1)
    none = criterion.worst if in_sweep() else math.nan  # a sweeper that optimises needs a number
    value = (results.get("select") or {}).get("value")
    return none if value is None else float(value)


def labels(cfg: DictConfig) -> dict[str, Any]:
    """What a person calls a run."""
    note = cfg.get("note")
    return {"tags": [str(tag) for tag in cfg.get("tags", ())], "note": None if note is None else str(note)}


def training(cfg: DictConfig) -> Callable[[DictConfig], dict[str, Any]]:
    """What trains: a function of the configuration to the figures for ``results.json``.

    It is imported only now, and not at all here where processes of their own will train.
    """
    ranks.require_world_size(cfg)
    if ranks.outside() is None and ranks.num_processes(cfg) > 1:
        return functools.partial(ranks.train_on_ranks, TRAIN, ranks.num_processes(cfg))
    gc.disable()  # what an import makes stays, and looking through it for garbage takes a fifth of the time
    try:
        return ranks.find_function(TRAIN)
    finally:
        gc.enable()


def end_trackers(cfg: DictConfig, results: dict[str, Any]) -> None:
    """Tell the trackers of a run, if it has any, how it ended; only then are they imported."""
    nodes = [node for node in cfg.logger.values() if isinstance(node, DictConfig) and node.get("_target_") in TRACKERS]
    if nodes:
        from fmnist_lit.build import build
        from fmnist_lit.loggers.tracker import end_tracker

        for node in nodes:
            try:
                end_tracker(build(node), results)
            except Exception as error:  # the configuration that failed may be the tracker's
                log.warning("WARNING: %s: %s", node._target_, reason_in_a_line(error))


@contextlib.contextmanager
def noting_the_end(cfg: DictConfig, results: dict[str, Any]) -> Iterator[None]:
    """Put into ``results`` how a run ended that did not complete, in the terms of ``results.json``.

    Raises:
        ConfigError, InterruptedRunError, PrunedError: which are for the caller.
    """
    try:
        yield
    except (ConfigError, PrunedError):
        raise
    except DivergedError as error:
        log.error("Diverged: %s. A lower optimizer.lr than %s usually helps.", error, cfg.optimizer.get("lr"))
        results |= {"status": "diverged", "diverged_step": error.step, "diverged_in": error.what}
    except (Exception, SystemExit) as error:  # what exits from within a job ends that job, not its sweep
        message = reason_in_a_line(error)
        log.exception("Failed: %s", message)  # with the traceback in train.log
        results |= {"status": "failed", "error": message}


def reason_in_a_line(error: BaseException) -> str:
    """What went wrong; of a part that Hydra could not build, why it could not."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).split("\n")
    return f"{type(error).__name__}: {next(filter(None, map(str.strip, lines)), '')}".removesuffix(": ")


def follow(cfg: DictConfig, rank: int) -> float:
    """Take part in a run that another process, rank 0, writes and tells of; NaN.

    Raises:
        SystemExit: as ``run_job``, and with 1 if this rank failed, unless in a sweep.
    """
    logging.disable()
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {}
    with (
        stop_request.listening(),
        contextlib.suppress(InterruptedRunError, ConfigError, PrunedError),
        noting_the_end(cfg, results),
    ):
        check_configuration(cfg)
        results |= {"status": "completed", **training(cfg)(cfg)}
    if "error" in results:
        print(f"rank {rank}: {results['error']}", file=sys.stderr)
    if stop_request.signum is not None:
        raise SystemExit(128 + stop_request.signum)
    if results.get("status") != "completed" and (cfg.sweep.fail_fast or not in_sweep()):
        raise SystemExit(1)
    return math.nan


def resume_hint(run_dir: Path) -> str:
    """What to type after an interruption."""
    if (run_dir / "checkpoints" / "last.ckpt").exists():
        words = ["python", "-m", "fmnist_lit", *config_words(), f"ckpt_path={relative(run_dir)}"]
        return f"Go on with: {shell_command(words)}"
    return "No step was taken."


def in_sweep() -> bool:
    """Whether this is one job of several."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def summary(run_dir: Path, results: dict[str, Any]) -> str:
    """What a person wants to know at the end of a run."""
    data = title_of(results["dataset"])
    chosen = ""
    if results["best_epoch"] is not None:
        criterion = Criterion.of(results.get("select"))
        best = "best on validation" if criterion.is_default else criterion.superlative
        chosen = f", weights of epoch {results['best_epoch']} ({best})"
    elif results["checkpoint"] == "checkpoints/final.ckpt":
        chosen = ", weights that training ended with (checkpoints/final.ckpt), such as an average"
    part = f" (PARTIAL: {results['partial']})" if results["partial"] else ""
    shown = relative(run_dir)
    curves = shown if shown.is_absolute() else Path(*shown.parts[:1])
    lines = [f"{data}{chosen}"]
    if results["test_accuracy"] is None:
        lines.append(f"  no test image was evaluated{part}")
    else:
        accuracy, loss = results["test_accuracy"], results["test_loss"]
        lines.append(f"  test accuracy {100 * accuracy:.1f} %, average loss {loss:.3f}{part}")
    if "test_accuracy_flip_average" in results:
        accuracy, loss = results["test_accuracy_flip_average"], results["test_loss_flip_average"]
        lines.append(f"  averaged over flips {100 * accuracy:.1f} %, average loss {loss:.3f}{part}")
    if results["stopped_by"] not in ("max_epochs", None):
        lines.append(f"  stopped by    {results['stopped_by']} after epoch {results['epochs']}")
    lines += [f"  run folder    {shown}", f"  curves        {shell_command(['tensorboard', '--logdir', str(curves)])}"]
    return "\n".join(lines)
