"""Run folders and sweeps of today's version, small and without a trace of the machine, for tests/test_compatibility.py.

python scripts/release/make_old_folders.py tests/made_by_0_2
"""

import argparse
import io
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import fmnist_lit
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.sweep.summary import summarize

SMALL = (
    *("data=synthetic", "data.train_size=192", "data.val_size=64", "data.test_size=100", "data.batch_size=16"),
    *("model.hidden_sizes=[2]", "trainer.accelerator=cpu", "num_threads=1"),
)  # 12 steps an epoch
CNN = tuple(word for word in SMALL if "hidden_sizes" not in word)
RATES = "optimizer.lr=0.1,1,1e30"  # of which the last diverges with one seed
RUNS = {
    "completed": (
        *(*SMALL, "optimizer=adam", "scheduler=plateau", "data.normalize=true", "model.dropout=0.1"),
        *("trainer.max_epochs=2", "select.metric=loss/val", "select.mode=min", "tags=[small,old]", "note='as it was'"),
    ),
    "interrupted": (*SMALL, "optimizer=sgd_momentum", "scheduler=one_cycle", "trainer.max_epochs=3"),
    "cnn": (
        *(*CNN, "model=cnn", "model.channels=[2,4]", "model.hidden_size=4"),
        *("optimizer.lr=0.1", "trainer.max_epochs=1"),
    ),
    "debug": (*SMALL, "debug=one_batch"),
}
SWEEPS = {
    "sweep": (*SMALL, RATES, "seed=0,1", "trainer.max_epochs=1", "tags=[old]"),
    "halving": (*SMALL, "optimizer.lr=0.01,0.1,1", "trainer.max_epochs=3", "sweep.halving=3"),
    "search": (
        *(*SMALL, "optimizer.lr=tag(log,interval(1e-3,1))", "trainer.max_epochs=2", "hydra/sweeper=search"),
        *("hydra.sweeper.n_trials=4", "hydra.sweeper.pruner=median", "hydra.sweeper.n_jobs=1"),
        "hydra.sweeper.pruner_options={n_startup_trials: 1}",
    ),
}
KEPT = ("best.ckpt", "last.ckpt", "metrics.csv", "results.json", "val_correct.json", "sweep.json", "study.log")
# A run that gets SIGTERM after 17 steps, in the middle of the second epoch
INTERRUPTED = """
import os, signal, sys
from torch.optim import SGD
from fmnist_lit.__main__ import main
steps, step = [], SGD.step
def counted(*args, **kwargs):
    steps.append(step(*args, **kwargs))
    if len(steps) == 17:
        os.kill(os.getpid(), signal.SIGTERM)
SGD.step = counted
sys.exit(main())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is made anew")
    target = parser.parse_args().folder.absolute()
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary).resolve() / "project"
        project.mkdir()
        checkout = Path(fmnist_lit.__file__).parents[2]
        made_here = {str(project): "/home/person/project", str(checkout): "/home/person/fmnist_lit"}
        for name, words in RUNS.items():
            program = ["-c", INTERRUPTED] if name == "interrupted" else ["-m", "fmnist_lit"]
            run(project, [*program, *words, f"hydra.run.dir={name}"], expected=143 if name == "interrupted" else 0)
        for name, words in SWEEPS.items():
            run(project, ["-m", "fmnist_lit", "-m", *words, f"hydra.sweep.dir={name}"], expected=int(RATES in words))
        shutil.rmtree(target, ignore_errors=True)
        for file in kept_files(project):
            copy = target / file.relative_to(project)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(scrubbed(file, made_here))
    for name in SWEEPS:
        summarize([target / name], charts=False)
        (target / name / "summary.html").unlink()
        page = target / name / "summary.md"  # has the command that draws the charts
        page.write_bytes(scrubbed(page, {str(target): "/home/person/project"}))
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size / 1000:.0f} kB")
    return 0


def run(project: Path, command: list[str], expected: int) -> None:
    """One command in the project, which ends with the exit code that is expected of it."""
    code = subprocess.run([sys.executable, *command], cwd=project, check=False).returncode
    if code != expected:
        raise RuntimeError(f"{shlex.join(command)} ended with {code}, not {expected}")


def kept_files(project: Path) -> Iterator[Path]:
    """What is read again: no logs and no events; of sweeps no checkpoints, which would be most of it."""
    for file in sorted(project.rglob("*")):
        in_sweep = file.relative_to(project).parts[0] in SWEEPS
        wanted = file.name in KEPT or file.parent.name == ".hydra"
        if wanted and file.is_file() and not (in_sweep and file.suffix == ".ckpt"):
            yield file


def scrubbed(file: Path, made_here: dict[str, str]) -> bytes:
    """The content with other folders in place of those of this machine."""
    if file.suffix == ".ckpt":
        content = io.BytesIO()
        torch.save(with_other_folders(load_checkpoint(file), made_here), content)
        return content.getvalue()
    return with_other_folders(file.read_text(encoding="utf-8"), made_here).encode()


def with_other_folders(value: Any, made_here: dict[str, str]) -> Any:
    """The same tree of tensors and plain values, with other folders in its strings."""
    if isinstance(value, str):
        for path, elsewhere in made_here.items():
            value = value.replace(path, elsewhere)
    elif isinstance(value, dict):
        for key in value:  # in its place: torch's state dicts have attributes
            value[key] = with_other_folders(value[key], made_here)
    elif isinstance(value, list | tuple):
        value = type(value)(with_other_folders(item, made_here) for item in value)
    return value


if __name__ == "__main__":
    sys.exit(main())
