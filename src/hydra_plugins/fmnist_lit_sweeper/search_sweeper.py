"""Jobs that optuna samples one batch after the other, by what the earlier ones came to; fmnist_lit.sweep.search."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.fmnist_lit_sweeper.grid_sweeper import JobNumbers


class SearchSweeper(Sweeper):
    """Launches the jobs of a search, a batch at a time."""

    def __init__(self, **settings: Any) -> None:
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, which then composes jobs with a memory."""
        from fmnist_lit.sweep.job_loader import JobLoader

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        hydra_context.config_loader = JobLoader(hydra_context.config_loader)  # type: ignore[assignment]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run them; ``sweep.json`` has been written from ``arguments``."""
        # Hydra imports this module for a plain run too, which needs nothing of fmnist_lit.sweep
        from fmnist_lit.config import ConfigError
        from fmnist_lit.config.overrides import key_of
        from fmnist_lit.sweep.search import Search

        assert self.config is not None  # Hydra has called setup()
        assert self.launcher is not None
        sweep_dir = Path(self.config.hydra.sweep.dir)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        returned: list[Sequence[JobReturn]] = []
        try:
            search = Search(sweep_dir, self.config)
            shared = [line for line in search.space.settings if key_of(line).startswith("sweep.")]
            for batch in search.batches():
                overrides = [[*shared, *job] for _, job in batch]
                self.validate_batch_is_legal(overrides)
                results = self.launcher.launch(overrides, initial_job_idx=JobNumbers([number for number, _ in batch]))
                for result in results:
                    _ = result.return_value  # raises what a job raised
                returned.append(results)
        except ConfigError as error:  # Hydra would show where it was raised
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        return returned
