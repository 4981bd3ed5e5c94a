"""The words of a command line in Hydra's grammar: what they set, and the values that each takes."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, ValueType
from hydra.errors import HydraException

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import GLOBAL_GROUPS, GROUPS
from fmnist_lit.config.paths import expanded

LIST_GROUPS = ("callbacks", "logger")  # whose options have names of their own, so that several can be there
PATH_KEYS = ("ckpt_path", "init_from", "hydra.run.dir", "hydra.sweep.dir", "run_dir")  # which never take several values
PATHS = re.compile(
    r"data\.data_dir|.*[._](dir|dirpath|path|folder|root)"
)  # those of other keys, of parts of your own too
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
NAMES = {"debug=nan": "debug='nan'"}  # of files, which Hydra would take for numbers
CHOOSING = {*GROUPS, *GLOBAL_GROUPS, "debug"}  # what has files to choose from
CHECK_ALL = 100  # jobs; it takes about 10 ms a job, and each is checked again before it runs


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's overrides from the words of a command line."""
    return list(map(parse_word, overrides))


@functools.cache  # the jobs of a sweep have most of their words in common
def parse_word(word: str) -> Override:
    """Hydra's override from a word of a command line."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"{word}: not what Hydra understands; write key=value") from error
    if not override.key_or_group:
        raise ConfigError(f"{word}: has no key; write key=value")
    named = isinstance(override.value(), str | QuotedString | list) or override.is_sweep_override()
    if override.key_or_group in GROUPS and not (named or override.is_delete()):
        raise ConfigError(f"{word}: must be the name of a file in conf/{override.key_or_group}")
    require_one_option(word, override)
    if override.key_or_group == "debug" and not isinstance(override.value(), str | None):
        raise ConfigError(f"{word}: must be the name of one file in conf/debug")
    return override


def require_one_option(word: str, override: Override) -> None:
    """Refuse several options where they would overwrite each other, and several tags that are no list."""
    group, value = override.key_or_group, override.value()
    if group == "tags" and override.is_sweep_override():
        raise ConfigError(f"{word}: must be a list, as in tags=[baseline,first]")
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    if group in GROUPS and group not in LIST_GROUPS and any(isinstance(choice, list) for choice in choices):
        raise ConfigError(f"{word}: must be one option; lists are for {' and '.join(LIST_GROUPS)}")


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


def sets_a_value(override: Override) -> bool:
    """Whether an override changes the value of a key that is there, and chooses no file."""
    first = override.key_or_group.split(".")[0]
    changes = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
    return changes and "/" not in first and first != "hydra" and override.key_or_group not in CHOOSING


def split_values(overrides: Sequence[Override], *also: str) -> tuple[tuple[str, ...], list[Override]]:
    """The overrides that decide about the files a configuration is composed of, as words; and those put in last.

    Args:
        overrides: parsed ones.
        also: keys whose overrides are only put in too.
    """
    values = [override for override in overrides if sets_a_value(override) or override.key_or_group in also]
    return tuple(as_given(override) for override in overrides if override not in values), values


def representatives(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The configurations of a sweep if they are few.

    Else enough that all files are seen together that come together, and each value of each other override once.
    """
    choices = [values_of(override) for override in overrides]
    if math.prod(map(len, choices)) <= CHECK_ALL:
        yield from map(list, itertools.product(*choices))
        return
    first = [values[0] for values in choices]
    alone = [sets_a_value(override) for override in overrides]
    together = [values[:1] if one else values for values, one in zip(choices, alone, strict=True)]
    yield from map(list, itertools.product(*together))
    for index in itertools.compress(range(len(choices)), alone):
        for value in choices[index][1:]:
            yield [*first[:index], value, *first[index + 1 :]]


def path_as_typed(word: str) -> str:
    """Take a path, a note or a name for what it is: unquoted, it may mean something else in Hydra's grammar.

    Raises:
        ConfigError: if ``~`` or a variable in it means nothing here.
    """
    word = NAMES.get(word, word)
    key, _, value = word.partition("=")
    name = key.lstrip("+")
    if name == "note" and value.lower() != "null" and path_in_hydra(word) is None:
        return f"{key}={quoted(value)}"  # a sentence may have commas and brackets in it
    if name == "hydra.searchpath":
        return re.sub(r"(?<=[=\[,'\"/ ])~[^,\]'\"]*", lambda match: expanded(match[0], word), word)
    if not value or not (name in PATH_KEYS or PATHS.fullmatch(name)):
        return word
    path = path_in(word, value, name)
    if isinstance(path, list):
        return f"{key}={','.join(quoted(Path(expanded(part, word))) for part in path)}"
    if path is None:
        return word
    result = expanded(path, word)
    if result == path and path_in_hydra(word) == path:
        return word
    return f"{key}={quoted(Path(result))}"


def path_in(word: str, value: str, name: str) -> str | list[str] | None:
    """The path, or several, that the word ``name=value`` means; None where Hydra is to make of it what it will."""
    understood = path_in_hydra(word)
    if value[0] in "'\"":
        inner = value[1:-1]
        broken = understood is None and value[-1] == value[0] and value[0] not in inner
        return inner if broken and WINDOWS.match(inner) else understood  # 'C:\data\' escapes its own end
    if WINDOWS.match(value) and "," not in value:
        return value
    if understood is not None:
        return understood
    if name in PATH_KEYS:
        return None if value.lower() == "null" else value
    if value[0] == "~":
        return value.split(",") if "," in value else value
    is_list = value[0] in "[{" or "," in value or "(" in value
    return None if name != "data.data_dir" or value.lower() == "null" or is_list else value


def path_in_hydra(word: str) -> str | None:
    """The single text that a word sets, in Hydra's grammar; None if that is no text, several, or not understood."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    value = override.value()
    return value if isinstance(value, str) and not override.is_sweep_override() else None


def quoted(path: Path | str) -> str:
    """A path as Hydra's override grammar takes it, whatever characters it has."""
    # a backslash counts as an escape only before a quote
    escaped = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + match[2].replace("'", "\\'"), str(path))
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
