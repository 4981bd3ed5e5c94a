"""Make the pictures and the figures of docs/guide from real runs.

    FMNIST_DATA_DIR=… uv run python scripts/guide_figures.py

Runs the studies that the guide shows, each into outputs/guide/STUDY, where what is done already is not done again;
then draws docs/guide/images/*.png and rewrites what stands between `<!-- measured: NAME -->` and `<!-- end -->` in the
texts. `--only NAME …` makes those pictures and figures alone, `--no-runs` takes the studies as they are.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from guide_drawing import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLE,
    VERMILLION,
    canvas,
    cells,
    finish,
    frame,
    label_ends,
    log_ticks,
    note,
    ring,
)
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import CLASSES
from fmnist_lit.command_line.prepare import CONF
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable, collect
from fmnist_lit.sweep.values import show_value

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "guide"
GUIDE = ROOT / "docs" / "guide"
MARKERS = re.compile(r"(<!-- measured: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)

STUDIES = (  # together about 40 minutes of one core
    *("seeds", "losses", "momentum", "sgd_lr", "weight_decay", "overfitting", "l1_penalty", "schedulers"),
    *("lr_batch_size", "optimizers"),
)
LOSSES = {
    "cross_entropy": BLACK,
    "label_smoothing": ORANGE,
    "bce_with_logits": BLUE,
    "mse": GREEN,
    "l1": VERMILLION,
}
OPTIMIZERS = {
    "sgd": BLACK,
    "sgd_momentum": BLUE,
    "sgd_nesterov": SKY,
    "adagrad": ORANGE,
    "rmsprop": PURPLE,
    "adam": VERMILLION,
    "adamw": "#7A3B00",
    "muon": GREEN,
}
FORMULA = "computed from the formula; no training"

FIGURES: dict[str, Callable[[], Figure]] = {}
TEXTS: dict[str, Callable[[], str]] = {}


class NotRunError(RuntimeError):
    """A study without results on the real data."""


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function that draws the picture of its name."""
    FIGURES[draw.__name__] = draw
    return draw


def text(write: Callable[[], str]) -> Callable[[], str]:
    """Register a function that writes the measured text of its name, in Markdown."""
    TEXTS[write.__name__] = write
    return write


# ---------------------------------------------------------------------------------------------- what the runs left


@cache
def study(name: str) -> SweepTable:
    """The results of a study on the real data."""
    folder = RUNS / name
    if not (folder / "sweep.json").is_file():
        raise NotRunError(f"study={name} has not been run")
    table = collect([folder])
    if table.datasets != ["fashion_mnist"]:
        raise NotRunError(f"study={name} ran on {table.datasets}, not on Fashion-MNIST; delete {folder}")
    return table


def groups(name: str, **settings: object) -> list[Group]:
    """The groups of a study with these settings (``optimizer_lr`` is optimizer.lr), the best on validation first."""
    wanted = {key.replace("_", ".", 1): value for key, value in settings.items()}
    return [group for group in study(name).groups if all(group.settings[key] == value for key, value in wanted.items())]


def accuracy(group: Group, split: str = "val") -> float:
    """Mean accuracy in %; NaN where the run diverged."""
    return 100 * group.mean(f"{split}_accuracy") if isinstance(group, RankedGroup) else float("nan")


def line(found: Sequence[Group], key: str, split: str = "val") -> tuple[list[float], list[float]]:
    """A key's values and the accuracies in % there, sorted by value; one point a value, the best."""
    points: dict[float, Group] = {}
    for group in found:
        points.setdefault(group.settings[key], group)
    values = sorted(points)
    return values, [accuracy(points[value], split) for value in values]


def metrics(job: Job) -> dict[str, np.ndarray]:
    """The columns of a job's metrics.csv."""
    with open(job.run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def checkpoint(job: Job, which: str = "best") -> dict:
    """A job's checkpoint."""
    return load_checkpoint(job.run_dir / "checkpoints" / f"{which}.ckpt")


def all_weights(job: Job, which: str = "best") -> Tensor:
    """The entries of all weight matrices of a job, without the biases, as one vector."""
    state = checkpoint(job, which)["state_dict"]
    return torch.cat([tensor.flatten() for name, tensor in state.items() if name.endswith("weight")])


@cache
def held_out() -> tuple[Tensor, Tensor]:
    """The 5,000 validation images and their labels."""
    data = FashionMNISTDataModule("fashion_mnist", os.environ.get("FMNIST_DATA_DIR", "data"))
    data.setup()
    return data.scale(data.val_images.pixels), data.val_images.labels


def trained(job: Job, which: str = "best") -> nn.Sequential:
    """The network of a job with its weights."""
    content = checkpoint(job, which)
    model = instantiate(content["hyper_parameters"]["model"]).eval()
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()})
    return model


