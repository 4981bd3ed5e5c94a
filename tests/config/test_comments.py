import pytest
import yaml
from omegaconf import OmegaConf

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.comments import Entry, read_group, read_option


def keys(node: dict, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every path in a file, in its order."""
    found = []
    for key, value in node.items():
        found += [(*path, key), *(keys(value, (*path, key)) if isinstance(value, dict) else ())]
    return found


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: file.relative_to(CONF).as_posix())
def test_every_key_of_a_shipped_file_is_read_with_its_value(file):
    entries = {entry.path: entry.value for entry in read_option(file).entries}
    whole = OmegaConf.to_container(OmegaConf.load(file))
    assert list(entries) == keys({str(key): value for key, value in whole.items()})
    for path, written in entries.items():
        value = whole
        for key in path:
            value = value[key]
        if written and written != ">-":  # which goes on below
            assert OmegaConf.to_container(OmegaConf.create(f"x: {written}"))["x"] == value


def test_comments_are_those_that_the_file_begins_with_and_those_beside_keys(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "# @package _global_\n# What it is.\n# And why.\ndefaults: [base, other/one]\n"
        "a: 1 # one\nb: # holds\n  c: 'x y' # two # words\n  # of nothing\n  d:\ne: [1, 2]\n",
        encoding="utf-8",
    )
    option = read_option(file)
    assert option.name == "mine"
    assert option.comment == ("What it is.", "And why.")
    assert option.builds_on == ["base", "other/one"]
    assert option.entries[1:] == [
        Entry(("a",), "1", "one"),
        Entry(("b",), "", "holds"),
        Entry(("b", "c"), "'x y'", "two # words"),
        Entry(("b", "d"), "", ""),
        Entry(("e",), "[1, 2]", ""),
    ]
    assert yaml.safe_load(option.body)["b"]["c"] == "x y"
    assert read_group(tmp_path) == [option]
