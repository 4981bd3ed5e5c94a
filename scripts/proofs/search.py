"""Kill a search of 40 trials five times at random, go on each time, and compare with one that was left alone.

python scripts/proofs/search.py [FOLDER] [hydra.sweeper.sampler=random …]
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sweep_resumes import outcome, without_times

from fmnist_lit.run.study import open_study
from fmnist_lit.sweep.plan import read_plan

TRIALS, KILLS = 40, 5
COMMAND = [
    *(sys.executable, "-m", "fmnist_lit", "-m", "hydra/sweeper=search", f"hydra.sweeper.n_trials={TRIALS}"),
    *("num_threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.checkpoint_every_n_steps=20"),
    *("data.train_size=2000", "data.val_size=1000", "data.test_size=500", "model.dropout=0.2", "logger=csv"),
    *("optimizer=sgd,adam", "data.batch_size=16,32,64", "optimizer.lr=tag(log,interval(1e-3,1))"),
    "hydra.sweeper.when=['optimizer=adam optimizer.lr=tag(log,interval(1e-5,1e-1))']",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="for both sweeps; a new temporary one if not given")
    parser.add_argument("overrides", nargs="*", help="further words of the command line")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="search_"))
    folder.mkdir(parents=True, exist_ok=True)
    whole, broken, chance = folder / "whole", folder / "broken", random.Random()
    begun = time.monotonic()
    start(whole, args.overrides).wait()
    seconds = time.monotonic() - begun
    print(f"left alone: {len(ended(whole))} trials in {seconds:.0f} s", flush=True)
    for _ in range(KILLS):
        process = start(broken, args.overrides)
        before = len(ended(broken))
        while len(ended(broken)) < before + 2:  # it has come to where it was
            assert process.poll() is None, "ended before it was killed"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, seconds / (KILLS + 1) / 2))
        assert process.poll() is None, "ended before it was killed"
        process.kill()
        process.wait()
        print(f"killed with {len(ended(broken))} trials ended", flush=True)
    code = start(broken, args.overrides).wait()
    print(f"to the end: exit code {code}")
    jobs = read_plan(broken).jobs
    assert jobs == read_plan(whole).jobs
    assert len(set(jobs)) == len(jobs) == TRIALS
    assert len(list(broken.glob("*/results.json"))) == TRIALS
    print(f"{TRIALS} distinct trials, the same as those of the search that was left alone")
    for job in jobs:
        assert outcome(broken / job.folder) == outcome(whole / job.folder), job.folder
    print("their weights, figures and curves are the same, bit for bit")
    for name in ("summary.csv", "summary.md", "summary.html"):
        assert without_times(broken / name) == without_times(whole / name), name
    print("summary.csv, summary.md and summary.html are the same but for times")
    studies = [open_study(place, "max")[0] for place in (broken, whole)]
    values = [[(trial.params, trial.value, trial.state) for trial in study.trials] for study in studies]
    assert values[0] == values[1]
    print("the two studies hold the same")


def start(folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen([*COMMAND, *overrides, f"hydra.sweep.dir={folder}"], stdout=log, stderr=log)


def ended(folder: Path) -> list[str]:
    """The jobs that have ended, as the summary says."""
    if not (folder / "summary.csv").exists():
        return []
    with open(folder / "summary.csv", newline="") as file:
        return [row["folder"] for row in csv.DictReader(file) if row["status"] in ("completed", "diverged")]


if __name__ == "__main__":
    main()
