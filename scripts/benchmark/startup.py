"""What a command costs before it trains: imports one by one, and whole commands, in seconds of wall clock and of CPU.

    FMNIST_DATA_DIR=… UV_COMPILE_BYTECODE=1 uv run python scripts/benchmark/startup.py
    sudo … python scripts/benchmark/startup.py --cold    # each first run with an empty file cache, which takes root

Each is measured in a new process, with the median of ``--repeats``; they take turns. Without compiled bytecode (.pyc
files) imports take about twice as long.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "torch": "import torch",
    "torchvision.datasets": "import torchvision.datasets",
    "lightning.pytorch": "import lightning.pytorch",
    "hydra": "import hydra",
    "fmnist_lit.command_line, before any check": "import fmnist_lit.command_line.launch",
    "fmnist_lit.train, with all that trains": "import fmnist_lit.train",
}
COMMANDS = {
    "--help": ["--help"],
    "--cfg job": ["--cfg", "job"],
    "a key that does not exist": ["optimizer.rate=1"],
    "a run of one step": ["trainer.max_epochs=1", "trainer.max_steps=1"],
    "a run of one epoch": ["trainer.max_epochs=1"],
}


def measure(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds of wall clock and of CPU that a command takes in ``folder``."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def drop_file_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="also a first run from the disk, of each")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = f"data.data_dir={Path(os.environ.get('FMNIST_DATA_DIR', 'data')).absolute()}"
        subjects = {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
        subjects |= {name: [sys.executable, "-m", "fmnist_lit", *words, data] for name, words in COMMANDS.items()}
        cold = {}
        if args.cold:
            for name, command in subjects.items():
                drop_file_cache()
                cold[name] = measure(command, folder)[0]
        turns = [{name: measure(command, folder) for name, command in subjects.items()} for _ in range(args.repeats)]
    print(f"{'':48}{'wall':>8}{'CPU':>8}{'cold':>8}")
    for name in subjects:
        wall, cpu = (statistics.median(figures) for figures in zip(*(turn[name] for turn in turns), strict=True))
        print(f"{name:48}{wall:8.2f}{cpu:8.2f}" + (f"{cold[name]:8.2f}" if cold else ""))


if __name__ == "__main__":
    main()
