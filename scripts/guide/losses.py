"""docs/guide/losses.md: its pictures and its measured texts."""

from typing import Any

import matplotlib
import numpy as np
import torch
from contents import TEST, VALIDATION, Bilingual, figure, markdown_table, text
from drawing import (
    BLACK,
    BLUE,
    FORMULA,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    canvas,
    cells,
    finish,
    label_ends,
    log_ticks,
    note,
    ring,
)
from hydra.utils import instantiate
from matplotlib.figure import Figure
from runs import (
    accuracy,
    all_weights,
    best_of,
    groups,
    held_out,
    line,
    percent,
    real,
    shipped,
    study,
    table_of_best,
    validation_logits,
)
from torch import Tensor
from torch.nn import functional as F

from fmnist_lit.data.images import CLASSES
from fmnist_lit.sweep.values import show_value

LOSSES = {
    "cross_entropy": BLACK,
    "label_smoothing": ORANGE,
    "bce_with_logits": BLUE,
    "mse": GREEN,
    "l1": VERMILLION,
}
CHINESE_CLASSES = ("T 恤", "裤子", "套头衫", "连衣裙", "外套", "凉鞋", "衬衫", "运动鞋", "包", "短靴")


def losses_of_one_image(true_logit: Tensor) -> dict[str, Tensor]:
    """Each shipped loss of one image whose true class has these logits (N,), the nine others 0."""
    logits = F.pad(true_logit.unsqueeze(1), (0, 9))
    target = torch.zeros(1, dtype=torch.long)
    made = {name: instantiate(shipped("loss", name)) for name in LOSSES}
    return {name: torch.stack([loss(row.unsqueeze(0), target) for row in logits]) for name, loss in made.items()}


@figure
def losses_shapes() -> Figure:
    z = torch.linspace(-4, 8, 241, dtype=torch.float64, requires_grad=True)
    fig, axes = canvas(4.2, columns=2)
    left, right = axes[0]
    ends = []
    for name, values in losses_of_one_image(z).items():
        (slope,) = torch.autograd.grad(values.sum(), z)
        left.plot(z.detach(), values.detach(), color=LOSSES[name])
        right.plot(z.detach(), slope, color=LOSSES[name])
        ends.append((float(slope[-1]), name, LOSSES[name]))
    left.set_ylim(-0.1, 5)
    left.set_ylabel("loss of the image")
    right.set_ylim(-1.05, 1.5)
    right.set_ylabel("its slope; below 0 it pushes up")
    for ax in (left, right):
        ax.set_xlabel("logit of the true class")
    label_ends(right, ends, gap=0.07)
    title = "Cross entropy and BCE leave a confident right answer alone;\nMSE and L1 pull it back"
    return finish(fig, title, "the nine other logits are 0", FORMULA)


@figure
def outlier_pull() -> Figure:
    errors = np.linspace(-4, 4, 401)
    distance = np.linspace(0, 30, 121)
    samples = [np.append(np.linspace(-1, 1, 9), place) for place in distance]
    fig, axes = canvas(3.9, columns=2)
    left, right = axes[0]
    left.plot(errors, 2 * errors, color=GREEN)
    left.plot(errors, np.sign(errors), color=VERMILLION)
    note(left, -4, 5, "MSE: 2e, without limit", GREEN)
    note(left, 0.3, -2.2, "L1: ±1 however\nlarge e, with a\njump at 0", VERMILLION)
    left.set_xlabel("error e")
    left.set_ylabel("pull of the error: slope of its loss")
    right.plot(distance, [np.mean(sample) for sample in samples], color=GREEN)
    right.plot(distance, [np.median(sample) for sample in samples], color=VERMILLION)
    note(right, 1, 2.5, "MSE fits the mean:\nit follows", GREEN)
    note(right, 30, 0.3, "L1 fits the median: it stays", VERMILLION, ha="right")
    right.set_xlabel("where one of ten values lies")
    right.set_ylabel("best constant fit")
    small_print = "the other nine lie from −1 to 1"
    return finish(fig, "One outlier drags what MSE fits, not what L1 fits", small_print, FORMULA)


