import email
import email.message
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import FENCE, LINK

import fmnist_lit

ROOT = Path(fmnist_lit.__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> list[Path]:
    """Two folders with sdist and wheel, built from copies of other times and permissions."""
    if not shutil.which("uv") or not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs uv and the source tree")
    folders = []
    for age in (0, 1_000_000_000):
        copy = tmp_path_factory.mktemp("checkout")
        for name in ("src", "conf"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
            shutil.copy(ROOT / name, copy)
        (copy / "conf" / "local").mkdir()
        (copy / "conf" / "local" / "default.yaml").write_text("# @package _global_\nnum_threads: 1\n")
        for file in copy.rglob("*") if age else ():
            os.utime(file, (age, age))
            file.chmod(0o755 if file.is_dir() else 0o600)
        folders.append(tmp_path_factory.mktemp("dist"))
        subprocess.run(["uv", "build", "--quiet", "-o", folders[-1], copy], check=True, timeout=240)
    return folders


@pytest.fixture(scope="module")
def archive(dist) -> Iterator[zipfile.ZipFile]:
    """The wheel that this project builds."""
    (file,) = dist[0].glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


@pytest.fixture(scope="module")
def names(archive) -> set[str]:
    """The names in it."""
    return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(archive) -> email.message.Message:
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(archive.read(name))


def test_what_is_built_twice_is_the_same_bytes(dist):
    first, second = ({file.name: file.read_bytes() for file in folder.glob("fmnist_lit-*")} for folder in dist)
    assert first.keys() == {
        f"fmnist_lit-{fmnist_lit.__version__}.tar.gz",
        f"fmnist_lit-{fmnist_lit.__version__}-py3-none-any.whl",
    }
    assert [name for name in first if first[name] != second[name]] == []


def test_sdist_has_no_settings_of_a_machine(dist):
    (file,) = dist[0].glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= set(names)
    assert [name for name in names if "local" in name] == []


def test_description_is_the_readme_without_what_leads_nowhere_from_an_index(metadata):
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload(decode=True).decode()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert description.splitlines()[0] == readme.splitlines()[0]
    assert FENCE.findall(description) == FENCE.findall(readme)  # no code is touched
    links = LINK.findall(FENCE.sub("", description))
    assert [link for link in links if not link.startswith("https://")] == []
    assert links == [link for link in LINK.findall(FENCE.sub("", readme)) if link.startswith("https://")]


def test_wheel_holds_the_whole_configuration(names):
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "conf").rglob("*.yaml")]
    shipped = {f"fmnist_lit/{file}" for file in files if not file.startswith("conf/local/")}
    assert len(shipped) > 20
    assert shipped - names == set()


def test_wheel_holds_nothing_of_a_machines_own_settings(names):
    assert [name for name in names if "local" in name] == []


def test_wheel_holds_the_package_and_nothing_else(names):
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    assert modules - names == set()
    assert {name for name in names if name.startswith(("tests/", "conf/", "scripts/", "outputs/"))} == set()
