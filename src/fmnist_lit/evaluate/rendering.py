"""Evaluations for people: a folder of files beside the checkpoint, and several checkpoints in one table."""

import math
from collections.abc import Sequence
from operator import methodcaller
from pathlib import Path

import numpy as np

from fmnist_lit.config.rules import title_of
from fmnist_lit.evaluate.evaluation import Evaluation
from fmnist_lit.report.tables import Cell, escape_markdown, markdown_table
from fmnist_lit.run.files import write_durably, write_json


def write_evaluation(evaluation: Evaluation, images: np.ndarray) -> Path:
    """Put ``evaluation.json``, ``evaluation.md`` and the charts beside the checkpoint.

    Returns:
        The folder.

    Raises:
        OSError: if it cannot be written to.
    """
    from fmnist_lit.evaluate.charts import draw_evaluation  # matplotlib takes its time

    folder = evaluation.trained.folder / "evaluation" / f"{evaluation.trained.file.stem}_{evaluation.split}"
    write_json(folder / "evaluation.json", evaluation.to_json())
    charts = draw_evaluation(evaluation, images)
    for chart in charts:
        write_durably(folder / f"{chart.name}.png", methodcaller("write", chart.png))
    parts = [f"# {escape_markdown(evaluation.title)}", evaluation.summary.split("\n", 1)[1], evaluation.per_class_table]
    parts += [f"![{escape_markdown(chart.caption)}]({chart.name}.png)" for chart in charts]
    write_durably(folder / "evaluation.md", methodcaller("write", ("\n\n".join(parts) + "\n").encode()))
    return folder


def comparison_table(evaluations: Sequence[Evaluation]) -> str:
    """Several evaluations as a Markdown table, the most accurate first."""
    rows = []
    for evaluation in sorted(evaluations, key=lambda evaluation: -evaluation.accuracy):
        worst = min(evaluation.per_class, key=lambda row: math.inf if row["F1"] is None else row["F1"])
        rows.append(
            {
                "checkpoint": Cell(evaluation.trained.name),
                "data": Cell(title_of(evaluation.dataset)),
                "images": Cell(f"{evaluation.samples} {evaluation.split}", evaluation.samples),
                "accuracy": Cell(
                    f"{100 * evaluation.accuracy:.2f} ± {100 * evaluation.standard_error:.2f} %", evaluation.accuracy
                ),
                "loss": Cell(f"{evaluation.loss:.4f}", evaluation.loss),
                "calibration error": Cell(f"{100 * evaluation.calibration_error:.2f} %", evaluation.calibration_error),
                "lowest F1": Cell(f"{worst['class']} {100 * worst['F1']:.1f} %"),
            }
        )
    return markdown_table(rows)
