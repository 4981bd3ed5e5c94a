"""Every verb on a system that lacks what Windows lacks; only hosted CI has the real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL
from interruptions import results, rows

WINDOWS = Path(__file__).parent / "windows"
FAST = (*SMALL[:-2], "num_threads=1")


def on_windows(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(WINDOWS), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment, "PYTHONPATH": path},
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8").split(":")[0],
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a run has been trained."""
    folder = tmp_path_factory.mktemp("windows")
    ended = on_windows(folder, "fmnist_lit", *FAST, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert (ended.returncode, ended.stderr) == (0, "")
    return folder


def test_run_is_trained(folder):
    assert results(folder / "run")["status"] == "completed"
    assert {file.name for file in (folder / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not list(folder.rglob("*.tmp"))


def test_run_is_resumed(folder):
    ended = on_windows(folder, "fmnist_lit", "ckpt_path=run", "trainer.max_epochs=3")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [row["epoch"] for row in rows(folder / "run")] == ["1", "2", "3"]


def test_sweep_is_run_and_summed_up_again(folder):
    ended = on_windows(
        folder, "fmnist_lit", "-m", *FAST, "logger=csv", "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=sweep"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    before = (folder / "sweep" / "summary.csv").read_bytes()
    assert on_windows(folder, "fmnist_lit.sweep", "sweep").returncode == 0
    assert (folder / "sweep" / "summary.csv").read_bytes() == before


def test_processes_are_spawned(folder):
    """No server to fork them is there."""
    words = ("fmnist_lit", *FAST, "logger=csv", "trainer=ddp", "trainer.max_epochs=1", "hydra.run.dir=ddp")
    ended = on_windows(folder, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert results(folder / "ddp")["status"] == "completed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("fmnist_lit", "--help"), 0),
        (("fmnist_lit", "optimizer.lr=nan"), 2),
        (("fmnist_lit", "ckpt_path=nowhere"), 2),
        (("fmnist_lit", "hydra.run.dir=run"), 2),
        (("fmnist_lit.find_lr", *FAST, "optimizer=adam"), 0),
        (("fmnist_lit.find_lr", "--steps", "1"), 2),
        (("fmnist_lit.evaluate", "run"), 0),
        (("fmnist_lit.evaluate", "nowhere"), 2),
        (("fmnist_lit.predict", "run", "garment.png"), 0),
        (("fmnist_lit.predict", "run", "missing.png"), 1),
        (("fmnist_lit.export", "run", "--format", "torch"), 0),
        (("fmnist_lit.sweep", "run"), 2),
        (("fmnist_lit.demo", "nowhere"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_verb_does_what_it_does_elsewhere(folder, words, code):
    from PIL import Image

    Image.new("L", (28, 28), 40).save(folder / "garment.png")
    ended = on_windows(folder, *words, PYTHONIOENCODING="cp1252:strict")
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_stand_in_lacks_what_it_should(tmp_path):
    """Else this file would prove nothing."""
    (tmp_path / "fmnist_lit_probe.py").write_text(
        "import os, signal, sys\n"
        "print(sys.platform, hasattr(signal, 'SIGUSR1'), hasattr(os, 'fork'), 'SIGHUP' in signal.Signals.__members__)\n"
        "try:\n    import resource\nexcept ImportError:\n    print('absent')\n",
        encoding="utf-8",
    )
    (tmp_path / "probe.py").write_text("import fmnist_lit_probe, signal, sys; print(sys.platform != 'win32')")
    assert on_windows(tmp_path, "probe").stdout.split() == ["win32", "False", "False", "False", "absent", "True"]
