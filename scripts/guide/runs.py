"""What the runs of the guide left, as its pictures and tables want it: groups, curves, weights, logits."""

import csv
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contents import TEST, VALIDATION, Bilingual, markdown_table
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable, collect
from fmnist_lit.sweep.values import show_value

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "outputs" / "guide"


class NotRunError(RuntimeError):
    """A study without results on the real data."""


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


def best_of(name: str, key: str, options: Sequence[object]) -> list[dict[str, Any]]:
    """The best of each option by validation accuracy; accuracies are fractions."""
    rows = []
    for option in options:
        best = next(group for group in study(name).groups if group.settings[key] == option)
        figures = {split: accuracy(best, split) / 100 for split in ("val", "test")}
        rows.append({"option": option, "lr": best.settings["optimizer.lr"], **figures})
    return rows


def table_of_best(key: str, heading: str, rows: Sequence[dict[str, Any]]) -> Bilingual:
    """A table of what ``best_of`` found."""
    cells = [
        [heading.format(show_value(row["option"])), show_value(row["lr"]), percent(row["val"]), percent(row["test"])]
        for row in rows
    ]
    return markdown_table(
        [f"`{key}`", Bilingual("best `optimizer.lr`", "最佳 `optimizer.lr`"), VALIDATION, TEST], cells
    )


def percent(fraction: float) -> str:
    """A fraction as a page shows it."""
    return f"{100 * fraction:.1f} %"
