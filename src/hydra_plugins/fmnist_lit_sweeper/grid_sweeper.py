"""Hydra's grid of all combinations, without the jobs that an earlier command has finished."""

from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


@dataclass
class GridSweeperConf:
    """The keys of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.fmnist_lit_sweeper.grid_sweeper.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="fmnist_lit")


class GridSweeper(BasicSweeper):
    """Launches the jobs that are missing or were interrupted in the sweep folder, not those that have finished."""

    # Hydra's is static but is called on the instance; this one needs the sweep's folder from the configuration.
    def split_arguments(  # type: ignore[override]  # see above
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        # Hydra imports this module for a plain run too, which needs nothing of fmnist_lit.sweep
        from fmnist_lit.config.overrides import key_of
        from fmnist_lit.sweep.plan import still_to_do

        assert self.config is not None  # Hydra has called setup()
        (jobs,) = super().split_arguments(overrides, None)
        fixed = set(self.config.hydra.job.config.override_dirname.exclude_keys)
        varied = {key_of(line) for job in jobs for line in job} - fixed
        todo = list(still_to_do(Path(self.config.hydra.sweep.dir), jobs, varied))
        # no empty batch: a launcher may refuse one
        return list(self.split_overrides_to_chunks(todo, max_batch_size)) if todo else []
