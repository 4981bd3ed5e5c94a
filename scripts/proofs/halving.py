"""Halving finds the winner of the whole grid, to the bit, in a third of the training: a study with it and without.

    FMNIST_DATA_DIR=… uv run python scripts/proofs/halving.py outputs/halving study=optimizers trainer.max_epochs=9

Runs both sweeps into the folder, or goes on with them, and says which jobs won, after how much training, and where the
winner of the whole grid was after each round. It fails if the winners differ.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmnist_lit.sweep.halving import configurations, figure_at
from fmnist_lit.sweep.plan import read_plan
from fmnist_lit.sweep.table import RankedGroup, SweepTable, collect


def run(folder: Path, *words: str) -> SweepTable:
    """A sweep, or what is missing of it. Jobs that diverge make it exit with 1."""
    subprocess.run([sys.executable, "-m", "fmnist_lit", "-m", *words, f"hydra.sweep.dir={folder}"], check=False)
    return collect([folder])


def trained(table: SweepTable) -> int:
    """Epochs that the jobs of a sweep have trained."""
    files = [job.run_dir / "metrics.csv" for job in table.jobs]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) - 1 for file in files if file.exists())


def weights(group: RankedGroup) -> list[Any]:
    """The digests of the weights that were tested."""
    files = [job.run_dir / "results.json" for job in group.counted]
    return [json.loads(file.read_text(encoding="utf-8"))["weights_sha256"] for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="for both sweeps")
    parser.add_argument("words", nargs="+", help="of the sweep's command line")
    args = parser.parse_args()
    folder, words = args.folder, args.words
    whole = run(Path(folder) / "whole", *words)
    halved = run(Path(folder) / "halved", *words, "sweep.halving=3")
    plan = read_plan(halved.sweep_dir)
    assert plan.halving is not None
    print(f"{len(whole.jobs)} jobs")
    print(f"winner of the whole grid: {whole.ranked[0].settings}")
    print(f"winner with halving:      {halved.ranked[0].settings}")
    print(f"epochs trained: {trained(whole)} and {trained(halved)}, {trained(halved) / trained(whole):.2f}")
    winners = {job.folder for job in whole.ranked[0].jobs}
    for rung in plan.halving.rungs:
        figures = {}
        for numbers in configurations(plan):
            figure = figure_at(whole.sweep_dir, plan, numbers, rung, whole.criterion)
            figures[plan.jobs[numbers[0]].folder] = float("inf") if figure is None else whole.criterion.cost(figure)
        place = sorted(figures, key=figures.__getitem__).index(next(iter(winners & figures.keys()))) + 1
        print(f"after epoch {rung}: the winner of the whole grid is number {place} of {len(figures)}")
    if weights(whole.ranked[0]) != weights(halved.ranked[0]):
        sys.exit("Halving was misled: the winner of the whole grid had not shown it early.")
    print("The same winner, with the same weights to the bit.")


if __name__ == "__main__":
    main()
