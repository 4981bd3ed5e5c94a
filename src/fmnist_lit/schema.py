"""python -m fmnist_lit.schema > fmnist_lit.schema.json: what a configuration may say, for editors that complete YAML.

It is a JSON Schema of whole configurations and of files in experiment/, study/, debug/ and local/; its #/$defs/GROUP is
that of a file in GROUP/. Made from the rules, the options and the classes that are installed, it accepts what the check
refuses for reasons that no schema can tell: what values come to together, and what a class of somebody's own takes.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from typing import Any

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.arguments import COMPLETED_LATER, GIVEN, HYDRAS_KEYS, NOT_FOR_THE_PART, trainer_options
from fmnist_lit.config.check import CLOSED_GROUPS, DATA_MODULE, GROUPS, OPEN_NODES, TOP_LEVEL_KEYS
from fmnist_lit.config.comments import Option, read_group, read_option
from fmnist_lit.config.rules import RULES
from fmnist_lit.config.signatures import signature

Schema = dict[str, Any]
INTERPOLATION = {"type": "string", "pattern": r"\$\{"}
NAMED_PARTS = ("callbacks", "logger")  # groups that hold several parts by name
# Where nothing else is named, the class is one of ours, and the rules are of its keys
NOT_OUR_CLASS = {
    "properties": {"_target_": {"not": {"pattern": r"^(torch|torchvision|lightning|fmnist_lit)\."}}},
    "required": ["_target_"],
}
options = functools.cache(lambda group: read_group(CONF / group))


def schema() -> Schema:
    """The JSON Schema of a configuration."""
    nodes = {group: node(group) for group in GROUPS}
    others = {key: ruled(key) for key in sorted(TOP_LEVEL_KEYS - {*GROUPS, "hydra"})}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A configuration of fmnist_lit",
        "type": "object",
        "properties": {**nodes, **others, "hydra": {"type": "object"}, "defaults": defaults()},
        "additionalProperties": False,
        "$defs": {group: {**of, "properties": {**of["properties"], "defaults": {}}} for group, of in nodes.items()},
    }


def defaults() -> Schema:
    """The defaults list of a file that sets keys of all groups."""
    chosen = {
        prefix + group: {"anyOf": [{"enum": [option.name for option in options(group)]}, {}]}
        for prefix in ("", "override /")
        for group in GROUPS
    }
    return {"type": "array", "items": {"anyOf": [{"type": "object", "properties": chosen}, {"type": "string"}]}}


def node(group: str) -> Schema:
    """What a group's key holds."""
    if group in NAMED_PARTS:
        names = {entry.path[0] for option in options(group) for entry in option.entries} - {"defaults"}
        parts = {name: part(f"{group}.{name}") for name in sorted(names)}
        return {"type": "object", "properties": parts, "additionalProperties": {"type": "object"}}
    if group == "trainer":
        known = {key: described(f"trainer.{key}") for key in trainer_options()}
        properties = {**known, **ruled("trainer")["properties"]}
        return {"type": "object", "properties": properties, "additionalProperties": not known}
    if group == "data":
        of_rules = ruled("data")
        return {**of_rules, "properties": {"_target_": {"const": DATA_MODULE}, **of_rules["properties"]}}
    return part(group)


def part(key: str) -> Schema:
    """A node that is made into an object of the class in its ``_target_``."""
    path = (*key.split(".")[1:], "_target_")
    written = (entry.value for option in options(key.split(".")[0]) for entry in option.entries if entry.path == path)
    taken = {target: keys_of(key, target) for target in dict.fromkeys(written)}
    known = dict.fromkeys(name for names in taken.values() for name in names or ())
    target = {"anyOf": [{"enum": list(taken)}, {"type": "string"}]}
    partial = {"_partial_": {"const": True}} if key in COMPLETED_LATER else {}
    properties = {name: described(f"{key}.{name}") for name in known}
    closed = [
        {
            "if": {"properties": {"_target_": {"const": target}}, "required": ["_target_"]},
            "then": {"propertyNames": {"enum": [*names, "defaults"]}},
        }
        for target, names in taken.items()
        if names is not None
    ]
    return {
        "type": "object",
        "properties": {**properties, "_target_": target, **partial},
        "allOf": [{"if": NOT_OUR_CLASS, "else": {"properties": dict(within(key))}}, *closed],
    }


def keys_of(key: str, target: str) -> list[str] | None:
    """What a node of that class may have; None where its source does not tell, or anything."""
    taken = signature(target)
    if taken is None or taken.any_name:
        return None
    comes_first = COMPLETED_LATER.get(key, ("", False))[1]
    filled = (*taken.by_position[:comes_first], *GIVEN.get(key, ()))
    return [*(name for name in taken.by_name if name not in filled), *NOT_FOR_THE_PART.get(key, ()), *HYDRAS_KEYS]


def ruled(key: str) -> Schema:
    """What the rules say of a key, and of those within it."""
    rules = dict(within(key))
    of_rule = or_interpolation(RULES[key].schema) if key in RULES else {}
    if not rules:
        return {**described(key), **of_rule}
    if of_rule:  # which may be of other types too
        return {**described(key), "allOf": [of_rule, {"properties": rules}]}
    path = tuple(key.split("."))
    is_closed = path[0] in CLOSED_GROUPS and path not in OPEN_NODES
    return {**described(key), "type": "object", "properties": rules, "additionalProperties": not is_closed}


def within(key: str) -> Iterator[tuple[str, Schema]]:
    """The keys within another that there are rules for, each with what these say of it."""
    below = (rule.removeprefix(f"{key}.").split(".")[0] for rule in RULES if rule.startswith(f"{key}."))
    return ((name, ruled(f"{key}.{name}")) for name in dict.fromkeys(below))


def or_interpolation(of_rule: Any) -> Schema:
    """What a rule says, or an interpolation in its place or in that of an item."""
    items = {"items": or_interpolation(of_rule["items"])} if "items" in of_rule else {}
    return {"anyOf": [{**of_rule, **items}, INTERPOLATION]}


def described(key: str) -> Schema:
    """What an editor shows of a key: what it may be, and the comments beside it in conf/."""
    rule, comments = RULES.get(key), comments_on(key)
    told = [*([f"must be {rule.allowed}"] if rule else []), *comments]
    return {"description": "\n\n".join(told)} if told else {}


def comments_on(key: str) -> list[str]:
    """The comments beside a key, each with the option that it is of where there are several."""
    group, *path = key.split(".")
    if group not in GROUPS:
        return comments_in(read_config(), tuple(key.split(".")))
    found = {option.name: comments_in(option, tuple(path)) for option in options(group)}
    return [f"{name}: {comment}" for name, comments in found.items() for comment in comments]


def comments_in(option: Option, path: tuple[str, ...]) -> list[str]:
    """The comment beside a key of a file, if there is one."""
    return [entry.comment for entry in option.entries if entry.path == path and entry.comment]


@functools.cache
def read_config() -> Option:
    """conf/config.yaml with its comments."""
    return read_option(CONF / "config.yaml")


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_lit.schema", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    print(json.dumps(schema(), indent=1))


if __name__ == "__main__":
    main()
