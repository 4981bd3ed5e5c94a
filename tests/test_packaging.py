import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import fmnist_lit

ROOT = Path(fmnist_lit.__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """The names in the wheel that this project builds."""
    if not shutil.which("uv") or not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs uv and the source tree")
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    (copy / "conf" / "local").mkdir()
    (copy / "conf" / "local" / "default.yaml").write_text("# @package _global_\nnum_threads: 1\n")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "--wheel", "--quiet", "-o", folder, copy], check=True, timeout=120)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_whole_configuration(wheel):
    files = [file.relative_to(ROOT).as_posix() for file in (ROOT / "conf").rglob("*.yaml")]
    shipped = {f"fmnist_lit/{file}" for file in files if not file.startswith("conf/local/")}
    assert len(shipped) > 20
    assert shipped - wheel == set()


def test_wheel_holds_nothing_of_a_machines_own_settings(wheel):
    assert [name for name in wheel if "local" in name] == []


def test_wheel_holds_the_package_and_nothing_else(wheel):
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    assert modules - wheel == set()
    assert {name for name in wheel if name.startswith(("tests/", "conf/", "scripts/", "outputs/"))} == set()
