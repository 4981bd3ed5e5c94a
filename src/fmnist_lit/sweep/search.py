"""A search: which trials there are, sampled by optuna from what is known of the earlier ones, and what they came to.

A trial is a job. Each is drawn by a new sampler, seeded by the search's seed and the trial's number, from what the
study holds; so what is sampled does not depend on when, or how often, a search was killed.
"""

import hashlib
import io
import itertools
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.config.overrides import key_of, parse
from fmnist_lit.run.files import read_json
from fmnist_lit.run.status import is_pruned
from fmnist_lit.run.study import DIRECTIONS, PRUNERS, STUDY, open_study, require_optuna, study_errors
from fmnist_lit.sweep.job_folders import facts_of, filled_in, is_too_long, require_inside, subdir_of
from fmnist_lit.sweep.plan import (
    PlannedJob,
    is_for_the_whole,
    is_inside,
    read_plan,
    save_plan,
    settings_of,
    still_to_do,
)
from fmnist_lit.sweep.space import Parameter, SearchSpace, Value
from fmnist_lit.sweep.values import is_number

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

# By what samplers are called here: optuna's class, and what of it may be set, with what it is unless it is set
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpe": (
        "TPESampler",
        {"n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": False, "group": False, "constant_liar": True},
    ),
    "random": ("RandomSampler", {}),
    "qmc": ("QMCSampler", {"qmc_type": "sobol", "scramble": True}),
    "gp": ("GPSampler", {"n_startup_trials": 10, "deterministic_objective": False}),
    "cmaes": (
        "CmaEsSampler",
        {"n_startup_trials": 1, "sigma0": None, "popsize": None, "consider_pruned_trials": False},
    ),
}
FORESEEN = ("random", "qmc")  # their trials do not depend on what others came to
# What CMA-ES keeps is pickled, in a file that may be somebody else's; this is all that it may name
CMA_STATE = "cma:"
CMA_PARTS = {
    *(("cmaes._cma", "CMA"), ("numpy", "ndarray"), ("numpy", "dtype")),
    *(("numpy._core.multiarray", name) for name in ("_reconstruct", "scalar")),
}


def check_search(sweeper: DictConfig) -> None:
    """Refuse settings of ``hydra/sweeper=search`` that are none.

    Raises:
        ConfigError: naming the first, and what is allowed.
    """
    require_optuna()
    for key, least, null in (("n_trials", 1, False), ("seed", 0, False), ("n_jobs", 1, True)):
        value = sweeper[key]
        if not (type(value) is int and value >= least) and not (null and value is None):
            told = f"must be a whole number from {least}{', or null' if null else ''}"
            raise ConfigError(f"hydra.sweeper.{key}={value}: {told}")
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        name = sweeper[key]
        if name not in known:
            raise ConfigError(f"hydra.sweeper.{key}={name}: must be one of {', '.join(known)}")
        check_options(key, str(name), sweeper[f"{key}_options"] or {}, known[name][1])
    when = sweeper.when or []
    if isinstance(when, str) or not all(isinstance(line, str) for line in when):
        raise ConfigError(f"hydra.sweeper.when={when}: must be a list of lines, each in quotes")


