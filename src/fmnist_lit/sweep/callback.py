"""Hydra's callback that keeps a sweep's summary up to date, in whatever process a job runs."""

import contextlib
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.sweep.summary import summarize


class SummaryCallback(Callback):
    """Rewrites the summary when a job starts and when it ends; the pictures only at the end of the sweep."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the job as running."""
        self.update(config)

    def on_job_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show how the job ended."""
        self.update(config)

    def update(self, config: DictConfig) -> None:
        """Summarise the sweep that a job belongs to, if it does."""
        if config.hydra.mode == RunMode.MULTIRUN:
            sweep_dir = Path(config.hydra.sweep.dir)
            with contextlib.suppress(Timeout), FileLock(sweep_dir / ".summary.lock", timeout=30):  # the latest is last
                summarize([sweep_dir], live=True, pictures=False)
