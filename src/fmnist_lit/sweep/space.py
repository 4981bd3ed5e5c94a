"""What a search samples: the parameters on a command line, and those that hold under a condition only."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import as_given, key_of, parse, values_of
from fmnist_lit.sweep.plan import is_for_the_whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = float | int | str
DIGITS = 5  # of a sampled number, of its value or of its range, whichever is finer: names of folders stay readable


@dataclass(frozen=True)
class Parameter:
    """A key that is sampled.

    Attributes:
        name: what the study calls it: its key, with the condition under which it is sampled.
        element: its key as on the command line, with what adds or places it.
        choices: the values to choose from, as written; else it is a number from ``low`` to ``high``, both included.
        step: of a number that takes only some values; 1 for whole numbers, None for any.
        is_log: whether its logarithm is what is sampled evenly.
    """

    name: str
    element: str
    choices: tuple[str, ...] = ()
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    is_log: bool = False

    @classmethod
    def of(cls, override: Override, condition: str = "") -> "Parameter":
        """As an override with several values, a range or an interval says.

        Raises:
            ConfigError: if nothing can be sampled from it.
        """
        line, element, value = as_given(override), override.get_key_element(), override.value()
        name = f"{override.key_or_group} if {condition}" if condition else override.key_or_group
        is_log = isinstance(value, Sweep) and "log" in value.tags
        if isinstance(value, Sweep) and (unknown := sorted(value.tags - {"log"})):
            raise ConfigError(f"{line}: tag {unknown[0]} is not known; there is only log, of intervals")
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            if low is None or high is None or not low < high or not math.isfinite(high - low):
                raise ConfigError(f"{line}: must be from a lower to a higher number")
            if is_log and low <= 0:
                raise ConfigError(f"{line}: has no logarithm at {low}; must begin above 0")
            return cls(name, element, low=low, high=high, step=1 if isinstance(low, int) else None, is_log=is_log)
        choices = tuple(line.partition("=")[2] for line in values_of(override))
        if is_log:
            raise ConfigError(f"{line}: log is for intervals, as in tag(log,int(interval(16,1024)))")
        if isinstance(value, RangeSweep) and len(choices) > 1 and not value.shuffle and (value.step or 0) > 0:
            low, step = value.start, value.step
            assert low is not None
            return cls(name, element, low=low, high=round(low + (len(choices) - 1) * step, 12), step=step)
        return cls(name, element, choices)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The choices; of a number, the lowest and the highest."""
        return self.choices or (self.low, self.high)

    def distribution(self) -> "BaseDistribution":
        """The same as optuna has it."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if isinstance(self.step, int) and isinstance(self.low, int):
            return distributions.IntDistribution(self.low, int(self.high), log=self.is_log, step=self.step)
        return distributions.FloatDistribution(self.low, self.high, log=self.is_log, step=self.step)

    def rounded(self, value: Value) -> Value:
        """A sampled value with as many digits as it takes to tell it from others."""
        if self.choices or isinstance(value, str | int):
            return value
        scale = min(abs(value) or math.inf, self.high - self.low)
        decimals = DIGITS - 1 - math.floor(math.log10(scale))
        return min(max(round(value, decimals), self.low), self.high)

    def line(self, value: Value) -> str:
        """The override that sets it."""
        return f"{self.element}={value}"

    def value_in(self, lines: Mapping[str, str]) -> Value:
        """What it was set to, by overrides that ``line`` made, by key.

        Raises:
            LookupError, ValueError: if they do not, or set what cannot be sampled.
        """
        text = lines[key_of(self.element)].partition("=")[2]
        return self.checked(text if self.choices else int(text) if isinstance(self.low, int) else float(text))

    def checked(self, value: Any) -> Value:
        """A value that can have been sampled.

        Raises:
            ValueError: if it cannot.
        """
        if self.choices and value in self.choices:
            return str(value)
        if not self.choices and type(value) in (int, float) and self.low <= value <= self.high:
            return value  # type: ignore[no-any-return]
        raise ValueError(f"{self.name}={value!r} cannot have been sampled")


@dataclass(frozen=True)
class Clause:
    """What holds under a condition: that an earlier parameter, or a setting, has one of these values."""

    key: str
    values: tuple[str, ...]
    settings: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, text: str) -> "Clause":
        """From a line of ``hydra.sweeper.when``: the condition, then what holds under it, as on a command line.

        Raises:
            ConfigError: if it is not like that.
        """
        try:
            condition, *words = shlex.split(text)
        except ValueError:
            condition, words = "", []
        if not words:
            raise ConfigError(
                f"hydra.sweeper.when={text!r}: must be a condition and what holds under it, "
                "as in 'optimizer=adam optimizer.lr=tag(log,interval(1e-4,1e-2))'"
            )
        (on,), overrides = parse([condition]), parse(words)
        for override in (on, *overrides):
            if is_for_the_whole(override.key_or_group):
                raise ConfigError(f"hydra.sweeper.when: {override.key_or_group} is for the whole sweep")
        values = tuple(line.partition("=")[2] for line in values_of(on))
        sampled = [override for override in overrides if override.is_sweep_override()]
        fixed = tuple(as_given(override) for override in overrides if not override.is_sweep_override())
        parameters = tuple(Parameter.of(override, condition) for override in sampled)
        return cls(on.key_or_group, values, fixed, parameters)

    @property
    def keys(self) -> tuple[str, ...]:
        """What it sets."""
        return tuple(map(key_of, (*self.settings, *(parameter.element for parameter in self.parameters))))

    def holds(self, lines: Mapping[str, str]) -> bool:
        """Whether it does where these overrides, by key, are set."""
        return self.key in lines and lines[self.key].partition("=")[2] in self.values


@dataclass(frozen=True)
class SearchSpace:
    """All that a trial may be.

    Attributes:
        settings: the overrides that every trial has.
        parameters: what is sampled, unless a clause that holds says otherwise.
        clauses: what holds under conditions.
    """

    settings: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    clauses: tuple[Clause, ...]

    @classmethod
    def of(cls, overrides: Sequence[Override], when: Sequence[str]) -> "SearchSpace":
        """From a command line with what a study adds, and ``hydra.sweeper.when``.

        Raises:
            ConfigError: naming what nothing can be sampled from.
        """
        sampled = [override for override in overrides if override.is_sweep_override()]
        fixed = tuple(as_given(override) for override in overrides if not override.is_sweep_override())
        space = cls(fixed, tuple(map(Parameter.of, sampled)), tuple(map(Clause.of, when)))
        names = [parameter.name for parameter in space.all_parameters]
        if not names:
            raise ConfigError(
                "hydra/sweeper=search: nothing to sample; give values, as in optimizer.lr=interval(0.1,1)"
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"hydra.sweeper.when: {twice[0]} is given twice")
        known = {key_of(line) for line in fixed} | {key_of(parameter.element) for parameter in space.parameters}
        for clause in space.clauses:
            if clause.key not in known:
                raise ConfigError(f"hydra.sweeper.when: {clause.key}=… can be no condition, it is not set before it")
            known |= {*clause.keys}
        return space

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Of the clauses too."""
        return (*self.parameters, *(parameter for clause in self.clauses for parameter in clause.parameters))

    @property
    def keys(self) -> list[str]:
        """In what trials may differ."""
        conditional = (key for clause in self.clauses for key in clause.keys)
        return list(dict.fromkeys([*(key_of(parameter.element) for parameter in self.parameters), *conditional]))

    def described(self) -> list[str]:
        """What two studies of the same space agree in, a line a parameter or a setting under a condition."""
        ranges = (
            f"{p.name}={','.join(p.choices)}"
            if p.choices
            else f"{p.name}={p.low!r}..{p.high!r}{f' step {p.step}' if p.step else ''}{' log' if p.is_log else ''}"
            for p in self.all_parameters
        )
        return [*ranges, *(f"{line} if {c.key}={','.join(c.values)}" for c in self.clauses for line in c.settings)]

    def draw(self, suggest: Callable[[Parameter], Value]) -> list[str]:
        """The overrides of a trial.

        Args:
            suggest: gives a parameter's value; asked only for those that the trial has.
        """
        lines = {key_of(line): line for line in self.settings}
        replaceable = {key for clause in self.clauses for key in clause.keys}

        def set_parameter(parameter: Parameter) -> None:
            lines[key_of(parameter.element)] = parameter.line(suggest(parameter))

        later = [parameter for parameter in self.parameters if key_of(parameter.element) in replaceable]
        for parameter in self.parameters:
            if parameter not in later:
                set_parameter(parameter)
        for clause in self.clauses:
            if clause.holds(lines):
                lines |= {key_of(line): line for line in clause.settings}
                for parameter in clause.parameters:
                    set_parameter(parameter)
        for parameter in later:
            if key_of(parameter.element) not in lines:
                set_parameter(parameter)
        return list(lines.values())

    def values_in(self, overrides: Sequence[str]) -> dict[str, Value]:
        """The values, by the names of the parameters, from which ``draw`` made the overrides of a trial.

        Raises:
            LookupError, ValueError: if it cannot have.
        """
        lines, values = {key_of(line): line for line in overrides}, dict[str, Value]()
        self.draw(lambda parameter: values.setdefault(parameter.name, parameter.value_in(lines)))
        return values

    def corners(self) -> Iterator[list[str]]:
        """Trials among which each choice, and each end of a range, is seen at least once."""
        seen: dict[tuple[str, ...], None] = {}
        for parameter in self.all_parameters:
            for value in parameter.ends:
                forced = {parameter.name: value, **self.makes_room_for(parameter)}
                seen[tuple(self.draw(lambda other, forced=forced: forced.get(other.name, other.ends[0])))] = None  # type: ignore[misc]
        yield from map(list, seen)

    def makes_room_for(self, parameter: Parameter) -> dict[str, Value]:
        """The values of other parameters with which a conditional one is sampled."""
        for clause in self.clauses:
            if parameter in clause.parameters:
                on = [other for other in self.all_parameters if key_of(other.element) == clause.key and other.choices]
                return {other.name: value for other in on[:1] for value in clause.values[:1]}
        return {}
