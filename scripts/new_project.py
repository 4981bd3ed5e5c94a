"""A project of your own, started from this one: its own name everywhere, README, CI and tests, none of our results.

python scripts/new_project.py flowers ../flowers
"""

import argparse
import importlib.util
import io
import keyword
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = "fmnist_lit"
# What goes along of what git tracks; a * stands for any characters, / too
TAKEN = (
    *(".ci/*", ".github/*", ".gitignore", ".pre-commit-config.yaml", ".dockerignore", "Dockerfile"),
    *("LICENSE", "Makefile", "pyproject.toml"),
    *("conf/*", "docs/*.md", "outputs/*", "src/*", "tests/*"),
)
# What of that does not: our results, what is written about them, what is left of earlier versions, and tests of these
LEFT = (
    *("conf/experiment/best_mlp*", "conf/experiment/fastest_*", "conf/study/ingredients.yaml"),
    *("docs/*/*", "docs/benchmarks.md"),
    *("tests/made_by_*", "tests/test_compatibility.py", "tests/test_release.py"),
    *("tests/test_guide.py", "tests/test_languages.py", "tests/test_new_project.py", "tests/test_results.py"),
    *("tests/test_gpu_script.py", "tests/test_notebooks.py", "tests/test_site.py"),
)
# What is changed besides the name, by regular expressions; each is found, or this list is no longer true
EDITS = {
    "pyproject.toml": (
        (r"(?m)^description = .*", f'description = "{OURS}, with Lightning and Hydra"'),
        (r"(?m)^ignore = \[", 'ignore = [\n    "E501",  # the formatter breaks what it can'),
        (r"(?m)^# a notebook: .*\n(\".*notebooks/.*\n)+", ""),
        (r"(?m)^# docs/, README.*\nsite = .*\n", ""),
        (r"(?m)^fail_under = .*\n", ""),
    ),
    f"src/{OURS}/__init__.py": (
        (r'\A"""[^"]*"""', f'"""{OURS}, with Lightning and Hydra."""'),
        (r"(?m)^__version__ = .*", '__version__ = "0.1.0"'),
    ),
    f"src/{OURS}/dashboard/symptoms.py": ((r"(?m)^PAGE = .*", 'PAGE = "docs/tensorboard.md"'),),  # there is no guide
    "Makefile": (
        (r"(?m)^(\.PHONY:.*) site bench\b", r"\1"),
        (r"(?m)^site:.*\n\t.*\n", ""),
        (r"(?m)^bench:.*\n\t.*\n", ""),
        (r"(?m); fails below the floor$", ""),
    ),
    ".ci/run": (
        (r"(?m)^shared=(.*\n)+?fi\n\n", ""),
        (r", import contracts and the site", " and import contracts"),
        (r"(?m)^uv run --group site .*\n", ""),
    ),
    ".github/workflows/tests.yml": (
        (r"(?m)^  site:\n(    .*\n)+", ""),
        (r"(?m) # fails below the floor in pyproject.toml$", ""),
    ),
}
MEASURED = {  # what is said of our runs
    ".yaml": re.compile(r"(\n#)? Measured\b.*(\n#.*)*"),  # to the end of the comment
    ".md": re.compile(r"<!-- measured -->.*?<!-- end -->\n*", re.DOTALL),
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#]+)[^)]*\)")
README = Path(__file__).with_suffix(".md")
CHANGELOG = """\
# Changelog

The format is [Keep a Changelog](https://keepachangelog.com/en/1.1.0/).

## [Unreleased]
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the project, or say in a line why not; nothing is written then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="of the package: lower-case letters, digits and underscores")
    parser.add_argument("folder", metavar="FOLDER", help="new, or empty")
    args = parser.parse_args(arguments)
    folder, name = Path(args.folder).expanduser().absolute(), args.name
    commands = {"train": f"pip install uv && uv run python -m {name}", "test": "pip install uv && uv run pytest"}
    try:
        check_folder(folder)
        files = taken_files()
        check_name(name, files)
        for path, content in render(name, files, commands).items():
            file = folder / renamed(path, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            shutil.copymode(ROOT / path, file)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sort_and_format(folder)
    print(f"{name} is in {folder}. There, this trains:\n\n    {commands['train']}\n")
    print(f"and this runs the tests:\n\n    {commands['test']}\n\nREADME.md says where to put a model.")
    return 0


def check_folder(folder: Path) -> None:
    """Refuse a folder in which there is something, or that is part of this checkout."""
    if folder.resolve().is_relative_to(ROOT.resolve()):
        raise ValueError(f"{folder}: is in this checkout; choose a folder beside it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; choose a new folder, or an empty one")


def taken_files() -> dict[str, bytes]:
    """What goes along, by its path in this checkout."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    tracked = os.fsdecode(listed.stdout).split("\0")
    if "pyproject.toml" not in tracked:
        raise ValueError(f"{ROOT}: is not a checkout that git knows; clone the repository")
    return {
        path: (ROOT / path).read_bytes()
        for path in tracked
        if any(fnmatchcase(path, pattern) for pattern in TAKEN)
        and not any(fnmatchcase(path, pattern) for pattern in LEFT)
        and (ROOT / path).is_file()
    }


def check_name(name: str, files: dict[str, bytes]) -> None:
    """Refuse a name that is none, that another package has, or that means something else in the code."""
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name) or keyword.iskeyword(name):
        raise ValueError(f"{name}: must be a name for a package, of a-z, 0-9 and _, such as flowers")
    if OURS in name:
        raise ValueError(f"{name}: must be another name than {OURS}, also in part")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name):
        raise ValueError(f"{name}: there is a package of that name; choose another, such as {name}_lit")
    for path, content in files.items():
        if name in re.findall(r"\w+", path) or (path.endswith(".py") and name in words_of(content)):
            raise ValueError(f"{name}: means something else in {path}; choose another, such as {name}_lit")