@torch.no_grad()
def validation_logits(job: Job) -> Tensor:
    """What the best weights of a job say to the validation images, (5000, 10)."""
    return trained(job)(held_out()[0])


def real(name: str, seeds: str = "1 seed", images: str = "55,000") -> str:
    """The small print of a picture of a study, which says if jobs are missing."""
    jobs = study(name).jobs
    missing = sum(job.status not in ("completed", "diverged") for job in jobs)
    told = [f"{DATASETS['fashion_mnist']}, {images} training, 5,000 validation images", seeds, f"study={name}"]
    return "; ".join([*told, *([f"{missing} of {len(jobs)} jobs not run"] if missing else [])])


@cache
def shipped(group: str, option: str) -> DictConfig:
    """An option of the shipped configuration."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"{group}={option}"])[group]


# -------------------------------------------------------------------------------------------------------- losses


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


# ---------------------------------------------------------------------------------------------------- optimisers


def descend(name: str, lr: float, steps: int, curvature: Tensor) -> Tensor:
    """The path (steps + 1, 2) of a shipped optimiser from (−9, 2) down a valley with its bottom at 0."""
    point = nn.Parameter(torch.tensor([-9.0, 2.0]))
    optimizer = instantiate(shipped("optimizer", name), lr=lr, _convert_="all")([("point", point)])
    path = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (curvature * point**2).sum()).backward()
        optimizer.step()
        path.append(point.detach().clone())
    return torch.stack(path)


@figure
def optimizer_paths() -> Figure:
    steps, curvature = 40, torch.tensor([1.0, 30.0])
    fig, axes = canvas(4.6, columns=2, rows=2, sharex=True, sharey=True)
    x, y = np.meshgrid(np.linspace(-10, 4, 100), np.linspace(-2.4, 2.4, 80))
    for ax, name in zip(axes.flat, ("sgd", "sgd_momentum", "sgd_nesterov", "adam"), strict=True):
        paths = {lr: descend(name, lr, steps, curvature) for lr in (0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.3, 0.6)}
        lr, path = min(paths.items(), key=lambda item: float(item[1][-10:].norm(dim=1).nan_to_num(1e9, 1e9).mean()))
        ax.contour(x, y, 0.5 * (x**2 + 30 * y**2), levels=[1, 4, 12, 30, 60, 100], colors="#C9CDD3", linewidths=1)
        ax.plot(path[:, 0], path[:, 1], "o-", color=OPTIMIZERS[name], ms=3, lw=1.3)
        ax.plot(0, 0, "*", color=ORANGE, ms=13)
        ax.set_title(f"{name}, lr {lr}: {float(path[-1].norm()):.2f} away", fontsize=10.5)
        ax.grid(False)
        ax.set_xlim(-10, 4)
        ax.set_ylim(-2.4, 2.4)
    title = (
        f"{steps} steps down a narrow valley: SGD zigzags, momentum swings,\n"
        "Nesterov damps the swing, Adam evens out the directions"
    )
    how = "each at the best of nine learning rates, its distance from the star at the end"
    return finish(fig, title, "torch's optimisers on (x² + 30 y²)/2; no training", how)


@figure
def optimizers_learning_rate() -> Figure:
    fig, axes = canvas(5.3, columns=2, sharey=True)
    families = (("sgd", "sgd_momentum", "sgd_nesterov", "adagrad"), ("rmsprop", "adam", "adamw", "muon"))
    for ax, family in zip(axes[0], families, strict=True):
        tried: set[float] = set()
        for name in family:
            x, y = line(groups("optimizers", optimizer=name), "optimizer.lr")
            best = int(np.nanargmax(y))
            ax.plot(x, y, "o-", color=OPTIMIZERS[name], label=f"{name}: {show_value(x[best])}, {y[best]:.1f} %")
            ring(ax, x[best], y[best], OPTIMIZERS[name])
            tried.update(x)
        log_ticks(ax, sorted(tried))
        ax.tick_params(axis="x", rotation=45)
        ax.set_ylim(40, 93)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), frameon=False, fontsize=10)
        ax.set_xlabel("learning rate (log scale)")
    axes[0, 0].set_ylabel("validation accuracy (%)")
    title = "Best learning rates differ three hundredfold between optimisers;\nMuon learns most in three epochs"
    return finish(fig, title, "3 epochs, batch 256; best learning rate and its accuracy below", real("optimizers"))


@figure
def momentum_learning_rate() -> Figure:
    fig, axes = canvas(4.2, columns=2, sharey=True)
    colours = dict(zip((0, 0.5, 0.9, 0.99), (BLACK, SKY, BLUE, VERMILLION), strict=True))
    ends = []
    for momentum, colour in colours.items():
        x, y = line(groups("momentum", optimizer_momentum=momentum), "optimizer.lr")
        best = int(np.nanargmax(y))
        for ax, at in zip(axes[0], (np.array(x), np.array(x) / (1 - momentum)), strict=True):
            ax.plot(at, y, "o-", color=colour)
            ring(ax, at[best], y[best], colour)
        ends.append((y[best], f"{show_value(momentum)}: {y[best]:.1f} %", colour))
    log_ticks(axes[0, 0], x)
    axes[0, 0].tick_params(axis="x", rotation=45)
    axes[0, 1].set_xscale("log")
    axes[0, 0].set_xlabel("learning rate")
    axes[0, 1].set_xlabel("learning rate / (1 − momentum)")
    axes[0, 0].set_ylabel("validation accuracy (%)")
    axes[0, 0].set_ylim(55, 90)
    label_ends(axes[0, 1], ends)
    return finish(
        fig,
        "Momentum μ works like a learning rate 1/(1 − μ) times as large\nthat breaks later",
        real("momentum"),
        "3 epochs, batch 256",
    )


@figure
def momentum_memory() -> Figure:
    steps = np.arange(0, 61)
    fig, axes = canvas(3.7)
    ax = axes[0, 0]
    for momentum, colour, x, y in ((0.5, BLACK, 3.6, 0.14), (0.9, BLUE, 12, 0.36), (0.99, VERMILLION, 27, 0.84)):
        ax.plot(steps, momentum**steps, "o-", ms=3, color=colour)
        note(ax, x, y, f"{momentum}: they add\nup to {1 / (1 - momentum):.0f}", colour)
    ax.set_xlabel("steps since a gradient was computed")
    ax.set_ylabel("its weight in this step")
    ax.set_ylim(0, 1.05)
    return finish(
        fig, "Momentum μ remembers about 1/(1 − μ) steps", "weights μᵏ for momentum μ = 0.5, 0.9, 0.99", FORMULA
    )


@figure
def step_scale() -> Figure:
    factors = np.logspace(-4, 4, 17)
    gradients = torch.randn(20, 8, 8, generator=torch.Generator().manual_seed(0))
    fig, axes = canvas(3.9)
    ax = axes[0, 0]
    ends = []
    marks = {"sgd_momentum": "s", "sgd": "o", "adagrad": "s", "rmsprop": "D", "adam": "o"}
    for size, (name, mark) in zip((9, 5, 11, 8, 4), marks.items(), strict=True):
        lengths = []
        for factor in factors:
            point = nn.Parameter(torch.zeros(8, 8))
            optimizer = instantiate(shipped("optimizer", name), _convert_="all")([("point", point)])
            for gradient in gradients:
                point.grad = factor * gradient
                optimizer.step()
            lengths.append(float(point.detach().norm()))
        relative = np.array(lengths) / lengths[len(factors) // 2]
        ax.plot(factors, relative, f"{mark}-", ms=size, color=OPTIMIZERS[name])
        ends.append((relative[-1], name, OPTIMIZERS[name]))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("factor on the loss (log scale)")
    ax.set_ylabel("distance after 20 steps,\nthat at factor 1 is 1 (log scale)")
    label_ends(ax, ends)
    title = "Multiply the loss, and SGD's steps grow with it;\nAdam's, RMSprop's and Adagrad's do not notice"
    return finish(fig, title, "torch's optimisers on the same random gradients; no training")


def decayed() -> tuple[list[float], list[float], list[float], list[float]]:
    """Weight decays, and at the end of each run the norm of its weights, its training and validation accuracy in %."""
    found = sorted(study("weight_decay").groups, key=lambda group: group.settings["optimizer.weight_decay"])
    ends = [metrics(group.jobs[0]) for group in found]
    return (
        [group.settings["optimizer.weight_decay"] for group in found],
        [float(all_weights(group.jobs[0], "last").norm()) for group in found],
        *([100 * end[f"{split}_accuracy"][-1] for end in ends] for split in ("train", "val")),
    )


@figure
def weight_decay() -> Figure:
    x, norms, train, val = decayed()
    fig, axes = canvas(4.2, columns=2)
    left, right = axes[0]
    left.plot(x, norms, "o-", color=BLUE)
    left.set_ylabel("norm of all weights at the end")
    left.set_ylim(0)
    right.fill_between(x, train, val, color=ORANGE, alpha=0.2, lw=0)
    for values, colour in ((train, BLACK), (val, VERMILLION)):
        right.plot(x, values, "o-", color=colour)
    right.set_ylabel("accuracy at the end (%)")
    note(right, x[1], train[1] - 1.3, "training", BLACK)
    note(right, x[1], val[1] - 1.3, "validation", VERMILLION)
    for ax in (left, right):
        ax.set_xscale("symlog", linthresh=x[1], linscale=0.5)
        ax.set_xticks(x, [show_value(value) for value in x], rotation=45)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-x[1] / 4, 1.4 * x[-1])
        ax.set_xlabel("weight decay (log scale, and 0)")
    title = (
        "Weight decay shrinks the weights and narrows the gap, here by\n"
        "fitting the training images less, not the new ones better"
    )
    return finish(fig, title, real("weight_decay", images="2,000"), "SGD momentum 0.9, cosine, 30 epochs")


@figure
def muon_directions() -> Figure:
    best = groups("optimizers", optimizer="muon")[0].jobs[0]
    state = checkpoint(best, "last")["optimizer_states"][0]["state"]
    momentum = next(
        s["momentum_buffer"] for s in state.values() if s.get("momentum_buffer", torch.empty(0)).shape == (512, 512)
    )
    matrix = nn.Parameter(torch.zeros(512, 512))
    matrix.grad = momentum.clone()
    torch.optim.Muon([matrix], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    fig, axes = canvas(4.0)
    ax = axes[0, 0]
    before = torch.linalg.svdvals(momentum).numpy()
    after = torch.linalg.svdvals(matrix.detach()).numpy()
    ax.plot(np.arange(1, 513), before / before[0], color=BLUE)
    ax.plot(np.arange(1, 513), after / after[0], color=GREEN)
    ax.set_yscale("log")
    ax.set_ylim(1e-6, 3)
    ax.set_xlabel("direction (singular vector), from the strongest to the weakest of 512")
    ax.set_ylabel("step in it, relative (log scale)")
    note(ax, 120, 0.35, "Muon: the same matrix, orthogonalised", GREEN, va="top")
    note(ax, 20, 0.004, "momentum: what SGD would apply", BLUE, va="top")
    most = int(np.searchsorted(np.cumsum(before**2) / np.sum(before**2), 0.9)) + 1
    alike = int((after > after[0] / 2).sum())
    title = (
        f"Momentum puts 90 % of its step into {most} of 512 directions;\n"
        f"Muon moves in {alike} of them alike, within a factor of two"
    )
    what = "squared singular values of the second hidden layer's momentum at the end of the best run with Muon"
    return finish(fig, title, what, real("optimizers"))


# ------------------------------------------------------------------------------------ learning rate and schedules


@figure
def sgd_learning_rate() -> Figure:
    found = sorted(study("sgd_lr").groups, key=lambda group: group.settings["optimizer.lr"])
    x = [group.settings["optimizer.lr"] for group in found]
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    ends = []
    for epoch, colour in ((1, SKY), (2, BLUE), (3, BLACK)):
        y = [100 * group.jobs[0].curve[epoch] if isinstance(group, RankedGroup) else np.nan for group in found]
        ax.plot(x, y, "o-", color=colour)
        ends.append((y[0], f"epoch {epoch}", colour))
    for group, share in zip(found, y, strict=True):
        rate = group.settings["optimizer.lr"]
        if isinstance(group, RankedGroup):
            ax.annotate(f"{share:.1f}", (rate, share), (6, 9), textcoords="offset points", ha="center", fontsize=10)
        else:
            note(ax, rate, 8, "diverged", VERMILLION, ha="center")
            ax.plot(rate, 2, "x", color=VERMILLION, ms=10, mew=2.5)
    for height, name, colour in ends:
        ax.text(x[0] * 0.93, height, name, color=colour, ha="right", va="center", fontsize=10)
    log_ticks(ax, x)
    ax.set_xlim(x[0] / 3.2, x[-1] * 1.6)
    ax.set_ylim(0, 96)
    ax.set_xlabel("learning rate (log scale)")
    ax.set_ylabel("validation accuracy (%)")
    title = "Too small is slow, too large breaks;\nthe best is not far from the edge"
    return finish(fig, title, real("sgd_lr"), "plain SGD, batch 64")


@figure
@torch.no_grad()
def dead_units() -> Figure:
    found = sorted(groups("losses", loss="cross_entropy"), key=lambda group: group.settings["optimizer.lr"])
    x = [group.settings["optimizer.lr"] for group in found]
    silent: dict[str, list[float]] = {"first": [], "second": []}
    for group in found:
        units = held_out()[0]
        for index, layer in enumerate(trained(group.jobs[0], "last")):
            units = layer(units)
            if isinstance(layer, nn.ReLU):
                silent["first" if index < 3 else "second"].append(100 * float((units == 0).all(0).float().mean()))
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    for (name, y), colour in zip(silent.items(), (SKY, BLUE), strict=True):
        ax.plot(x, y, "o-", color=colour)
        place = {"first": (0.27, y[3] + 2, "right"), "second": (0.34, y[3] - 3, "left")}[name]
        note(ax, *place[:2], f"{name} hidden layer", colour, ha=place[2])
    log_ticks(ax, x)
    ax.set_xticks(x, [f"{show_value(rate)}\n{accuracy(group):.0f} %" for rate, group in zip(x, found, strict=True)])
    ax.set_ylim(0, 104)
    ax.set_xlabel("learning rate (log scale), and the validation accuracy it leads to")
    ax.set_ylabel("units 0 for every image (%)")
    title = (
        "A learning rate that is too large kills ReLUs for good;\nwith all of a layer dead, nothing is learnt any more"
    )
    return finish(fig, title, real("losses"), "cross entropy, SGD momentum 0.9, 3 epochs")


SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle", "warmup_linear", "plateau")


def schedule(name: str, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """The factor on the learning rate at each step, by the shipped configuration."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"scheduler={name}", "optimizer.lr=1"])
    cfg.total_steps = epochs * steps_per_epoch
    node = {key: value for key, value in cfg.scheduler.items() if key != "interval"}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = instantiate(node, _convert_="all")(optimizer)
    factors = []
    for step in range(1, cfg.total_steps + 1):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if cfg.scheduler.interval == "step" or step % steps_per_epoch == 0:
            made.step()
    return np.array(factors)


