"""What a command line does for a sweep that it does not do for a run: plan, lead, and sum up."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from fmnist_lit.command_line.messages import already_led
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import key_of
from fmnist_lit.processes import workers
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.run.files import remove_orphans
from fmnist_lit.run.names import as_typed
from fmnist_lit.run.status import FINISHED, read_status
from fmnist_lit.sweep import plan
from fmnist_lit.sweep.summary import summarize

SUMMARY = "++hydra.callbacks.summary._target_=fmnist_lit.sweep.callback.SummaryCallback"
PLUGIN_SETTINGS = {
    "JoblibLauncher": "hydra.launcher.pre_dispatch=n_jobs",  # no job waits in a process that is about to stop
    "RayLauncher": "hydra.launcher.ray.remote.max_retries=0",  # what was killed goes on when the sweep is continued
    "OptunaSweeper": "hydra.sweeper.direction=maximize",  # the validation accuracy
}


def plan_sweep(folder: Path, cfg: DictConfig, swept: Sequence[Override], given: Sequence[Override]) -> list[str]:
    """Write ``sweep.json``.

    Args:
        folder: the sweep's.
        cfg: the configuration of one of its jobs, with the ``hydra`` node.
        swept: the command line with what a study adds.
        given: the command line alone.

    Returns:
        The overrides that Hydra needs beside those of the command line.

    Raises:
        ConfigError: if another sweep is in the folder, or a job runs in it.
    """
    is_grid = "GridSweeper" in cfg.hydra.sweeper._target_
    if workers.jobs_alive(folder):
        raise ConfigError(already_led(folder))
    for place in (folder, folder / "plots"):
        remove_orphans(place)
    overrides = [SUMMARY]
    if not is_grid:
        if any(folder.glob("*/results.json")):
            raise ConfigError(
                f"hydra.sweep.dir={folder}: holds a sweep already, and only a grid can go on; name another"
            )
        # two samples may be alike
        overrides.append("hydra.sweep.subdir='${hydra.job.num}_${job_name:${hydra.job.override_dirname}}'")
    overrides += [
        f"++{setting}"
        for plugin, setting in PLUGIN_SETTINGS.items()
        if plugin in (cfg.hydra.launcher._target_ + cfg.hydra.sweeper._target_)
        and key_of(setting) not in {override.key_or_group for override in given}
    ]
    varied = plan.varied_keys(swept, folder)
    fixed = [override.key_or_group for override in swept if override.key_or_group not in varied]
    overrides.append(f"hydra.job.config.override_dirname.exclude_keys={[*fixed, 'ckpt_path']}")
    jobs = plan.all_jobs(swept, varied) if is_grid else []
    plan.write_plan(folder, shlex.join(["python", "-m", "fmnist_lit", *sys.argv[1:]]), varied, jobs)
    return overrides


@contextlib.contextmanager
def leading_sweep(folder: Path, launcher: DictConfig) -> Iterator[None]:
    """Lead the jobs of a sweep, and write and show its summary however it ends.

    Raises:
        SystemExit: with 128 + the number of a signal that came between two jobs.
    """
    by_signal = False
    with workers.leading(folder, launcher):
        try:
            yield
        except SystemExit as end:
            by_signal = isinstance(end.code, int) and end.code >= 128
            raise
        except (InterruptedRunError, KeyboardInterrupt):
            by_signal = True
            signum = signal.Signals(stop_request.signum or signal.SIGINT)
            print(f"Interrupted by {signum.name}.", file=sys.stderr)
            raise SystemExit(128 + signum) from None
        finally:
            workers.wait_for_submitted_jobs(folder)
            conclude(folder, charts=not by_signal)  # a signal does not wait for them


def conclude(sweep_dir: Path, charts: bool) -> None:
    """Write a sweep's summary however it ended, and show it."""
    try:
        summary = summarize([sweep_dir], charts=charts)
    except OSError as error:  # a full disk
        print(f"error: {sweep_dir}: the summary cannot be written: {error}", file=sys.stderr)
        return
    print(f"\n{summary.text}\n\nsummary.html, summary.md, summary.csv and plots are in {sweep_dir}")
    if any(read_status(sweep_dir / job.folder) not in FINISHED for job in plan.read_plan(sweep_dir).jobs):
        here = as_typed([f"hydra.sweep.dir={sweep_dir}"])
        print(f"To go on with what is missing, give the same command with {here}")
