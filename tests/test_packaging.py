import zipfile
from pathlib import Path

import pytest

import fmnist_lit

ROOT = Path(fmnist_lit.__file__).parents[2]


@pytest.fixture
def names(wheel) -> set[str]:
    """The names in the wheel that this project builds."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


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
