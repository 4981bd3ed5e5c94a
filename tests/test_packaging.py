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
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "--wheel", "--quiet", "-o", folder, ROOT], check=True, timeout=120)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_whole_configuration(wheel):
    shipped = {f"fmnist_lit/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert len(shipped) > 20
    assert shipped - wheel == set()


def test_wheel_holds_the_package_and_nothing_else(wheel):
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}
    assert modules - wheel == set()
    assert {name for name in wheel if name.startswith(("tests/", "conf/", "scripts/", "outputs/"))} == set()
