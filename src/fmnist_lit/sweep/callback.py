"""Hydra's callback that keeps a sweep's summary up to date, called in the process that runs a job."""

import contextlib
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.sweep.summary import summarize


class SummaryCallback(Callback):
    """Rewrites the summary when a job starts and when it ends; the charts only at the end of the sweep."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the job as running."""
        self.update(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Show how the job ended."""
        self.update(config)

    def update(self, config: DictConfig) -> None:
        """Summarise the sweep that a job belongs to, if it belongs to one."""
        if config.hydra.mode == RunMode.MULTIRUN:
            sweep_dir = Path(config.hydra.sweep.dir)
            # jobs that end together summarise one after another, so the last summary has them all
            with contextlib.suppress(Timeout), FileLock(sweep_dir / ".summary.lock", timeout=30):
                summarize([sweep_dir], live=True, charts=False)