@figure
def schedules_shapes() -> Figure:
    epochs, per_epoch = 5, 215
    fig, axes = canvas(4.3, columns=4, rows=2, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, SCHEDULES, strict=False):
        if name == "plateau":
            job = max(groups("schedulers", scheduler=name), key=lambda g: g.settings["optimizer.lr"]).jobs[0]
            factors = np.repeat(metrics(job)["lr"] / job.value("optimizer.lr"), per_epoch)
        else:
            factors = schedule(name, epochs, per_epoch)
        ax.plot(np.arange(1, len(factors) + 1) / per_epoch, factors, color=BLUE)
        best = groups("schedulers", scheduler=name)[0]
        ax.set_title(f"{name}\n{accuracy(best):.1f} % at lr {show_value(best.settings['optimizer.lr'])}", fontsize=10)
        ax.set_ylim(0, 1.08)
        ax.set_xticks(range(epochs + 1))
    axes[0, 3].tick_params(labelbottom=True)
    axes[1, 3].set_visible(False)
    for ax in (*axes[1, :3], axes[0, 3]):
        ax.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("factor on lr")
    return finish(
        fig,
        "Whatever makes the learning rate fall gains about a point",
        real("schedulers"),
        "best of 3 peaks",
    )


@figure
def schedules_outcome() -> Figure:
    rates = study("schedulers").values("optimizer.lr")
    grid = np.array(
        [[accuracy(groups("schedulers", scheduler=name, optimizer_lr=rate)[0]) for rate in rates] for name in SCHEDULES]
    )
    order = np.argsort(grid.max(1))
    fig, axes = canvas(4.6)
    ax = axes[0, 0]
    cells(ax, grid[order], [show_value(rate) for rate in rates], [SCHEDULES[i] for i in order], 84)
    for row, values in enumerate(grid[order]):
        frame(ax, int(values.argmax()), row)
    ax.set_xlabel("optimizer.lr, the highest learning rate of the run")
    return finish(
        fig,
        "A learning rate that falls does better;\none that also warms up may be three times as large",
        real("schedulers"),
        "5 epochs, SGD momentum 0.9, batch 256",
    )


