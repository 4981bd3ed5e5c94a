"""docs/guide/find_lr.md: what range tests suggest, and how well their suggestions train; the picture and the texts."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contents import Bilingual, figure, markdown_table, text
from drawing import BLACK, BLUE, GREY, VERMILLION, canvas, finish, log_ticks, note
from matplotlib.figure import Figure
from runs import ROOT, RUNS, NotRunError, accuracy, groups, line, percent, real, study

from fmnist_lit.run.files import read_json
from fmnist_lit.run.names import slug
from fmnist_lit.run.status import FINISHED
from fmnist_lit.sweep.values import show_value

OPTIMIZERS = ("sgd", "sgd_momentum", "sgd_nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon")
LOSSES = ("cross_entropy", "label_smoothing", "bce_with_logits", "mse", "l1")
# As the studies that they are compared with
FIXED = {"optimizers": ("data.batch_size=256",), "losses": ("optimizer=sgd_momentum", "data.batch_size=256")}
PLAIN_SGD = ()  # the defaults, as study=sgd_lr has them
STEPS = (50, 100, 200, 400)
EPOCHS = "trainer.max_epochs=3"


def words_of(study_name: str, option: str) -> tuple[str, ...]:
    """The words of a command line for an option of a study."""
    return (f"{'optimizer' if study_name == 'optimizers' else 'loss'}={option}", *FIXED[study_name])


ALL = (
    PLAIN_SGD,
    *(words_of("optimizers", name) for name in OPTIMIZERS),
    *(words_of("losses", name) for name in LOSSES),
)


def folder_of(words: Sequence[str], steps: int = 100) -> Path:
    """Where the range test of these words is, and in it the runs at what it suggests."""
    return RUNS / "find_lr" / f"{slug(','.join(words))}{'' if steps == 100 else f'_{steps}_steps'}"


def run_all() -> None:
    """Run what is missing: each range test, and three epochs at its suggestion and at Lightning's own."""
    for words in ALL:
        run_range_test(words)
        for name in ("suggestion", "lightning_suggestion"):
            train_at(words, f"{suggested(words)[name]:.2g}")
    for steps in STEPS:
        run_range_test(words_of("optimizers", "sgd_momentum"), steps)


def run_range_test(words: Sequence[str], steps: int = 100) -> None:
    """Run a range test, unless it is there."""
    folder = folder_of(words, steps)
    if not (folder / "find_lr.json").is_file():
        call("fmnist_lit.find_lr", "--steps", str(steps), *words, f"hydra.run.dir={folder.relative_to(ROOT)}")


def train_at(words: Sequence[str], rate: str) -> None:
    """Train three epochs at a learning rate, unless that is done; that it diverges would be a finding."""
    folder = folder_of(words) / f"lr={rate}"
    if read_json(folder / "results.json").get("status") not in FINISHED:
        shutil.rmtree(folder, ignore_errors=True)
        call("fmnist_lit", *words, f"optimizer.lr={rate}", EPOCHS, f"hydra.run.dir={folder.relative_to(ROOT)}")


def call(module: str, *words: str) -> None:
    """Run a command on one thread and on the real data."""
    command = [sys.executable, "-m", module, *words, "num_threads=1", "data=fashion_mnist"]
    print(" ".join(["python", *command[1:]]), flush=True)
    if (ended := subprocess.run(command, cwd=ROOT, check=False).returncode) not in (0, 1):
        sys.exit(ended)


def suggested(words: Sequence[str], steps: int = 100) -> dict[str, Any]:
    """What find_lr.json says."""
    facts = read_json(folder_of(words, steps) / "find_lr.json")
    if facts.get("dataset") != "fashion_mnist":
        raise NotRunError(f"find_lr of {' '.join(words) or 'the defaults'} has not been run on Fashion-MNIST")
    return facts


def trained_at(words: Sequence[str], rate: float) -> float:
    """The validation accuracy, a fraction, after three epochs at a suggestion; 0.1 where it diverged."""
    results = json.loads((folder_of(words) / f"lr={rate:.2g}" / "results.json").read_text(encoding="utf-8"))
    return 0.1 if results["status"] == "diverged" else results["val_accuracy"]


