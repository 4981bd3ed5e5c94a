"""Which page of the site each document of the repository is, and where its links lead there."""

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

import groups
import reference

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = "en", "zh-CN"
AT_THE_TOP = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SECTIONS = {  # in the order in which a reader wants their pages; a document in none is added to the last of its folder
    ("Guide", "指南"): ("guide/", "index losses optimizers learning_rate_and_schedules find_lr batch_size_and_epochs"),
    ("Results", "结果"): ("", "results benchmarks"),
    ("Using it", "使用"): (
        "",
        "python sweeps debugging using_a_trained_run your_own editor lightning trackers launchers ddp",
    ),
}
PROJECT = ("Project", "项目")
# A fence; a link or picture; an attribute of HTML
PLACES = re.compile(
    r"^```.*?^```$|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)|(?P<name>\b(?:src|srcset|href))=\"(?P<value>[^\"]+)\"",
    re.MULTILINE | re.DOTALL,
)
# A fence; or a new line between Chinese characters, which a browser would show as a space
HAN = r"[\u2014\u2018-\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
LINE_BREAK = re.compile(rf"^```.*?^```$|(?<={HAN})\n *(?={HAN})", re.MULTILINE | re.DOTALL)
OTHER_LANGUAGE = re.compile(r"^\[(简体中文|English)\]\([^)]+\)\n+", re.MULTILINE)  # for which the site has a menu


def documents(language: str) -> dict[str, Path]:
    """The documents by their place on the site; in English where there is no other."""
    files = [*(ROOT / name for name in AT_THE_TOP), *sorted((ROOT / "docs").rglob("*.md"))]
    found = {}
    for file in files:
        if not file.name.endswith(f".{CHINESE}.md"):
            translated = file.with_suffix(f".{CHINESE}.md")
            path = file.relative_to(ROOT).as_posix()
            found[place(path) or ""] = translated if language == CHINESE and translated.exists() else file
    return found


def all_pages(language: str, repository: str | None = None) -> dict[str, str]:
    """The Markdown of every page by its place on the site."""
    read = {
        path: rewritten(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix(), repository)
        for path, file in documents(language).items()
    }
    return {**read, **groups.pages(language), **reference.pages(language)}


def place(path: str) -> str | None:
    """Where a path of the repository is on the site, in the language of the page; nothing where it is not.

    Args:
        path: from the top of the repository, with slashes; of a file, or a folder.
    """
    path = path.replace(f".{CHINESE}.md", ".md")
    if path in AT_THE_TOP:
        return AT_THE_TOP[path]
    folder, _, rest = path.partition("/")
    if folder == "docs":
        if (ROOT / path / "README.md").is_file():
            return f"{rest}/index.md"
        return re.sub(r"(^|/)README\.md$", r"\1index.md", rest) if (ROOT / path).is_file() else None
    if folder == "conf":
        return groups.place(rest)
    return reference.place(path)


def rewritten(text: str, page: str, repository: str | None = None) -> str:
    """A document as the site shows it.

    Args:
        text: its Markdown.
        page: its path in the repository.
        repository: the address at which the files are that the site does not have; without, a link to one is its text.
    """
    here = posixpath.dirname(place(page) or "")

    def relinked(match: re.Match[str]) -> str:
        given = match["target"] or match["value"]
        if given is None or re.match(r"\w+:|#|//", given):
            return match[0]
        path, _, anchor = given.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        found = place(target)
        if found is not None:
            link = posixpath.relpath(found, here or ".")
        elif repository:
            link = f"{repository.rstrip('/')}/blob/main/{target}"
        else:
            return match["text"] if match["target"] else match[0]
        link += f"#{anchor}" if anchor else ""
        if match["value"]:
            return f'{match["name"]}="{link}"'
        return f"{match['picture']}[{match['text']}]({link})"

    text = LINE_BREAK.sub(lambda match: match[0].strip("\n "), OTHER_LANGUAGE.sub("", text))
    return PLACES.sub(relinked, text)


def navigation(language: str) -> list[dict[str, object]]:
    """The menu: every page once."""
    left = list(documents(language))
    sections: dict[tuple[str, str], list[str]] = {}
    for title, (folder, names) in SECTIONS.items():
        sections[title] = [path for name in names.split() if (path := f"{folder}{name}.md") in left]
        left = [path for path in left if path not in sections[title]]
    project = ["contributing.md", "changelog.md"]
    for path in left:
        if path != "index.md" and path not in project:
            sections[("Guide", "指南") if path.startswith("guide/") else ("Using it", "使用")].append(path)
    sections |= {groups.TITLE: list(groups.pages(language)), reference.TITLE: list(reference.pages(language))}
    sections[PROJECT] = project
    which = (ENGLISH, CHINESE).index(language)
    return [{("Home", "首页")[which]: "index.md"}, *({title[which]: paths} for title, paths in sections.items())]