def words_of(code: bytes) -> set[str]:
    """The names in code, and the words of its strings that are not prose."""
    tokens = tokenize.tokenize(io.BytesIO(code).readline)
    named = (token.string for token in tokens if token.type in (tokenize.NAME, tokenize.STRING))
    return {word for text in named if not re.search(r"\s", text) for word in re.findall(r"\w+", text)}


def render(name: str, files: dict[str, bytes], commands: dict[str, str]) -> dict[str, bytes]:
    """The content of the new project, by the paths of this one.

    Raises:
        ValueError: if a list at the top of this file is no longer true, or our name would remain somewhere.
    """
    rendered = {}
    for path, content in files.items():
        try:
            text = content.decode().replace("\r\n", "\n")  # as git may have them on Windows
        except UnicodeDecodeError:  # a picture, say
            rendered[path] = content
            continue
        if path != "LICENSE":  # whose notice has to stay
            text = renamed(without_results(edited(path, text), Path(path), files), name)
            if re.search("fmnist.?lit", renamed(path, name) + text, re.IGNORECASE):
                raise ValueError(f"{path}: our name would remain in it")
        rendered[path] = text.encode()
    version = re.search(r'(?m)^__version__ = "(.*)"', files[f"src/{OURS}/__init__.py"].decode())
    assert version is not None
    return {
        **rendered,
        "README.md": README.read_text(encoding="utf-8").format(name=name, version=version[1], **commands).encode(),
        "CHANGELOG.md": CHANGELOG.encode(),
    }


def renamed(text: str, name: str) -> str:
    """With another name wherever ours is: of the package, of the command, of environment variables."""
    for spelled in (str, str.upper, lambda word: word.replace("_", "-")):
        text = text.replace(spelled(OURS), spelled(name))
    return text


def edited(path: str, text: str) -> str:
    """With what EDITS changes in that file."""
    for pattern, replacement in EDITS.get(path, ()):
        text, times = re.subn(pattern, replacement, text)
        if times != 1:
            raise ValueError(f"{path}: {pattern} is in it {times} times, not once")
    return text


def without_results(text: str, path: Path, files: dict[str, bytes]) -> str:
    """Without what is said of our runs; a link to what does not go along is its text, and a picture nothing."""

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(path.parent / match[3]).replace(os.sep, "/")
        if any(file == target or file.startswith(f"{target}/") for file in files):
            return match[0]
        return "" if match[1] else match[2]

    if path.suffix in MEASURED:
        text = MEASURED[path.suffix].sub("", text)
    return LINK.sub(link, text) if path.suffix == ".md" else text


def sort_and_format(folder: Path) -> None:
    """Sort imports and break lines as a name of another length wants it."""
    if importlib.util.find_spec("ruff"):
        for command in (["check", "--select=I", "--fix"], ["format"]):
            ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--no-cache", "."]
            subprocess.run(ruff, cwd=folder, check=True)
    else:
        print("First, for want of ruff here: uv run ruff check --fix . && uv run ruff format .\n")


if __name__ == "__main__":
    sys.exit(main())
