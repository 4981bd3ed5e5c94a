"""The charts of an evaluation: confusion matrix, reliability diagram, and the most confident mistakes."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fmnist_lit.evaluate.evaluation import NUM_BINS, Evaluation
from fmnist_lit.report.charts import COLOURS, Chart, canvas, chart_style, to_png

COLUMNS = 6  # of the gallery
DPI = 100


def draw_evaluation(evaluation: Evaluation, images: np.ndarray) -> list[Chart]:
    """The charts of an evaluation; ``images`` (N, 28, 28) uint8 are those of the split."""
    with chart_style():
        charts = [confusion_matrix(evaluation), reliability_diagram(evaluation)]
        return charts + ([mistakes_gallery(evaluation, images)] if evaluation.mistakes else [])


def confusion_matrix(evaluation: Evaluation) -> Chart:
    """Counts, coloured by the share of the true class."""
    fig = canvas(7.2, 7.6, DPI)
    ax = fig.subplots()
    ax.grid(False)
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ax.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )
    ticks = range(len(evaluation.classes))
    ax.set_xticks(ticks, evaluation.classes, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(ticks, evaluation.classes)
    ax.set_xticks([tick - 0.5 for tick in ticks[1:]], minor=True)
    ax.set_yticks([tick - 0.5 for tick in ticks[1:]], minor=True)
    ax.grid(which="minor", color="#DDD", alpha=1, linewidth=0.6)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    caption = f"Confusion matrix, accuracy {100 * evaluation.accuracy:.2f} %"
    return captioned_chart(fig, evaluation, "confusion_matrix", caption)


def reliability_diagram(evaluation: Evaluation) -> Chart:
    """Accuracy against confidence, over how many predictions have that confidence."""
    fig = canvas(6.4, 6.4, DPI)
    ax, below = fig.subplots(2, sharex=True, height_ratios=(3, 1))
    filled = [b for b in evaluation.bins if b.samples]
    middles = [(b.lower + b.upper) / 2 for b in filled]
    width = 0.94 / NUM_BINS
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfectly calibrated")
    ax.bar(middles, [b.accuracy for b in filled], width, color=COLOURS[0], alpha=0.75, label="accuracy")
    ax.plot(
        [b.confidence for b in filled],
        [b.accuracy for b in filled],
        "o",
        color="black",
        markersize=4,
        label="at the mean confidence of the bin",
    )
    ax.set_ylabel("accuracy")
    ax.set_ylim(0, 1)
    ax.legend(loc="upper left")
    below.bar(middles, [b.samples for b in filled], width, color=COLOURS[0], alpha=0.75)
    below.set_ylabel("images")
    below.set_xlabel("confidence: probability of the predicted class")
    below.set_xlim(0, 1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    caption = f"Reliability, expected calibration error {100 * evaluation.calibration_error:.2f} % ({NUM_BINS} bins)"
    return captioned_chart(fig, evaluation, "reliability", caption)


def mistakes_gallery(evaluation: Evaluation, images: np.ndarray) -> Chart:
    """The most confident mistakes, the worst first."""
    shown = evaluation.mistakes
    rows = -(-len(shown) // COLUMNS)
    fig = canvas(0.9 + 2.2 * rows, 1.75 * COLUMNS, DPI)
    axes = fig.subplots(rows, COLUMNS, squeeze=False).flatten()
    for ax in axes:
        ax.set_axis_off()
    for ax, mistake in zip(axes, shown, strict=False):
        ax.imshow(images[mistake.index], cmap="gray", vmin=0, vmax=255)
        true, predicted = (evaluation.classes[index] for index in (mistake.true, mistake.predicted))
        ax.set_title(f"is {true}\n{predicted} {100 * mistake.probability:.1f} %\n#{mistake.index}", fontsize=10)
    caption = f"The {len(shown)} most confident mistakes: what each is, and what it was taken for"
    return captioned_chart(fig, evaluation, "mistakes", caption)


def captioned_chart(fig: Figure, evaluation: Evaluation, name: str, caption: str) -> Chart:
    """Put caption and title above the axes, and render the chart."""
    columns = int(fig.get_figwidth() * 11)  # about as many letters fit
    fig.suptitle(f"{caption}\n{textwrap.shorten(evaluation.title, columns, placeholder='…')}", fontsize=11)
    return Chart(name, caption, to_png(fig))
