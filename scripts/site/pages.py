"""Which page of the site each document of the repository is, and where its links lead there."""

import posixpath
import re
from pathlib import Path

import groups
import reference
from languages import CHINESE, said

import notebooks

ROOT = Path(__file__).parents[2]
AT_THE_TOP = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
HOME, GUIDE, USING = ("Home", "首页"), ("Guide", "指南"), ("Using it", "使用")
GUIDE_PAGES = "index losses optimizers learning_rate_and_schedules find_lr batch_size_and_epochs"
USING_PAGES = "python sweeps search debugging using_a_trained_run your_own editor lightning trackers launchers ddp"
SECTIONS = {  # in the order in which a reader wants the pages; further documents come after these
    ("Tutorial", "教程"): ["notebooks/tutorial.md"],
    GUIDE: [f"guide/{name}.md" for name in GUIDE_PAGES.split()],
    USING: [f"{name}.md" for name in USING_PAGES.split()],
    groups.TITLE: [],
    reference.TITLE: [],
    ("Results", "结果"): ["results.md", "benchmarks.md"],
    ("Project", "项目"): ["contributing.md", "security.md", "changelog.md"],
}
FENCE = r"^```.*?^```$|<pre\b.*?</pre>"  # in which nothing is changed
PLACES = re.compile(  # a picture, or a link, in which there may be one; an attribute of HTML
    rf"{FENCE}|(?P<picture>!?)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|[^\]])*)\]\((?P<target>[^)\s]+)\)"
    r"|\b(?P<attribute>src|srcset|href)=\"(?P<value>[^\"]+)\"",
    re.MULTILINE | re.DOTALL,
)
HAN = r"[\u2014\u2018-\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
LINE_BREAK = re.compile(rf"{FENCE}|(?<={HAN})\n *(?=(?:\[|\*\*)?{HAN})", re.MULTILINE | re.DOTALL)
OTHER_LANGUAGE = re.compile(r"^\[(简体中文|English)\]\([^)]+\)\n+", re.MULTILINE)  # for which the site has a menu


def documents(language: str) -> dict[str, Path]:
    """The documents and notebooks by their place on the site; in English where there is no other."""
    files = [ROOT / name for name in AT_THE_TOP]
    files += [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
    found = {}
    for file in files:
        if not file.stem.endswith(f".{CHINESE}"):
            translated = file.with_suffix(f".{CHINESE}{file.suffix}")
            path = place(file.relative_to(ROOT).as_posix()) or ""
            found[path] = translated if language == CHINESE and translated.exists() else file
    return found


def all_pages(language: str, repository: str | None = None) -> dict[str, str]:
    """The Markdown of every page by its place on the site."""
    made = {}
    for path, file in documents(language).items():
        text = file.read_text(encoding="utf-8")
        text = notebooks.as_markdown(text) if file.suffix == ".ipynb" else text
        made[path] = rewritten(text, file.relative_to(ROOT).as_posix(), repository)
    made |= {**groups.pages(language), **reference.pages(language)}
    return {path: without_line_breaks(text) for path, text in made.items()}


def without_line_breaks(text: str) -> str:
    """Markdown without those between Chinese characters, where a browser would show spaces."""
    return LINE_BREAK.sub(lambda match: match[0].strip("\n "), text)


def place(path: str) -> str | None:
    """Where a path of the repository is on the site, in the language of the page; nothing where it is not.

    Args:
        path: from the top of the repository, with slashes; of a file, or a folder.
    """
    path = path.replace(f".{CHINESE}.", ".")
    if path in AT_THE_TOP:
        return AT_THE_TOP[path]
    folder, _, rest = path.partition("/")
    if folder == "notebooks" and (ROOT / path).is_file():
        return path.replace(".ipynb", ".md")
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

    def relinked(match: re.Match[str]) -> str:
        if match["value"]:
            link = destination(match["value"], page, repository)
            if link is None or ":" in link:
                return match[0]
            return f'{match["attribute"]}="{re.sub(r"[.]md(?=#|$)", ".html", link)}"'  # as MkDocs does in Markdown
        if match["target"]:
            words, link = PLACES.sub(relinked, match["text"]), destination(match["target"], page, repository)
            return f"{match['picture']}[{words}]({link})" if link else words
        return match[0]

    return PLACES.sub(relinked, OTHER_LANGUAGE.sub("", text))


def destination(link: str, page: str, repository: str | None) -> str | None:
    """Where a link of a document leads on the site; nothing where only the repository, without an address, has it."""
    path, _, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    if not path or re.match(r"\w+:|/", path) or not (ROOT / target).exists():
        return link  # MkDocs tells of those that are dead
    found = place(target)
    if found is None:
        return f"{repository.rstrip('/')}/blob/main/{target}" if repository else None
    here = posixpath.dirname(place(page) or "")
    return posixpath.relpath(found, here or ".") + (f"#{anchor}" if anchor else "")


def navigation(language: str) -> list[dict[str, str | list[str]]]:
    """The menu: every page once."""
    there = [*documents(language), *groups.pages(language), *reference.pages(language)]
    sections = {title: [path for path in paths if path in there] for title, paths in SECTIONS.items()}
    listed = {"index.md", *(path for paths in sections.values() for path in paths)}
    folders = {"guide": GUIDE, "notebooks": GUIDE, "configuration": groups.TITLE, "reference": reference.TITLE}
    for path in there:
        if path not in listed:
            sections[folders.get(posixpath.dirname(path), USING)].append(path)
    filled = ({said(title, language): paths} for title, paths in sections.items() if paths)
    return [{said(HOME, language): "index.md"}, *filled]