@figure
def with_logits() -> Figure:
    x = torch.linspace(0, 130, 521)
    zero = torch.zeros_like(x)
    two_steps = -torch.log(1 - torch.sigmoid(x))
    clamped = F.binary_cross_entropy(torch.sigmoid(x), zero, reduction="none")
    stable = F.binary_cross_entropy_with_logits(x, zero, reduction="none")
    first = float(x[torch.isinf(two_steps)][0])
    leaf = torch.tensor([0.5 * first, first + 4], requires_grad=True)
    F.binary_cross_entropy(torch.sigmoid(leaf), torch.zeros(2), reduction="sum").backward()
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    ax.plot(x, stable, color=BLUE, lw=3)
    ax.plot(x, clamped, color=ORANGE, ls="--")
    ax.plot(x[torch.isfinite(two_steps)], two_steps[torch.isfinite(two_steps)], color=VERMILLION, lw=2.5)
    last = float(two_steps[torch.isfinite(two_steps)][-1])
    ax.plot(first, last, "x", color=VERMILLION, ms=11, mew=3)
    note(ax, first + 3, last - 4, f"log(1 − sigmoid(x)) is log 0 = −inf from x = {first:.0f} on", VERMILLION)
    words = f"BCELoss after a sigmoid: held at 100, gradient {float(leaf.grad[1]):.0f}"
    note(ax, first + 2, 108, words, "#B87A00")
    note(ax, 66, 56, "BCEWithLogitsLoss: exact, slope 1", BLUE)
    ax.set_ylim(-4, 135)
    ax.set_xlabel("logit x of a class that is not the true one")
    ax.set_ylabel("loss")
    return finish(
        fig,
        "Sigmoid, then log, fails just where the answer is most wrong;\nwith logits it does not",
        "float32, target 0",
        "computed by torch; no training",
    )


@figure
def losses_learning_rate() -> Figure:
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    ends = []
    for name, colour in LOSSES.items():
        x, y = line(groups("losses", loss=name), "optimizer.lr")
        best = int(np.nanargmax(y))
        ax.plot(x, y, "o-", color=colour)
        ring(ax, x[best], y[best], colour)
        ends.append((y[best], f"{name}: {show_value(x[best])}, {y[best]:.1f} %", colour))
    log_ticks(ax, x)
    ax.set_ylim(60, 90)
    ax.set_xlabel("learning rate (log scale)")
    ax.set_ylabel("validation accuracy (%)")
    label_ends(ax, ends)
    note(ax, 0.55, 70, "too large:\n10 %, or diverged", GREY)
    title = "Averaged over ten classes, MSE, BCE and L1 want\n3 to 10 times cross entropy's learning rate"
    return finish(
        fig, title, "right: best learning rate, accuracy there", real("losses"), "3 epochs, SGD momentum 0.9, batch 256"
    )


@figure
def losses_epochs() -> Figure:
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    ends = []
    for name, colour in LOSSES.items():
        best = groups("losses", loss=name)[0]
        curve = best.jobs[0].curve
        y = [100 * value for value in curve.values()]
        ax.plot(list(curve), y, "o-", color=colour)
        ends.append((y[-1], f"{name} {y[-1]:.1f} %", colour))
    ax.set_xticks(list(curve))
    ax.set_xlabel("epoch")
    ax.set_ylabel("validation accuracy (%)")
    label_ends(ax, ends)
    title = "Tuned, four losses end within a point of each other;\nL1 stays behind"
    return finish(fig, title, real("losses"), "SGD momentum 0.9, batch 256")


@figure
def losses_classes() -> Figure:
    labels = held_out()[1]
    grid = []
    for name in LOSSES:
        right = validation_logits(groups("losses", loss=name)[0].jobs[0]).argmax(1) == labels
        grid.append([100 * float(right[labels == index].float().mean()) for index in range(len(CLASSES))])
    fig, axes = canvas(3.9)
    ax = axes[0, 0]
    cells(ax, np.array(grid)[::-1], [name.replace("T-shirt/top", "T-shirt") for name in CLASSES], [*LOSSES][::-1], 40)
    ax.tick_params(axis="x", rotation=35)
    missed = CLASSES[int(np.argmin(grid[-1]))].lower()
    title = f"L1 gives up on a class: it finds {min(grid[-1]):.0f} % of the {missed}s"
    return finish(fig, title, "% of each class that is found", real("losses"), "best learning rates")


@figure
def losses_hardest() -> Figure:
    labels = held_out()[1]
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    share = 100 * np.arange(1, len(labels) + 1) / len(labels)
    ends, tenth = [], {}
    for name in ("cross_entropy", "bce_with_logits", "mse", "l1"):  # whose smallest loss is 0
        logits = validation_logits(groups("losses", loss=name)[0].jobs[0])
        loss = instantiate(shipped("loss", name))
        each = torch.stack([loss(row, label) for row, label in zip(logits.split(1), labels.split(1), strict=True)])
        carried = 100 * np.cumsum(each.sort(descending=True).values.numpy()) / float(each.sum())
        shown = share <= 30
        ax.plot(share[shown], carried[shown], color=LOSSES[name])
        ends.append((carried[shown][-1], name, LOSSES[name]))
        tenth[name] = carried[share <= 10][-1]
        ax.plot(10, tenth[name], "o", color=LOSSES[name])
    ax.set_xlim(0, 30)
    ax.set_ylim(0, 100)
    ax.set_xlabel("hardest images (% of all, by this loss)")
    ax.set_ylabel("share of the loss they carry (%)")
    label_ends(ax, ends)
    ce, mse, l1 = (f"{tenth[name]:.0f} %" for name in ("cross_entropy", "mse", "l1"))
    title = f"The hardest tenth of the images makes {ce} of cross entropy,\n{mse} of MSE, {l1} of L1"
    return finish(fig, title, real("losses"), "best learning rates")


