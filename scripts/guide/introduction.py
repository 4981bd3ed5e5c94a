"""docs/guide/README.md: how much of a difference is luck."""

import numpy as np
from contents import Bilingual, figure, text
from drawing import BLUE, VERMILLION, canvas, finish, note
from matplotlib.figure import Figure
from runs import real, study


@figure
def seeds() -> Figure:
    group = study("seeds").ranked[0]
    fig, axes = canvas(3.0)
    ax = axes[0, 0]
    for row, (split, colour) in enumerate((("test", BLUE), ("val", VERMILLION))):
        values = 100 * np.array(group.figures(f"{split}_accuracy"))
        ax.plot(values, np.full(len(values), row), "o", color=colour, ms=7, alpha=0.7)
        ax.errorbar(values.mean(), row - 0.25, xerr=values.std(ddof=1), fmt="|", color=colour, capsize=4, ms=12, lw=2)
        note(ax, values.mean(), row - 0.47, f"{values.mean():.2f} ± {values.std(ddof=1):.2f}", colour, ha="center")
    ax.set_yticks([0, 1], ["test", "validation"])
    ax.set_ylim(-0.7, 1.4)
    ax.grid(False, axis="y")
    ax.set_xlabel("accuracy (%), a dot is a seed")
    return finish(fig, "The same run with ten seeds: half a point is luck", real("seeds", "10 seeds"))


def spread() -> dict[str, float]:
    """The sample standard deviations of accuracies, fractions, over the seeds."""
    group = study("seeds").ranked[0]
    return {"val": group.std("val_accuracy"), "test": group.std("test_accuracy"), "seeds": group.n}


@text(spread)
def seeds_spread(measured: dict[str, float]) -> Bilingual:
    val, test = (f"{100 * measured[split]:.1f}" for split in ("val", "test"))
    return Bilingual(
        f"{val} points of validation and {test} of test accuracy (standard deviation of {measured['seeds']} seeds)",
        f"验证准确率 {val} 个百分点、测试准确率 {test} 个百分点（{measured['seeds']} 个种子的标准差）",
    )
