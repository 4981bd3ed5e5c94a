"""What the files of conf/ say to people: the comment that a file begins with, and the one beside each key."""

import re
from dataclasses import dataclass, field
from pathlib import Path

LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\s].*?))??(?: +# (?P<comment>.*))?")


@dataclass(frozen=True)
class Entry:
    """A key as it is written: its path in the file, its value (nothing for one that holds others), its comment."""

    path: tuple[str, ...]
    value: str
    comment: str


@dataclass(frozen=True)
class Option:
    """A file of conf/: its name without the ending, its first comment, and its keys."""

    name: str
    comment: tuple[str, ...] = ()  # its lines
    entries: list[Entry] = field(default_factory=list)
    body: str = ""  # all that follows the first comment

    @property
    def builds_on(self) -> list[str]:
        """The options of the same group that it changes."""
        written = [entry.value for entry in self.entries if entry.path == ("defaults",)]
        return re.findall(r"[\w/]+", written[0]) if written else []


def read_option(file: Path) -> Option:
    """Read a file of conf/, which keeps to one key a line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = tuple(line.removeprefix("#").strip() for line in lines[:first] if not line.startswith("# @package"))
    entries: list[Entry] = []
    parents: list[tuple[int, str]] = []  # how far each is indented, and its key
    for line in lines[first:]:
        if match := LINE.fullmatch(line):
            indent = len(match["indent"])
            parents = [parent for parent in parents if parent[0] < indent]
            parents.append((indent, match["key"]))
            entries.append(Entry(tuple(key for _, key in parents), match["value"] or "", match["comment"] or ""))
    return Option(file.stem, comment, entries, "\n".join(lines[first:]).strip("\n") + "\n")


def read_group(folder: Path) -> list[Option]:
    """The options of a group, by name."""
    return [read_option(file) for file in sorted(folder.glob("*.yaml"))]
