"""docs/guide/learning_rate_and_schedules.md: its pictures and its measured texts."""

from typing import Any

import numpy as np
import torch
from contents import Bilingual, figure, text
from drawing import BLACK, BLUE, SKY, VERMILLION, canvas, cells, finish, frame, log_ticks, note
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from matplotlib.figure import Figure
from runs import accuracy, best_of, groups, held_out, metrics, percent, real, study, table_of_best, trained
from torch import nn

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.sweep.table import RankedGroup
from fmnist_lit.sweep.values import show_value

SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle", "warmup_linear", "plateau")


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
    trained_ones = [group for group in groups("losses", loss="cross_entropy") if group.jobs[0].status == "completed"]
    found = sorted(trained_ones, key=lambda group: group.settings["optimizer.lr"])
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


def slow_and_best() -> list[dict[str, float]]:
    """The tutorial's learning rate, and the best."""
    found = groups("sgd_lr", optimizer_lr=0.001)[0], study("sgd_lr").ranked[0]
    return [{"lr": group.settings["optimizer.lr"], "val": accuracy(group) / 100} for group in found]


@text(slow_and_best)
def sgd_lr_best(measured: list[dict[str, float]]) -> Bilingual:
    (slow, low), (best, high) = ((show_value(row["lr"]), percent(row["val"])) for row in measured)
    return Bilingual(
        f"three epochs of plain SGD end at {low} with {slow}, and at {high} with {best}.",
        f"用普通 SGD 训练三轮，验证准确率分别为 {low}（学习率 {slow}）和 {high}（学习率 {best}）。",
    )


@text(lambda: best_of("schedulers", "scheduler", SCHEDULES))
def schedulers_best(rows: list[dict[str, Any]]) -> Bilingual:
    return table_of_best("scheduler", "`{}`", rows)
