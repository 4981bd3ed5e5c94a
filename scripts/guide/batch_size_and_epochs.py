"""docs/guide/batch_size_and_epochs.md: its pictures and its measured texts."""

import os
from typing import Any

import matplotlib
import numpy as np
import torch
from contents import Bilingual, figure, markdown_table, text
from drawing import BLACK, BLUE, GREY, SKY, VERMILLION, canvas, cells, finish, frame, label_ends, log_ticks, note
from hydra.utils import instantiate
from matplotlib.figure import Figure
from runs import accuracy, best_of, checkpoint, groups, line, metrics, percent, real, study, table_of_best
from torch import Tensor
from torch.nn import functional as F

from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.sweep.values import show_value


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


@text(lambda: best_of("lr_batch_size", "data.batch_size", study("lr_batch_size").values("data.batch_size")))
def batch_size_best(rows: list[dict[str, Any]]) -> Bilingual:
    return table_of_best("data.batch_size", "{}", rows)


def lowest_losses() -> list[dict[str, Any]]:
    """Of each number of training images: where the validation loss is lowest, and the figures there and at the end."""
    rows = []
    for group in sorted(study("overfitting").groups, key=lambda group: group.settings["data.train_size"]):
        m, size = metrics(group.jobs[0]), group.settings["data.train_size"]
        lowest = int(np.argmin(m["val_loss"]))
        steps = -(-size // group.jobs[0].value("data.batch_size")) * (lowest + 1)
        ends = {name: [float(m[name][at]) for at in (lowest, -1)] for name in ("val_loss", "val_accuracy")}
        rows.append({"images": size, "epoch": lowest + 1, "steps": steps, **ends})
        rows[-1]["train_accuracy"] = float(m["train_accuracy"][-1])
    return rows


@text(lowest_losses)
def overfitting_table(measured: list[dict[str, Any]]) -> Bilingual:
    rows = []
    for row in measured:
        ends = zip(row["val_loss"], row["val_accuracy"], strict=True)
        figures = [f"{loss:.2f}, {percent(accuracy)}" for loss, accuracy in ends]
        rows.append([f"{row['images']:,}", str(row["epoch"]), f"{row['steps']:,}", *figures])
        rows[-1].append(percent(row["train_accuracy"]))
    header = (
        Bilingual("training images", "训练图片数"),
        Bilingual("epoch of the lowest validation loss", "验证损失最低的轮次"),
        Bilingual("in steps", "折合步数"),
        Bilingual("validation there", "该轮的验证结果"),
        Bilingual("after 30 epochs", "30 轮后的验证结果"),
        Bilingual("training after 30", "30 轮后的训练结果"),
    )
    return markdown_table(header, rows)