def check_options(key: str, name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse options that a sampler, or a pruner, does not have, or that are of another kind than its own.

    Raises:
        ConfigError: naming the first.
    """
    for option, value in options.items():
        told = f"hydra.sweeper.{key}_options.{option}={value}"
        if option not in known:
            has = f"has only {', '.join(known)}" if known else "has no options"
            raise ConfigError(f"{told}: {key}={name} {has}")
        default = known[option]
        kinds = (int, float, type(None)) if default is None else (type(default),)
        if type(value) not in kinds:
            like = "a number" if default is None else f"of the kind of {default}, what it is by default"
            raise ConfigError(f"{told}: must be {like}")


def trials_at_a_time(hydra: DictConfig) -> int:
    """How many trials are sampled before any of them is known: ``n_jobs``, or what the launcher runs at a time."""
    sweeper, launcher = hydra.sweeper, hydra.launcher
    if sweeper.n_jobs is not None:
        return int(sweeper.n_jobs)
    if "BasicLauncher" in launcher._target_:
        return 1
    if sweeper.sampler in FORESEEN and sweeper.pruner == "none":
        return int(sweeper.n_trials)
    n_jobs = launcher.get("n_jobs") or launcher.get("max_members") or 0
    return int(n_jobs) if n_jobs > 0 else os.cpu_count() or 1


def folder_of_trial(hydra: DictConfig, number: int, lines: Sequence[str], keys: Sequence[str]) -> str:
    """The folder of a trial's job, as ``hydra.sweep.subdir`` says, relative to the sweep's.

    Args:
        hydra: the configuration of Hydra.
        number: of the trial.
        lines: its overrides.
        keys: in what trials may differ, which names it.

    Raises:
        ConfigError: if it cannot have one.
    """
    subdir, unnamed = subdir_of(hydra), hydra.job.config.override_dirname.exclude_keys
    named = [line for line in lines if key_of(line) in keys and key_of(line) not in unnamed]
    try:
        folder = filled_in(subdir, facts_of(hydra, number, named))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"hydra.sweep.subdir={subdir}: of a search it may have ${{hydra.job.num}} and "
            "${hydra.job.override_dirname} in it, and nothing else"
        ) from error
    require_inside(folder)
    return str(number) if is_too_long(folder) else folder


class Search:
    """The trials of a search, in its study and in ``sweep.json``.

    Args:
        sweep_dir: the sweep's folder, with a ``sweep.json``.
        cfg: the configuration of the sweep.

    Raises:
        ConfigError: if the study is of something else, or is locked or damaged.
    """

    def __init__(self, sweep_dir: Path, cfg: DictConfig) -> None:
        self.sweep_dir, self.hydra, self.sweeper = sweep_dir, cfg.hydra, cfg.hydra.sweeper
        self.plan = read_plan(sweep_dir)
        self.space = SearchSpace.of(parse(self.plan.space), self.sweeper.when or ())
        self.criterion = Criterion.of(cfg.select)
        self.quasi_random: Iterator[Mapping[str, Value]] | None = None
        self.listed = 0  # trials, as this command has them in sweep.json
        self.harmless: set[int] = set()  # trials whose state of CMA-ES may be unpickled
        with study_errors(sweep_dir):
            self.study, self.storage = open_study(sweep_dir, self.criterion.mode)
            claim_study(self.study, sweep_dir, self.space, self.criterion)
            if not self.trials:
                self.recover()
            self.list_jobs()

    @property
    def trials(self) -> "list[FrozenTrial]":
        """All there are, by number."""
        return self.study.get_trials(deepcopy=False)

    def recover(self) -> None:
        """Put the trials of ``sweep.json`` into a new study, if there are any: the old one has been moved away."""
        for job in self.plan.jobs:
            self.add(self.space.values_in(job.overrides), {})

    def list_jobs(self) -> None:
        """Write into ``sweep.json`` the trials that there are; a job that was listed keeps its folder."""
        jobs = list(self.plan.jobs)
        for trial in self.trials[self.listed :]:
            number, lines = trial.number, self.lines_of(trial)
            if number >= len(jobs) or not is_inside(jobs[number].folder):
                folder = folder_of_trial(self.hydra, number, lines, self.space.keys)
                jobs[number : number + 1] = [PlannedJob(folder, ())]
            jobs[number] = PlannedJob(jobs[number].folder, tuple(lines))
        self.listed = len(self.trials)
        asked = tuple(range(min(self.listed, self.plan.trials)))
        self.plan = replace(self.plan, jobs=tuple(jobs), asked=asked)
        save_plan(self.sweep_dir, self.plan)

    def lines_of(self, trial: "FrozenTrial") -> list[str]:
        """The overrides of a trial, from our own space: the study gives but numbers, and names of choices.

        Raises:
            LookupError, ValueError: if it is none of this space.
        """
        lines = self.space.draw(lambda parameter: parameter.checked(trial.params[parameter.name]))
        return [line for line in lines if not is_for_the_whole(key_of(line))]

    def batches(self) -> Iterator[list[tuple[int, list[str]]]]:
        """What is to be launched together, as numbers and overrides; what a batch came to decides about the next.

        Raises:
            ConfigError: if the study is locked or damaged.
        """
        size, launched = trials_at_a_time(self.hydra), set[int]()
        while True:
            with study_errors(self.sweep_dir):
                self.tell()
                waiting = self.waiting() - launched
                # a batch is whole before it starts, also where a kill came in between: what is sampled depends on it
                while len(self.trials) < self.plan.trials and (len(self.trials) % size or not waiting):
                    self.ask()
                    waiting.add(len(self.trials) - 1)
                self.list_jobs()
            batch = sorted(waiting)[:size]
            if not batch:
                return
            launched.update(batch)
            yield list(still_to_do(self.sweep_dir, replace(self.plan, asked=tuple(batch))))

    def waiting(self) -> set[int]:
        """The trials that are asked for and whose jobs have not ended."""
        return {trial.number for trial in self.trials[: self.plan.trials] if not trial.state.is_finished()}

    def ask(self) -> None:
        """Sample one more trial, and write it to the study in one go."""
        trials = self.trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a sampler is experimental, or that a choice has no order
            if self.sweeper.sampler == "qmc":
                self.quasi_random = self.quasi_random or self.sequence(start=len(trials))
                point, values = next(self.quasi_random), dict[str, Value]()
                self.space.draw(lambda parameter: values.setdefault(parameter.name, point[parameter.name]))
                state: dict[str, Any] = {}
            else:
                values, state = self.sample(trials)
            self.add(values, state)

    def sample(self, trials: "Sequence[FrozenTrial]") -> tuple[dict[str, Value], dict[str, Any]]:
        """The values of the next trial, and what the sampler wants to have kept with it."""
        import optuna

        aside = optuna.create_study(direction=DIRECTIONS[self.criterion.mode], sampler=self.make_sampler(len(trials)))
        for trial in trials if self.sweeper.sampler not in FORESEEN else ():
            self.require_harmless(trial)
            aside.add_trial(trial)
        asked, values = aside.ask(), dict[str, Value]()
        self.space.draw(lambda p: values.setdefault(p.name, p.rounded(suggested(asked, p))))
        kept = aside.get_trials(deepcopy=False)[-1].system_attrs
        return values, {key: value for key, value in kept.items() if key.startswith(CMA_STATE)}

    def sequence(self, start: int) -> "Iterator[Mapping[str, Value]]":
        """The points of a quasi-random sequence from a number on, each with a value for every parameter."""
        import optuna

        aside, sampler = optuna.create_study(), self.make_sampler(None)
        space = {parameter.name: parameter.distribution() for parameter in self.space.all_parameters}
        nobody = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        for number in itertools.count():
            point = sampler.sample_relative(aside, nobody, space)
            if number >= start:
                yield {
                    parameter.name: parameter.rounded(point[parameter.name]) for parameter in self.space.all_parameters
                }

    def make_sampler(self, number: int | None) -> "BaseSampler":
        """Optuna's sampler for one trial, or, without its number, for all of them."""
        import optuna

        name = self.sweeper.sampler
        kind, defaults = SAMPLERS[name]
        text = f"{self.sweeper.seed}" if number is None else f"{self.sweeper.seed} {number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        options = {**defaults, **(self.sweeper.sampler_options or {})}
        quiet = {} if name in ("tpe", "random") else {"warn_independent_sampling": False}
        sampler: BaseSampler = getattr(optuna.samplers, kind)(**options, **quiet, seed=seed)
        return sampler

    def add(self, values: Mapping[str, Value], state: Mapping[str, Any]) -> None:
        """Write a trial that is to run to the study, in one line of its journal."""
        import optuna

        distributions = {p.name: p.distribution() for p in self.space.all_parameters if p.name in values}
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=dict(values),
            distributions=distributions,
            system_attrs=dict(state),
        )
        self.study.add_trial(trial)

    def tell(self) -> None:
        """Write to the study what jobs came to that have ended; one that failed stays, to be tried again."""
        import optuna

        states = optuna.trial.TrialState
        for trial in self.trials[: len(self.plan.jobs)]:
            if trial.state.is_finished():
                continue
            results = read_json(self.sweep_dir / self.plan.jobs[trial.number].folder / "results.json")
            value = (results.get("select") or {}).get("value")
            if is_pruned(results):
                self.study.tell(trial.number, state=states.PRUNED)
            elif results.get("status") == "diverged":
                self.storage.set_trial_user_attr(trial._trial_id, "diverged_step", results.get("diverged_step"))
                self.study.tell(trial.number, self.criterion.worst)
            elif results.get("status") == "completed" and is_number(value):
                self.study.tell(trial.number, value)
            elif results.get("status") == "completed":  # with nothing to compare it by
                self.study.tell(trial.number, state=states.FAIL)

    def require_harmless(self, trial: "FrozenTrial") -> None:
        """Refuse what CMA-ES would unpickle, if that names anything but its own parts.

        Raises:
            ValueError: naming the trial.
        """
        if trial.number in self.harmless:
            return
        chunks = {key: value for key, value in trial.system_attrs.items() if key.startswith(f"{CMA_STATE}optimizer")}
        if chunks:
            ordered = sorted(chunks, key=lambda key: int(key.rpartition(":")[2]))
            content = bytes.fromhex("".join(chunks[key] for key in ordered))
            try:
                PartsOfCMA(io.BytesIO(content)).load()
            except Exception as error:  # pickle raises nearly anything on damaged content
                raise ValueError(f"trial {trial.number} holds no state of CMA-ES") from error
        self.harmless.add(trial.number)


