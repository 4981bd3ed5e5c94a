"""``metrics.csv``: a row an epoch."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from fmnist_lit.loggers.base import SPLITS, RunLogger
from fmnist_lit.run.files import write_durably


class CSVLogger(RunLogger):
    """Keeps ``metrics.csv``, a row an epoch, whole after every epoch.

    A row replaces those of its own and of later epochs, so that a run which is resumed leaves none double.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None or "accuracy/train" not in metrics:  # the test at the end is in results.json
            return
        row: dict[str, Any] = {"epoch": step}
        for split in SPLITS:
            if split != "test" or "accuracy/test" in metrics:
                row[f"{split}_accuracy"] = metrics.get(f"accuracy/{split}")
                row[f"{split}_loss"] = metrics.get(f"loss/{split}")
        row |= {"lr": metrics["lr"], "seconds": round(metrics["seconds"], 3)}
        rows = []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                rows = [earlier for earlier in csv.DictReader(file) if int(earlier["epoch"]) < step]
        text = io.StringIO()
        names = dict.fromkeys([*row, *(name for earlier in rows for name in earlier)])  # not every epoch is evaluated
        writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_durably(self.path, lambda file: file.write(text.getvalue().encode()))
