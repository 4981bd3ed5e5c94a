"""docs/guide/optimizers.md: its pictures and its measured texts."""

from typing import Any

import numpy as np
import torch
from contents import VALIDATION, Bilingual, figure, markdown_table, text
from drawing import (
    BLACK,
    BLUE,
    FORMULA,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    canvas,
    finish,
    label_ends,
    log_ticks,
    note,
    ring,
)
from hydra.utils import instantiate
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from runs import all_weights, best_of, checkpoint, groups, line, metrics, real, shipped, study, table_of_best
from torch import Tensor, nn

from fmnist_lit.sweep.values import show_value

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


@text(lambda: best_of("optimizers", "optimizer", list(OPTIMIZERS)))
def optimizers_best(rows: list[dict[str, Any]]) -> Bilingual:
    return table_of_best("optimizer", "`{}`", rows)


@text(lambda: best_of("momentum", "optimizer.momentum", study("momentum").values("optimizer.momentum")))
def momentum_best(rows: list[dict[str, Any]]) -> Bilingual:
    return table_of_best("optimizer.momentum", "{}", rows)


@text(lambda: list(zip(*decayed(), strict=True)))
def weight_decay_table(measured: list[list[float]]) -> Bilingual:
    rows = []
    for decay, norm, train, val in measured:
        gap = Bilingual(f"{train - val:.1f} points", f"{train - val:.1f} 个百分点")
        rows.append([show_value(decay), f"{norm:.1f}", f"{train:.1f} %", f"{val:.1f} %", gap])
    norms, training = Bilingual("norm of the weights", "权重的范数"), Bilingual("training", "训练")
    gaps = Bilingual("gap", "差距")
    return markdown_table(["`optimizer.weight_decay`", norms, training, VALIDATION, gaps], rows)
