"""Pages in two languages say the same: as many headings, the same commands, formulas, pictures and figures in each."""

import re
from pathlib import Path

import pytest
from documents import FENCE, FORMULA, GUIDE, LINK, MEASURED, PAGES, ROOT, anchors, read, without_code

CHINESE = ".zh-CN.md"
IN_BOTH = [*GUIDE, *ROOT.glob("README*.md"), ROOT / "docs" / "tensorboard.md"]
ENGLISH_PAGES = [page for page in PAGES if not page.name.endswith(CHINESE) and page in IN_BOTH]
CHINESE_PAGES = [page for page in PAGES if page.name.endswith(CHINESE)]
NUMBER = re.compile(r"(?<![A-Za-z\d.,])\d+(?:[.,]\d+)*")


def counterpart(page: Path) -> Path:
    """The page in the other language."""
    chinese = ".zh-CN."  # also of notebooks, which links lead to
    return page.with_name(
        page.name.replace(chinese, ".") if chinese in page.name else page.stem + chinese[:-1] + page.suffix
    )


TRANSLATED = [page for page in ENGLISH_PAGES if counterpart(page) in CHINESE_PAGES]


def headings(page: Path) -> list[int]:
    return [len(hashes) for hashes in re.findall(r"^(#+) ", FENCE.sub("", read(page)), re.MULTILINE)]


def commands(page: Path) -> list[tuple[str, str]]:
    return [(language, re.sub(r" +# .*", "", body)) for language, body in FENCE.findall(read(page))]


def formulas(page: Path) -> list[str]:
    return FORMULA.findall(without_code(read(page)))


def links(page: Path) -> list[tuple[str, int | None]]:
    """Where links and pictures lead, those of a Chinese page as in its counterpart: a file, and which heading there."""
    found = []
    for link in LINK.findall(without_code(read(page))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        heading = anchors(target).index(anchor) if anchor and target.exists() else None
        if page in CHINESE_PAGES and counterpart(target).exists():
            target = counterpart(target)
        found.append((link if "://" in link else str(target.relative_to(ROOT)), heading))
    return found


def tables(page: Path) -> list[int]:
    """Cells of each row of each table."""
    return [line.count("|") - 1 for line in FENCE.sub("", read(page)).splitlines() if line.startswith("|")]


def measured(page: Path) -> list[tuple[str, list[str]]]:
    return [(name, NUMBER.findall(text)) for name, text in MEASURED.findall(read(page))]


def names(page: Path) -> list[str]:
    """What is quoted in code, in any order."""
    return sorted(re.findall(r"`[^`\n]+`", FENCE.sub("", read(page))))


def numbers(page: Path) -> list[str]:
    """The figures of the prose, in any order, since sentences are built differently; 0 and 1 may also be words."""
    prose = re.sub(r"\]\([^)]+\)", "", FORMULA.sub("", without_code(read(page))))
    return sorted(number for number in NUMBER.findall(prose) if number not in ("0", "1"))


FACTS = (headings, commands, formulas, links, tables, measured, names, numbers)


def test_every_page_is_there_in_both_languages():
    assert sorted(counterpart(page) for page in ENGLISH_PAGES) == CHINESE_PAGES


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_both_languages_have_the_same(fact, page):
    assert fact(counterpart(page)) == fact(page)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.__name__)
def test_what_is_compared_is_found(fact):
    assert any(fact(page) for page in ENGLISH_PAGES)
