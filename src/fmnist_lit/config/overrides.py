"""The words of a command line in Hydra's grammar: what they set, and the values that each takes."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, ValueType
from hydra.errors import HydraException

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import GROUPS

PATH_KEYS = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir")  # which never take several values
CHECK_ALL = 24  # jobs; composing a configuration takes about 40 ms, and each job is checked again before it runs


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's overrides from the words of a command line."""
    parsed = []
    for word in overrides:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise ConfigError(f"{word}: not what Hydra understands; write key=value") from error
        if not override.key_or_group:
            raise ConfigError(f"{word}: has no key; write key=value")
        named = isinstance(override.value(), str | QuotedString | list) or override.is_sweep_override()
        if override.key_or_group in GROUPS and not (named or override.is_delete()):
            raise ConfigError(f"{word}: must be the name of a file in conf/{override.key_or_group}")
        parsed.append(override)
    return parsed


def merge(under: Sequence[Override], over: Sequence[Override]) -> list[Override]:
    """Two command lines as one; where both set a key, the second does."""
    keys = {override.key_or_group for override in over}
    return [*(override for override in under if override.key_or_group not in keys), *over]


def without_repeats(overrides: Sequence[Override]) -> list[Override]:
    """Of a key that is given twice in a sweep the last, in the place of the first, as Hydra takes it."""
    return list({override.get_key_element(): override for override in overrides}.values())


def expand_globs(overrides: Sequence[Override], options_of: Callable[[str], list[str]]) -> list[Override]:
    """Each ``group=glob(…)`` as a choice of the options that it matches.

    Args:
        overrides: parsed ones.
        options_of: the names of a group's files.

    Raises:
        ConfigError: if one matches nothing.
    """
    return [
        expand_glob(override, options_of(override.key_or_group)) if isinstance(override.value(), Glob) else override
        for override in overrides
    ]


def expand_glob(override: Override, options: list[str]) -> Override:
    """A glob as a choice of those of the options that it matches."""
    pattern = override.value()
    assert isinstance(pattern, Glob)
    names = pattern.filter(options)
    if not names:
        group = override.key_or_group
        has = f"only {', '.join(options)} are in conf/{group}" if options else f"{group} is no group of files"
        raise ConfigError(f"{override.input_line}: matches nothing, {has}")
    expanded = dataclasses.replace(override, value_type=ValueType.CHOICE_SWEEP, _value=ChoiceSweep(list=[*names]))
    values = ",".join(expanded.sweep_string_iterator())
    return dataclasses.replace(expanded, input_line=f"{override.get_key_element()}=choice({values})")


def first_values(overrides: Sequence[Override]) -> list[str]:
    """One configuration of a sweep."""
    return [values_of(override)[0] for override in overrides]


def representatives(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The configurations of a sweep if they are few, else enough that each value of each override is seen once."""
    choices = [values_of(override) for override in overrides]
    if math.prod(map(len, choices)) <= CHECK_ALL:
        yield from map(list, itertools.product(*choices))
        return
    first = [values[0] for values in choices]
    yield first
    for index, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:index], value, *first[index + 1 :]]


def path_as_typed(word: str) -> str:
    """Take a path for what it is: unquoted, the names of our own folders mean something else in Hydra's grammar."""
    key, _, value = word.partition("=")
    if key not in PATH_KEYS or not value or value[0] in "'\"":
        return word
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override() and isinstance(override.value(), str | None):
            return word
    except HydraException:
        pass
    return f"{key}={quoted(Path(value))}"


def quoted(path: Path | str) -> str:
    """A path as Hydra's override grammar takes it, whatever characters it has."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def values_of(override: Override) -> list[str]:
    """Each value that an override takes, as an override of its own; of an interval, the ends.

    Raises:
        ConfigError: if it takes none.
    """
    if not override.is_sweep_override():
        return [as_given(override)]
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]
    try:
        values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    except (HydraException, ValueError) as error:  # a range whose step is 0
        raise ConfigError(f"{override.input_line}: {error}") from error
    if not values:
        raise ConfigError(f"{override.input_line}: holds no value")
    return values


def as_given(override: Override) -> str:
    """An override as it was typed."""
    assert override.input_line is not None  # only those that Hydra makes for itself have none
    return override.input_line


def key_of(line: str) -> str:
    """The key of an override as written on a command line."""
    return line.split("=", 1)[0].split("@", 1)[0].lstrip("+~")
