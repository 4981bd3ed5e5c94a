"""Hydra's callback that keeps a sweep's summary up to date and says how far it is, in the process that runs a job."""

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.processes import workers
from fmnist_lit.sweep.plan import read_plan
from fmnist_lit.sweep.progress import Progress
from fmnist_lit.sweep.summary import summarize

log = logging.getLogger(__name__)

FEW = 50  # jobs, which are summed up in 30 ms
SHARE = 0.05  # of the time that summaries of more may take while jobs run; a thousand are half a second to sum up

known: dict[Path, tuple[Progress, float]] = {}  # of each sweep, how far it was and when it may be looked at again


class SummaryCallback(Callback):
    """Rewrites the summary when a job starts and when it ends; the charts only at the end of the sweep."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the job as running, and say which one it is."""
        if config.hydra.mode == RunMode.MULTIRUN:
            progress = update(Path(config.hydra.sweep.dir))
            if progress is not None:
                bar = sys.stdout is not None and sys.stdout.isatty() and not workers.beside_others()
                log.info("\n%s", progress.line(config.hydra.job.num, config.hydra.overrides.task, bar=bar))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Show how the job ended, if not the next one in this process will show that at once, or the sweep's end."""
        if config.hydra.mode == RunMode.MULTIRUN and workers.beside_others():
            update(Path(config.hydra.sweep.dir))


def update(sweep_dir: Path) -> Progress | None:
    """Summarise a sweep again, unless that would take more than the share of the time that it may.

    Returns:
        How far it is, or was lately; None if that cannot be told.
    """
    progress, due = known.get(sweep_dir, (None, 0.0))
    start = time.monotonic()
    if start < due:
        return progress
    # jobs that end together summarise one after another, so the last summary has them all
    with (
        contextlib.suppress(Timeout, OSError, ValueError, LookupError, TypeError),
        FileLock(sweep_dir / ".summary.lock", timeout=30),
    ):
        table = summarize([sweep_dir], live=True, charts=False).table
        begun = (sweep_dir / "multirun.yaml").stat().st_mtime
        progress = Progress.of(read_plan(sweep_dir), table, begun)
        end = time.monotonic()
        known[sweep_dir] = progress, end if len(table.jobs) <= FEW else end + (end - start) * (1 / SHARE - 1)
    return progress