class PartsOfCMA(pickle.Unpickler):
    """Makes nothing but what a pickled CMA-ES consists of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CMA_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of it")
        return super().find_class(module, name)


def suggested(trial: "Trial", parameter: Parameter) -> Value:
    """What a sampler says."""
    if parameter.choices:
        return trial.suggest_categorical(parameter.name, parameter.choices)
    if isinstance(parameter.low, int):
        low, high, step = parameter.low, int(parameter.high), int(parameter.step or 1)
        return trial.suggest_int(parameter.name, low, high, step=step, log=parameter.is_log)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, step=parameter.step, log=parameter.is_log)


def claim_study(study: "Study", sweep_dir: Path, space: SearchSpace, criterion: Criterion) -> None:
    """Write into a new study what it is of, or refuse one that is of something else.

    Raises:
        ConfigError: naming what differs.
    """
    settings = [line for line in space.settings if not is_for_the_whole(key_of(line))]
    about = {
        "space": space.described(),
        "settings": settings,
        "select": [f"select.{k}={v}" for k, v in asdict(criterion).items()],
    }
    found = study.user_attrs
    if not set(about) <= set(found) and not study.get_trials(deepcopy=False):
        for key, value in about.items():
            study.set_user_attr(key, value)
        return
    now = settings_of(settings)
    before = settings_of(found["settings"])
    for old, new in (
        (set(found["space"]), set(about["space"])),
        ({f"{name}={value}" for _, name, value in before}, {f"{name}={value}" for _, name, value in now}),
        (set(found["select"]), set(about["select"])),
    ):
        if old != new:
            has, wanted = min(old - new, default="nothing for that"), min(new - old, default="nothing for that")
            raise ConfigError(f"hydra.sweep.dir={sweep_dir}: its study has {has}, not {wanted}; name another folder")


def require_same_study(sweep_dir: Path, space: SearchSpace, criterion: Criterion) -> None:
    """Refuse a folder whose study, if it has one, is of another search, or cannot be read.

    Raises:
        ConfigError: naming what differs, or what is wrong with the file.
    """
    if (sweep_dir / STUDY).exists():
        with study_errors(sweep_dir):
            study, _ = open_study(sweep_dir, criterion.mode)
            claim_study(study, sweep_dir, space, criterion)