# ------------------------------------------------------------------------------------------ batch size and epochs


@figure
def batch_size_learning_rate() -> Figure:
    table = study("lr_batch_size")
    rates, sizes = table.values("optimizer.lr"), table.values("data.batch_size")
    grid = np.array(
        [
            [accuracy(groups("lr_batch_size", data_batch_size=size, optimizer_lr=rate)[0]) for rate in rates]
            for size in sizes
        ]
    )
    fig, axes = canvas(4.8)
    ax = axes[0, 0]
    cells(ax, grid, [show_value(rate) for rate in rates], [show_value(size) for size in sizes], 60)
    for row, values in enumerate(grid):
        frame(ax, int(np.nanargmax(values)), row)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("batch size")
    return finish(
        fig,
        "A larger batch takes fewer steps in the same three epochs;\na larger learning rate makes up for part of it",
        "validation accuracy (%), best of each row framed",
        real("lr_batch_size"),
        "3 epochs, SGD",
    )


@figure
def batch_size_scaling() -> Figure:
    sizes = study("lr_batch_size").values("data.batch_size")
    fig, axes = canvas(4.2)
    ax = axes[0, 0]
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(sizes)))
    for size, colour in zip(sizes, shades, strict=True):
        x, y = line(groups("lr_batch_size", data_batch_size=size), "optimizer.lr")
        kept = [(rate / size, share) for rate, share in zip(x, y, strict=True) if rate < 1]
        ax.plot(*zip(*kept, strict=True), "o-", color=colour, label=f"{size}")
    ax.legend(title="batch size", loc="lower right", ncols=2, frameon=False)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate / batch size (log scale)")
    ax.set_ylabel("validation accuracy (%)")
    title = "Below the ceiling, it is the ratio of learning rate\nand batch size that counts"
    return finish(fig, title, real("lr_batch_size"), "learning rates up to 0.3", "3 epochs, SGD")


