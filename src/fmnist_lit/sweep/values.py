"""The values that overrides set: parsed, compared, and as text."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

SEED = "seed"
LABELS = ("tags", "note")  # name a run and change nothing in it
UNKNOWN = object()  # the value of a key that a job's files do not give; not None, because null is a value
PARSER = OverridesParser.create()


@cache
def parse_setting(override: str) -> tuple[str, Any] | None:
    """The key and the value of an override; None for one of Hydra's own and for ``ckpt_path``, which resumes a run."""
    try:
        parsed = PARSER.parse_override(override)
    except (HydraException, RecursionError):
        key, _, value = override.partition("=")
        return key, value
    if parsed.is_hydra_override() or parsed.key_or_group == "ckpt_path":
        return None
    return parsed.key_or_group, override.partition("=")[2] if parsed.is_sweep_override() else parsed.value()


def select(tree: Any, path: Sequence[str]) -> Any:
    """The node of nested mappings at a path; UNKNOWN if there is none."""
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return UNKNOWN
        tree = tree[name]
    return tree


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; a bool is none."""
    return type(value) in (int, float) and math.isfinite(value)


def identity(value: Any) -> Any:
    """Something hashable that equal values share: 1 and 1.0, but not 1 and true."""
    return float(value) if is_number(value) else show_value(value)


def distinct(values: Iterable[Any]) -> list[Any]:
    """The different known values: sorted if all are numbers, otherwise in order."""
    found = list({identity(value): value for value in values if value is not UNKNOWN}.values())
    return sorted(found) if all(map(is_number, found)) else found


def show_value(value: Any) -> str:
    """A value as people write it on the command line, in one line; nothing for UNKNOWN."""
    if value is UNKNOWN:
        return ""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(map(show_value, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else one_line(value)


def one_line(value: Any) -> str:
    """Text without line breaks or runs of blanks."""
    return " ".join(str(value).split())
