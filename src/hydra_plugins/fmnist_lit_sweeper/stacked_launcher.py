"""Jobs that differ only in numbers, as one batched model in this process; fmnist_lit.sweep.stacking says which."""

import functools
from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class StackedLauncher(Launcher):
    """Launches jobs in stacks.

    Args:
        max_members: of a stack; None for no limit.
    """

    def __init__(self, max_members: int | None = None) -> None:
        self.max_members = max_members

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has for a launcher."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; those that fit together take turns."""
        # Hydra imports this module for a plain run too
        from fmnist_lit.processes.turns import take_turns
        from fmnist_lit.stacked import take_steps
        from fmnist_lit.sweep.stacking import stacks

        setup_globals()
        jobs = range(len(job_overrides))
        numbers = [initial_job_idx + job for job in jobs]
        compose = functools.partial(self.compose, job_overrides, numbers)
        plan = stacks(map(compose, jobs), self.max_members)
        for line in plan.told(numbers) if len(jobs) > 1 else ():
            print(line)
        returned: dict[int, JobReturn] = {}
        for members in plan.stacks:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            runs = [functools.partial(self.run, compose, job) for job in members]
            results = take_turns(runs, take_steps) if len(runs) > 1 else [runs[0]()]
            returned |= dict(zip(members, results, strict=True))
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [returned[job] for job in jobs]

    def compose(self, overrides: Sequence[Sequence[str]], numbers: Sequence[int], job: int) -> DictConfig:
        """The configuration of a job, of all that are to be launched."""
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides[job]))
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = numbers[job]
        return cfg

    def run(self, compose: Callable[[int], DictConfig], job: int) -> JobReturn:
        """Run a job, as the basic launcher does; its configuration is made anew, so that not all are in memory."""
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=compose(job),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