@figure
def gradient_noise() -> Figure:
    data = FashionMNISTDataModule("fashion_mnist", os.environ.get("FMNIST_DATA_DIR", "data"))
    data.setup()
    content = checkpoint(study("seeds").ranked[0].jobs[0])
    trained = {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}
    torch.manual_seed(0)
    model = instantiate(content["hyper_parameters"]["model"])

    def gradient(rows: Tensor) -> Tensor:
        images = data.train_images[rows]
        loss = F.cross_entropy(model(data.scale(images.pixels)), images.labels)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])

    generator = torch.Generator().manual_seed(0)
    sizes = [1, 4, 16, 64, 256, 1024]
    fig, axes = canvas(4.0)
    ax = axes[0, 0]
    ends = []
    for moment, state, colour in (("at the start", None, SKY), ("after 3 epochs", trained, BLUE)):
        if state:
            model.load_state_dict(state)
        whole = gradient(torch.arange(0, len(data.train_images), 5))
        noise = []
        for size in sizes:
            batches = [torch.randint(len(data.train_images), (size,), generator=generator) for _ in range(40)]
            square = sum(float((gradient(rows) - whole).norm() ** 2) for rows in batches) / len(batches)
            noise.append(square**0.5 / float(whole.norm()))
        ax.plot(sizes, noise, "o-", color=colour)
        ax.plot(sizes, noise[3] * (64 / np.array(sizes)) ** 0.5, "--", color=GREY, lw=1.2)
        ends.append((noise[-1], f"{moment}:\n{noise[3]:.1f} at batch 64", colour))
    ax.axhline(1, color=BLACK, lw=1)
    note(ax, 1, 0.85, "below this line a batch says more than its noise", va="top")
    ax.set_yscale("log")
    ax.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
    log_ticks(ax, sizes)
    ax.set_xlabel("batch size (log scale)")
    ax.set_ylabel("noise / gradient (log scale)")
    label_ends(ax, ends, gap=0.16)
    title = "A batch four times as large halves the noise of the gradient;\nlate in training the noise is most of it"
    return finish(
        fig,
        title,
        "Fashion-MNIST, 55,000 training images; a run of study=seeds",
        "40 batches a point; dashed: 1/√batch size",
    )


