"""The picture at the top of the README: where a network puts 1,500 test images before, early in and after training.

    FMNIST_DATA_DIR=… uv run python scripts/readme_picture.py [--epochs 10]

The images lie where t-SNE puts the 512 activations of the last hidden layer, in the colour of their true class. Runs
go into outputs/runs. Takes about two minutes on two cores.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn

import fmnist_lit
from fmnist_lit.data import FashionMNISTDataModule

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "arranged.png"
RECIPE = ("data=fashion_mnist", "optimizer=adam", "data.batch_size=256", "num_threads=1")
IMAGES = 1500
SIDE, MARGIN, HEAD, FOOT = 640, 24, 64, 72  # pixels, of each of three maps
THUMBNAIL = 24
BACKGROUND, LETTERS = "#0d1420", "#e8edf4"  # its own background, so that it can be read on a light page and a dark one
COLOURS = (
    *("#4cc9f0", "#b38cff", "#ff9f45", "#ff6fa5", "#ffd84d"),
    *("#3ddc97", "#ff5a5f", "#2fb8ac", "#b6e34b", "#6c9bff"),
)


def untrained() -> nn.Module:
    """The network of the recipe before its first step."""
    from fmnist_lit.model import MLP

    torch.manual_seed(0)
    return MLP().eval()


@torch.no_grad()
def seen_by(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The activations of the last hidden layer (N, 512) and the logits (N, 10)."""
    hidden = images
    for layer in list(model)[:-1]:
        hidden = layer(hidden)
    return hidden, list(model)[-1](hidden)


def neighbours(points: Tensor, perplexity: float = 30.0) -> Tensor:
    """How close each two points are, (N, N), as t-SNE counts it: so that each has about ``perplexity`` neighbours."""
    distances = torch.cdist(points, points) ** 2
    distances.fill_diagonal_(torch.inf)
    low, high = torch.full((len(points), 1), 1e-12), torch.full((len(points), 1), 1e12)
    for _ in range(60):  # by halves, on a logarithmic scale, for the width of each point's surroundings
        precision = (low * high).sqrt()
        near = torch.softmax(-distances * precision, dim=1)
        entropy = -(near * near.clamp_min(1e-30).log()).sum(1, keepdim=True)
        low, high = (
            torch.where(entropy > np.log(perplexity), precision, low),
            torch.where(entropy > np.log(perplexity), high, precision),
        )
    return (near + near.T) / (2 * len(points))


def arrange(points: Tensor, start: Tensor | None, steps: int = 700) -> Tensor:
    """t-SNE (van der Maaten and Hinton, 2008): points (N, D) on a map (N, 2), near to ``start`` where that is given."""
    near = neighbours(points)
    if start is None:
        directions = torch.pca_lowrank(points, 2)[2]
        start = (points - points.mean(0)) @ directions
    place = start / start.std() * 1e-2
    velocity, gains = torch.zeros_like(place), torch.ones_like(place)
    for step in range(steps):
        closeness = 1 / (1 + torch.cdist(place, place) ** 2)
        closeness.fill_diagonal_(0)
        wanted = near * (12 if step < 200 else 1)
        force = (wanted - closeness / closeness.sum()) * closeness
        slope = 4 * (force.sum(1, keepdim=True) * place - force @ place)
        gains = torch.where(slope.sign() == velocity.sign(), gains * 0.8, gains + 0.2).clamp_min(0.01)
        velocity = (0.5 if step < 200 else 0.8) * velocity - 200 * gains * slope
        place = place + velocity
        place -= place.mean(0)
    return place


def draw_map(place: Tensor, pixels: Tensor, labels: Tensor) -> Image.Image:
    """The images (N, 28, 28) where they belong, tinted, each over those that were drawn before it."""
    low, high = place.quantile(0.002, dim=0), place.quantile(0.998, dim=0)
    corners = ((place - low) / (high - low)).clamp(0, 1).mul(SIDE - THUMBNAIL).round().int().tolist()
    picture = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    for corner, image, label in zip(corners, pixels, labels, strict=True):
        grey = Image.fromarray(image.numpy()).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        tinted = ImageOps.colorize(grey, BACKGROUND, COLOURS[label])  # its folds and seams stay to be seen
        picture.paste(tinted, tuple(corner), grey.point(lambda value: min(255, 5 * value)))
    return picture


def draw(maps: list[tuple[str, Image.Image]], classes: tuple[str, ...]) -> Image.Image:
    """The maps side by side, with what they are above and the colours of the classes below."""
    width = len(maps) * (SIDE + MARGIN) + MARGIN
    picture = Image.new("RGB", (width, HEAD + SIDE + FOOT), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for number, (title, image) in enumerate(maps):
        left = MARGIN + number * (SIDE + MARGIN)
        picture.paste(image, (left, HEAD))
        pen.text((left + SIDE / 2, HEAD / 2 + 4), title, LETTERS, ImageFont.load_default(30), anchor="mm")
    for number, name in enumerate(classes):
        x = width * (number + 0.5) / len(classes)
        pen.text((x, HEAD + SIDE + FOOT / 2), name, COLOURS[number], ImageFont.load_default(26), anchor="mm")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of the last map")
    args = parser.parse_args()
    data = FashionMNISTDataModule("fashion_mnist", os.environ.get("FMNIST_DATA_DIR", "data"))
    data.setup()
    run = fmnist_lit.train(*RECIPE, "trainer.max_epochs=1")
    models = {0: untrained(), 1: run.classifier().model}
    run = run.resume(f"trainer.max_epochs={args.epochs}")
    models[run.results["best_epoch"]] = run.classifier().model

    shown = data.test_images[:IMAGES]
    place, maps = None, []
    for epoch, model in models.items():
        accuracy = (
            (seen_by(model, data.scale(data.test_images.pixels))[1].argmax(1) == data.test_images.labels).float().mean()
        )
        place = arrange(seen_by(model, data.scale(shown.pixels))[0], place)
        maps.append((f"epoch {epoch}: {100 * accuracy:.1f} %", draw_map(place, shown.pixels[:, 0], shown.labels)))
        print(maps[-1][0])
    draw(maps, data.classes).quantize(200, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