@figure
def find_lr_sgd() -> Figure:
    facts = suggested(PLAIN_SGD)
    with open(folder_of(PLAIN_SGD) / "find_lr.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rates, losses, smoothed = (np.array([float(row[name]) for row in rows]) for name in rows[0])
    rate = facts["suggestion"]
    fig, axes = canvas(5.6, rows=2, sharex=True)
    above, below = axes[:, 0]
    above.plot(rates, losses, ".", color=GREY)
    above.plot(rates, smoothed, color=BLUE)
    above.plot(rate, smoothed[list(rates).index(rate)], "o", color=VERMILLION, ms=8)
    above.set_ylim(losses.min() - 0.05, losses[0] + 0.35)
    above.set_ylabel("training loss")
    note(above, 1.2e-6, losses[0] + 0.12, "range test: 100 steps, smoothed", BLUE)
    note(above, rate * 0.8, losses.min() + 0.1, "loss of a step", GREY, ha="right")
    x, y = line(groups("sgd_lr"), "optimizer.lr")
    below.plot(x, y, "o-", color=BLACK)
    reached = 100 * trained_at(PLAIN_SGD, rate)
    below.plot(rate, reached, "o", color=VERMILLION, ms=8)
    note(below, 1.2e-6, 75, "grid: three epochs at each", BLACK)
    below.set_ylabel("validation accuracy (%)")
    below.set_xlabel("learning rate (log scale)")
    for ax in (above, below):
        ax.axvline(rate, color=VERMILLION, ls=":")
    log_ticks(below, [10.0**power for power in range(-6, 2)])
    below.set_ylim(0, 96)
    note(below, rate * 0.75, 20, f"suggestion {rate:.2g}:\n{reached:.1f} %", VERMILLION, ha="right")
    title = "A hundred steps lead to about the learning rate\nfor which the grid takes eight runs"
    return finish(fig, title, real("sgd_lr"), "plain SGD, batch 64")


def beside_the_grid(study_name: str, options: Sequence[str]) -> list[dict[str, Any]]:
    """Of each option: what the range test suggests, what Lightning does, what the grid found; accuracies, fractions."""
    rows = []
    for option in options:
        words, key = words_of(study_name, option), "optimizer" if study_name == "optimizers" else "loss"
        facts, best = suggested(words), next(g for g in study(study_name).groups if g.settings[key] == option)
        rates = {"suggestion": facts["suggestion"], "lightning": facts["lightning_suggestion"]}
        row: dict[str, Any] = {"option": option}
        for name, rate in rates.items():
            row |= {name: rate, f"{name}_val": trained_at(words, rate)}
        rows.append({**row, "grid": best.settings["optimizer.lr"], "grid_val": accuracy(best) / 100})
    return rows


def table_beside_the_grid(key: str, study_name: str, rows: Sequence[dict[str, Any]]) -> Bilingual:
    """A table of what ``beside_the_grid`` found."""
    header = (
        f"`{key}`",
        Bilingual("suggestion", "建议"),
        Bilingual("validation", "验证"),
        Bilingual("Lightning's own", "Lightning 自己的建议"),
        Bilingual("validation", "验证"),
        Bilingual(f"best of `study={study_name}`", f"`study={study_name}` 的最佳值"),
        Bilingual("validation", "验证"),
    )
    cells = [
        [
            f"`{row['option']}`",
            f"{row['suggestion']:.2g}",
            percent(row["suggestion_val"]),
            f"{row['lightning']:.2g}",
            percent(row["lightning_val"]),
            show_value(row["grid"]),
            percent(row["grid_val"]),
        ]
        for row in rows
    ]
    return markdown_table(header, cells)


@text(lambda: beside_the_grid("optimizers", OPTIMIZERS))
def find_lr_optimizers(rows: list[dict[str, Any]]) -> Bilingual:
    return table_beside_the_grid("optimizer", "optimizers", rows)


@text(lambda: beside_the_grid("losses", LOSSES))
def find_lr_losses(rows: list[dict[str, Any]]) -> Bilingual:
    return table_beside_the_grid("loss", "losses", rows)


def plain_sgd() -> dict[str, float]:
    """Plain SGD: the suggestion and the best of the grid, with their validation accuracies, fractions."""
    rate, best = suggested(PLAIN_SGD)["suggestion"], study("sgd_lr").ranked[0]
    found = {"suggestion": rate, "val": trained_at(PLAIN_SGD, rate)}
    return {**found, "grid": best.settings["optimizer.lr"], "grid_val": accuracy(best) / 100}


@text(plain_sgd)
def find_lr_beside_sgd_lr(measured: dict[str, float]) -> Bilingual:
    rate, best = f"{measured['suggestion']:.2g}", show_value(measured["grid"])
    reached, highest = percent(measured["val"]), percent(measured["grid_val"])
    return Bilingual(
        f"three epochs at {rate}, the suggestion, end at {reached}; the best of the grid is {highest} at {best}.",
        f"以建议的 {rate} 训练三轮，验证准确率为 {reached}；网格中最好的是 {highest}，学习率 {best}。",
    )


def by_steps() -> list[dict[str, float]]:
    """What is suggested for SGD with momentum by tests of different lengths."""
    words = words_of("optimizers", "sgd_momentum")
    return [{"steps": steps, "suggestion": suggested(words, steps)["suggestion"]} for steps in STEPS]


@text(by_steps)
def find_lr_steps(measured: list[dict[str, float]]) -> Bilingual:
    found = [(row["steps"], f"{row['suggestion']:.2g}") for row in measured]
    return Bilingual(
        ", ".join(f"{steps} steps suggest {rate}" for steps, rate in found),
        "，".join(f"{steps} 步建议 {rate}" for steps, rate in found),
    )