@figure
def overfitting() -> Figure:
    found = sorted(study("overfitting").groups, key=lambda group: group.settings["data.train_size"])
    fig, axes = canvas(5.2, columns=len(found), rows=2, sharex=True, sharey="row")
    for column, group in enumerate(found):
        m = metrics(group.jobs[0])
        loss, share = axes[:, column]
        for split, colour in (("train", BLACK), ("val", VERMILLION)):
            loss.plot(m["epoch"], m[f"{split}_loss"], color=colour)
            share.plot(m["epoch"], 100 * m[f"{split}_accuracy"], color=colour)
        lowest = int(np.argmin(m["val_loss"]))
        loss.plot(m["epoch"][lowest], m["val_loss"][lowest], "o", ms=10, mfc="none", mec=VERMILLION, mew=2)
        loss.set_title(f"{group.settings['data.train_size']:,} images\nlowest after {lowest + 1} epochs")
        there, at_end = 100 * m["val_accuracy"][lowest], 100 * m["val_accuracy"][-1]
        share.set_title(f"{there:.1f} % there,\n{at_end:.1f} % at the end")
        share.set_xlabel("epoch")
        share.set_ylim(60, 101)
        loss.set_ylim(0, 1.2)
    axes[0, 0].set_ylabel("average loss")
    axes[1, 0].set_ylabel("accuracy (%)")
    m = metrics(found[-1].jobs[0])
    note(axes[0, -1], 30, m["val_loss"][-1] + 0.12, "validation", VERMILLION, ha="right")
    note(axes[0, -1], 30, m["train_loss"][-1] + 0.12, "training", BLACK, ha="right")
    return finish(
        fig,
        "Training loss keeps falling; validation loss turns,\nlong before accuracy suffers",
        real("overfitting", images="1,000 to 55,000"),
        "Adam, batch 256",
    )


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


