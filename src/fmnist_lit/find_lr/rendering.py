"""The picture of a range test, and the files that keep it."""

import csv
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_lit.find_lr.curve import Curve, Finding
from fmnist_lit.report.charts import BEST, COLOURS, MUTED, Chart, canvas, chart_style, to_png
from fmnist_lit.run.files import write_durably, write_json, write_text

HEADROOM = 0.25  # above the loss at the start, as a share of how far it fell


def draw_curve(curve: Curve, finding: Finding, title: str) -> Chart:
    """The loss against the learning rate on a log axis, with the suggestion marked."""
    rates, losses, smoothed = map(np.array, (curve.rates, curve.losses, curve.smoothed))
    with chart_style():
        fig = canvas(4.2)
        ax = fig.subplots()
        ax.plot(rates, losses, ".", color=MUTED, label="loss of a step")
        ax.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
        if finding.suggestion is not None:
            at = float(smoothed[curve.rates.index(finding.suggestion)])
            ax.axvline(finding.suggestion, color=BEST, linestyle=":")
            ax.plot(finding.suggestion, at, "o", color=BEST, label=f"suggestion {finding.suggestion:.2g}")
        low, start = float(losses.min()), float(losses[0])
        height = max(start - low, 0.05 * abs(start))
        ax.set_ylim(low - 0.05 * height, start + HEADROOM * height)  # what blows up leaves the picture
        ax.set_xscale("log")
        powers = range(math.floor(math.log10(rates[0])), math.ceil(math.log10(rates[-1])) + 1)
        ax.set_xticks([10.0**power for power in powers], [f"{10.0**power:g}" for power in powers])
        ax.set_xlim(rates[0] / 1.2, rates[-1] * 1.2)
        ax.set_xlabel("learning rate (log scale), higher at each step")
        ax.set_ylabel("training loss")
        fig.legend(loc="outside lower center", ncols=3)
        fig.suptitle(textwrap.fill(title, 72), fontsize=11)
        return Chart("find_lr", title, to_png(fig))


def write_range_test(folder: Path, curve: Curve, chart: Chart, facts: dict[str, Any]) -> None:
    """``find_lr.png``, ``find_lr.csv`` with a row a step, and ``find_lr.json`` with everything else."""
    write_durably(folder / "find_lr.png", lambda file: file.write(chart.png))
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    write_text(folder / "find_lr.csv", table(("lr", "loss", "smoothed_loss"), rows))
    write_json(folder / "find_lr.json", facts)


def table(header: Sequence[str], rows: Any) -> str:
    """CSV."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return content.getvalue()
