"""What a sweep costs beyond the training of its jobs: planning, composing, folders, summaries, pictures.

    UV_COMPILE_BYTECODE=1 uv run python scripts/benchmark/sweeps.py --jobs 20 60 1000

Each is a sweep of so many small jobs over the learning rate, one step each. Of the last sweep a job is then removed,
and the same command is given again, which has to find it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = (
    *("data=synthetic", "data.train_size=64", "data.val_size=32", "data.test_size=32", "num_threads=1"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu"),
)


def sweep(folder: Path, jobs: int) -> tuple[float, float]:
    """Run a sweep; when it began and when it had ended, of ``time.time``."""
    rates = ",".join(f"{0.0001 * number:.4f}" for number in range(1, jobs + 1))
    words = [sys.executable, "-m", "fmnist_lit", "-m", *JOB, f"optimizer.lr={rates}", f"hydra.sweep.dir={folder}"]
    start = time.time()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return start, time.time()


def ends(folder: Path) -> list[tuple[float, float, float]]:
    """Of each job when it started, when it ended, and how long it trained, in the order in which they ran."""
    found = []
    for file in folder.glob("*/results.json"):
        seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
        found.append((started(file.parent), file.stat().st_mtime, seconds))
    return sorted(found, key=lambda job: job[1])


def started(run_dir: Path) -> float:
    """When Hydra wrote a job's configuration."""
    return (run_dir / ".hydra" / "hydra.yaml").stat().st_mtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[20, 60])
    args = parser.parse_args()
    print(f"{'jobs':>6}{'wall':>9}{'until the first':>17}{'a job, beyond its training':>28}{'after the last':>16}")
    with tempfile.TemporaryDirectory() as parent:
        for jobs in args.jobs:
            folder = Path(parent) / f"{jobs}"
            start, end = sweep(folder, jobs)
            ran = ends(folder)
            trained = sum(seconds for _, _, seconds in ran[1:])
            each = (ran[-1][1] - ran[0][1] - trained) / (jobs - 1)  # the first one imports torch and Lightning
            first, last = ran[0][0] - start, end - ran[-1][1]
            print(f"{jobs:6}{end - start:9.1f}{first:17.1f}{each:28.3f}{last:16.1f}", flush=True)
        missing = sorted(folder.glob("optimizer.lr=*"))[jobs // 2]
        shutil.rmtree(missing)
        start, _ = sweep(folder, jobs)
        print(f"{started(missing) - start:.1f} s until the one that is missing of {jobs} has started")


if __name__ == "__main__":
    main()