# ------------------------------------------------------------------------------------------------- measured texts


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))


def best_of(name: str, key: str, options: Sequence[object], heading: str) -> str:
    """A table of the best of each option, by validation accuracy."""
    rows = []
    for option in options:
        best = next(group for group in study(name).groups if group.settings[key] == option)
        figures = [f"{accuracy(best, split):.1f} %" for split in ("val", "test")]
        rows.append([heading.format(show_value(option)), show_value(best.settings["optimizer.lr"]), *figures])
    return table([f"`{key}`", "best `optimizer.lr`", "validation", "test"], rows)


@text
def losses_best() -> str:
    return best_of("losses", "loss", list(LOSSES), "`{}`")


@text
def optimizers_best() -> str:
    return best_of("optimizers", "optimizer", list(OPTIMIZERS), "`{}`")


@text
def momentum_best() -> str:
    return best_of("momentum", "optimizer.momentum", study("momentum").values("optimizer.momentum"), "{}")


@text
def schedulers_best() -> str:
    return best_of("schedulers", "scheduler", SCHEDULES, "`{}`")


@text
def batch_size_best() -> str:
    return best_of("lr_batch_size", "data.batch_size", study("lr_batch_size").values("data.batch_size"), "{}")


@text
def seeds_spread() -> str:
    group = study("seeds").ranked[0]
    points = [f"{100 * group.std(f'{split}_accuracy'):.1f}" for split in ("val", "test")]
    return f"{points[0]} points of validation and {points[1]} of test accuracy (standard deviation of {group.n} seeds)"


@text
def nll_difference() -> str:
    logits = validation_logits(groups("losses", loss="cross_entropy")[0].jobs[0])
    losses = [instantiate(shipped("loss", name))(logits, held_out()[1]) for name in ("cross_entropy", "nll")]
    return f"{float((losses[0] - losses[1]).abs()):.0e}".replace("0e+00", "exactly 0")


@text
def l1_lost_class() -> str:
    labels = held_out()[1]
    answers = validation_logits(groups("losses", loss="l1")[0].jobs[0]).argmax(1)
    counts = [(int((answers[labels == i] == i).sum()), int((labels == i).sum())) for i in range(len(CLASSES))]
    worst = min(range(len(CLASSES)), key=lambda i: counts[i][0] / counts[i][1])
    return f"{counts[worst][0]} of the {counts[worst][1]} {CLASSES[worst].lower()}s"