@figure
def label_smoothing() -> Figure:
    fig, axes = canvas(3.7)
    ax = axes[0, 0]
    certain = {}
    for name in ("cross_entropy", "label_smoothing"):
        sure = validation_logits(groups("losses", loss=name)[0].jobs[0]).softmax(1).max(1).values.numpy()
        certain[name] = 100 * (sure > 0.98).mean()
        ax.hist(sure, bins=np.linspace(0, 1, 51), histtype="stepfilled", color=LOSSES[name], alpha=0.6)
    ax.set_xlim(0.2, 1)
    note(ax, 0.97, 1900, f"cross_entropy: {certain['cross_entropy']:.0f} % are above 0.98", BLACK, ha="right")
    note(ax, 0.93, 750, f"label_smoothing: {certain['label_smoothing']:.0f} %", "#B87A00", ha="right")
    ax.set_xlabel("probability that the network gives its answer")
    ax.set_ylabel("validation images")
    return finish(fig, "Label smoothing keeps the network from being certain", real("losses"), "best learning rates")


@figure
def l1_penalty() -> Figure:
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    ends, limits = [], np.logspace(-7, 0, 141)
    found = sorted(study("l1_penalty").groups, key=lambda group: group.settings["regularization.l1"])
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(found)))
    for group, colour in zip(found, shades, strict=True):
        sizes = np.sort(all_weights(group.jobs[0]).abs().numpy())
        share = 100 * np.searchsorted(sizes, limits) / len(sizes)
        ax.plot(limits, share, color=colour)
        factor = group.settings["regularization.l1"]
        ends.append((share[np.searchsorted(limits, 1e-3)], f"l1={show_value(factor)}: {accuracy(group):.1f} %", colour))
    ax.set_xscale("log")
    ax.set_xlim(1e-7, 1)
    ax.set_xlabel("size of a weight (log scale)")
    ax.set_ylabel("weights smaller than that (%)")
    label_ends(ax, ends)
    return finish(
        fig, "The L1 penalty empties the network, at first almost for free", real("l1_penalty"), "668,672 weights"
    )


@text(lambda: best_of("losses", "loss", list(LOSSES)))
def losses_best(rows: list[dict[str, Any]]) -> Bilingual:
    return table_of_best("loss", "`{}`", rows)


def cross_entropy_less_nll() -> float:
    """How far the two losses are apart on the logits of a trained network."""
    logits = validation_logits(groups("losses", loss="cross_entropy")[0].jobs[0])
    losses = [instantiate(shipped("loss", name))(logits, held_out()[1]) for name in ("cross_entropy", "nll")]
    return float((losses[0] - losses[1]).abs())


@text(cross_entropy_less_nll)
def nll_difference(measured: float) -> Bilingual:
    difference = f"{measured:.0e}"
    return Bilingual(*(difference.replace("0e+00", exactly) for exactly in ("exactly 0", "0（完全相等）")))


def class_that_l1_loses() -> dict[str, int]:
    """The class of which the network that L1 trained finds the smallest share of its validation images."""
    labels = held_out()[1]
    answers = validation_logits(groups("losses", loss="l1")[0].jobs[0]).argmax(1)
    counts = [(int((answers[labels == i] == i).sum()), int((labels == i).sum())) for i in range(len(CLASSES))]
    worst = min(range(len(CLASSES)), key=lambda i: counts[i][0] / counts[i][1])
    return {"class": worst, "found": counts[worst][0], "images": counts[worst][1]}


@text(class_that_l1_loses)
def l1_lost_class(measured: dict[str, int]) -> Bilingual:
    worst, found, there_are = (measured[key] for key in ("class", "found", "images"))
    return Bilingual(
        f"{found} of the {there_are} {CLASSES[worst].lower()}s",
        f"{CHINESE_CLASSES[worst]}图片只有 {found} 张（共 {there_are} 张）",
    )


def small_weights() -> list[dict[str, float]]:
    """Of each factor of the penalty: the shares of weights that are small, and the accuracies, all fractions."""
    rows = []
    for group in sorted(study("l1_penalty").groups, key=lambda group: group.settings["regularization.l1"]):
        sizes = all_weights(group.jobs[0]).abs()
        small = {f"below_{limit:.0e}": float((sizes < limit).float().mean()) for limit in (1e-4, 1e-3)}
        figures = {split: accuracy(group, split) / 100 for split in ("val", "test")}
        rows.append({"factor": group.settings["regularization.l1"], **small, **figures})
    return rows


@text(small_weights)
def l1_penalty_table(measured: list[dict[str, float]]) -> Bilingual:
    rows = [[show_value(row.pop("factor")), *map(percent, row.values())] for row in map(dict, measured)]
    below = Bilingual("weights below 1e-4", "小于 1e-4 的权重"), Bilingual("below 1e-3", "小于 1e-3 的权重")
    return markdown_table(["`regularization.l1`", *below, VALIDATION, TEST], rows)
