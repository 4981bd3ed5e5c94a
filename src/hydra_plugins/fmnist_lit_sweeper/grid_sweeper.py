"""A grid of all combinations, as sweep.json plans it, without the jobs that an earlier command has finished."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

Batch = Sequence[tuple[int, list[str]]]  # jobs, as their numbers in the plan and their overrides


class JobNumbers(int):
    """The number of a batch's first job, to which launchers add a job's place in the batch to get its number.

    That would renumber the jobs of a sweep that is continued; the sum here is the number in the plan.
    """

    def __new__(cls, numbers: Sequence[int]) -> "JobNumbers":
        self = super().__new__(cls, numbers[0])
        self.numbers = numbers
        return self

    numbers: Sequence[int]

    def __add__(self, place: int) -> int:
        return self.numbers[place]


class GridSweeper(BasicSweeper):
    """Launches the jobs of ``sweep.json`` that are missing or were interrupted, not those that have finished."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, which then composes jobs with a memory."""
        from fmnist_lit.sweep.job_loader import JobLoader

        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        hydra_context.config_loader = JobLoader(hydra_context.config_loader)  # type: ignore[assignment]

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run them; ``arguments`` are those that the plan was made from."""
        # Hydra imports this module for a plain run too, which needs nothing of fmnist_lit.sweep
        from fmnist_lit.config.criterion import Criterion
        from fmnist_lit.sweep.halving import rounds
        from fmnist_lit.sweep.plan import read_plan

        sweep_dir = self.begin()
        assert self.config is not None
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        returned: list[Sequence[JobReturn]] = []
        for until_epoch, todo in rounds(sweep_dir, read_plan(sweep_dir), Criterion.of(self.config.select)):
            limit = [f"sweep.until_epoch={until_epoch}"] if until_epoch else []
            returned += self.launch([*given, *limit], batches(todo, self.max_batch_size))
        return returned

    def begin(self) -> Path:
        """Say in the sweep's folder that it has begun, and with which configuration; returns the folder."""
        assert self.config is not None  # Hydra has called setup()
        sweep_dir = Path(self.config.hydra.sweep.dir)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        return sweep_dir

    def launch(self, given: Iterable[str], batches: Iterable[Batch]) -> list[Sequence[JobReturn]]:
        """Launch batches of jobs, each when the one before has ended.

        Args:
            given: overrides of the sweep; jobs get those that are for it as a whole, which no plan of a job holds.
            batches: the jobs as numbers and overrides.
        """
        from fmnist_lit.config.overrides import key_of

        assert self.launcher is not None
        shared = [line for line in given if key_of(line).startswith("sweep.")]
        returned: list[Sequence[JobReturn]] = []
        for batch in batches:
            overrides = [[*shared, *job] for _, job in batch]
            results = self.launcher.launch(overrides, initial_job_idx=JobNumbers([number for number, _ in batch]))
            for result in results:
                _ = result.return_value  # raises what a job raised
            returned.append(results)
        return returned


def batches(jobs: Batch, size: int | None) -> list[Batch]:
    """Jobs in batches of a size, all in one by default; no empty batch, which a launcher may refuse."""
    return [jobs[start : start + (size or len(jobs))] for start in range(0, len(jobs), size or max(1, len(jobs)))]