@text
def l1_penalty_table() -> str:
    rows = []
    for group in sorted(study("l1_penalty").groups, key=lambda group: group.settings["regularization.l1"]):
        sizes = all_weights(group.jobs[0]).abs()
        small = [f"{100 * float((sizes < limit).float().mean()):.1f} %" for limit in (1e-4, 1e-3)]
        figures = [f"{accuracy(group, split):.1f} %" for split in ("val", "test")]
        rows.append([show_value(group.settings["regularization.l1"]), *small, *figures])
    return table(["`regularization.l1`", "weights below 1e-4", "below 1e-3", "validation", "test"], rows)


@text
def weight_decay_table() -> str:
    rows = []
    for decay, norm, train, val in zip(*decayed(), strict=True):
        shares = [f"{train:.1f} %", f"{val:.1f} %", f"{train - val:.1f} points"]
        rows.append([show_value(decay), f"{norm:.1f}", *shares])
    return table(["`optimizer.weight_decay`", "norm of the weights", "training", "validation", "gap"], rows)


@text
def sgd_lr_best() -> str:
    slow, best = groups("sgd_lr", optimizer_lr=0.001)[0], study("sgd_lr").ranked[0]
    ends = [f"{accuracy(group):.1f} % with {show_value(group.settings['optimizer.lr'])}" for group in (slow, best)]
    return f"three epochs of plain SGD end at {ends[0]}, and at {ends[1]}."


@text
def overfitting_table() -> str:
    rows = []
    for group in sorted(study("overfitting").groups, key=lambda group: group.settings["data.train_size"]):
        m = metrics(group.jobs[0])
        lowest = int(np.argmin(m["val_loss"]))
        steps = -(-group.settings["data.train_size"] // group.jobs[0].value("data.batch_size")) * (lowest + 1)
        rows.append([f"{group.settings['data.train_size']:,}", str(lowest + 1), f"{steps:,}"])
        rows[-1] += [f"{m['val_loss'][at]:.2f}, {100 * m['val_accuracy'][at]:.1f} %" for at in (lowest, -1)]
        rows[-1].append(f"{100 * m['train_accuracy'][-1]:.1f} %")
    header = ["training images", "epoch of the lowest validation loss", "in steps", "validation there"]
    return table([*header, "after 30 epochs", "training after 30"], rows)


# --------------------------------------------------------------------------------------------------- command line


def run(name: str) -> None:
    """Run what is missing of a study; that a learning rate makes a job diverge is one of its findings."""
    folder = (RUNS / name).relative_to(ROOT)
    command = [sys.executable, "-m", "fmnist_lit", f"study={name}", f"hydra.sweep.dir={folder}"]
    print(" ".join(["python", *command[1:]]), flush=True)
    ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    if ended not in (0, 1):
        sys.exit(ended)


def draw(name: str) -> None:
    """Draw a picture into docs/guide/images."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        file = GUIDE / "images" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        FIGURES[name]().savefig(file, metadata={"Software": None})


def fill(page: str, wanted: Sequence[str]) -> str:
    """A page with its measured texts renewed."""

    def renew(match: re.Match[str]) -> str:
        opening, name, old, closing = match.groups()
        if name not in wanted:
            return match[0]
        new = TEXTS[name]()
        return opening + (f"\n\n{new}\n\n" if old.startswith("\n") else new) + closing

    return MARKERS.sub(renew, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=[*FIGURES, *TEXTS], metavar="NAME", help=", ".join([*FIGURES, *TEXTS])
    )
    parser.add_argument(
        "--no-runs", action="store_true", help="take the studies as they are; pictures say what is missing"
    )
    args = parser.parse_args()
    if not args.no_runs:
        for name in STUDIES:
            run(name)
    wanted = args.only or [*FIGURES, *TEXTS]
    torch.set_num_threads(1)  # the same bits on every machine
    for name in wanted:
        try:
            if name in FIGURES:
                draw(name)
            else:
                for page in GUIDE.glob("*.md"):
                    page.write_text(fill(page.read_text(), [name]))
        except NotRunError as reason:
            print(f"{name}: left as it is, {reason}")


if __name__ == "__main__":
    main()
