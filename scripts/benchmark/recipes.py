"""What was tried for experiment=best_mlp: each recipe on images held out, never on the test set.

    FMNIST_DATA_DIR=… uv run python scripts/benchmark/recipes.py best_mlp mixup --splits 0 --output docs/results/recipes

The same network, optimiser and augmentation for all, in a plain loop, one thread, with what a recipe adds. A
split is a draw of the images that are held out; its number is the seed of the training, too. Without --output nothing
is written. scripts/make_results.py shows docs/results/recipes in RESULTS.md.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmnist_lit.data.augmentation import Augmentation
from fmnist_lit.data.images import Images, load_images
from fmnist_lit.losses import OneHotLoss
from fmnist_lit.model import MLP
from fmnist_lit.optimizers import MuonWithAdamW
from fmnist_lit.run.files import write_json
from fmnist_lit.run.provenance import software
from fmnist_lit.schedulers import WarmupPolynomialLR

BATCH_SIZE = 2048


@dataclass(frozen=True)
class Recipe:
    """A training; the defaults are what best_mlp was before, 100 epochs with the rate on a straight line to zero.

    Attributes:
        epochs: of training.
        ema_decay: of the average of the weights, per step.
        rotation, scaling, shear, translation: largest of each image's affine map, in degrees, shares and pixels.
        cutout: side of the square that is black in half of the images, in pixels.
        mixup: both parameters of the beta distribution of the share of another image (Zhang et al. 2018).
        sharpness: radius within which each step looks for the highest loss (SAM, Foret et al. 2021).
        weight_decay: of the hidden matrices.
        power: of the share of the steps that are left, which the learning rate follows down; 1 is a straight line.
        lowest: share of the highest learning rate that the last steps keep.
        mse: mean squared error of the logits against 0 and 1 in place of cross entropy.
        noise: standard deviation of what is added to each pixel after scaling.
        input_dropout, dropout: probability of zeroing a pixel, and a hidden unit.
        warp: largest displacement of a grid of 4 by 4 points, in pixels, interpolated between them.
        blur: standard deviation of a Gaussian filter over all images, in pixels.
        blurred: share of the filtered image in what the network sees; negative sharpens.
    """

    epochs: int = 100
    ema_decay: float = 0.99
    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    sharpness: float = 0.0
    weight_decay: float = 0.1
    power: float = 1.0
    lowest: float = 0.0
    mse: bool = False
    noise: float = 0.0
    input_dropout: float = 0.0
    dropout: float = 0.0
    warp: float = 0.0
    blur: float = 0.0
    blurred: float = 1.0


RECIPES = {
    "before": Recipe(),
    "best_mlp": Recipe(epochs=250, power=3, weight_decay=0.2),
    "half_as_long": Recipe(epochs=50),
    "longer": Recipe(epochs=250, ema_decay=0.996),
    "affine": Recipe(rotation=8, scaling=0.08, translation=1),
    "cutout": Recipe(cutout=8),
    "mixup": Recipe(mixup=0.2),
    "mixup_longer": Recipe(epochs=250, ema_decay=0.996, mixup=0.2),
    "sam_half_as_long": Recipe(epochs=50, sharpness=0.05),
    "constant": Recipe(lowest=1.0),
    "not_to_zero": Recipe(lowest=0.3),
    "not_to_zero_decay": Recipe(lowest=0.3, weight_decay=0.2),
    "square": Recipe(power=2),
    "cubic": Recipe(power=3, weight_decay=0.2),
    "cubic_decay": Recipe(power=3, weight_decay=0.4),
    "cubic_longer_mixup": Recipe(epochs=250, power=3, weight_decay=0.3, mixup=0.2),
    "mse": Recipe(mse=True),
    "blur_half_as_long": Recipe(epochs=50, blur=0.8),
    "more_blur_half_as_long": Recipe(epochs=50, blur=1.2),
    "sharpen_half_as_long": Recipe(epochs=50, blur=1, blurred=-1),
    "decay_half_as_long": Recipe(epochs=50, weight_decay=0.2),
    "dropout_half_as_long": Recipe(epochs=50, dropout=0.05),
    "input_dropout_half_as_long": Recipe(epochs=50, input_dropout=0.1),
    "mixup_half_as_long": Recipe(epochs=50, mixup=0.2),
    "noise_half_as_long": Recipe(epochs=50, noise=0.2),
    "translation_half_as_long": Recipe(epochs=50, translation=0.5),
    "warp_half_as_long": Recipe(epochs=50, warp=1),
}


class Held:
    """Images (N, 1, 28, 28) and labels, of which some are for validation."""

    def __init__(self, split: int, held_out: int, recipe: Recipe) -> None:
        images = load_images("fashion_mnist", os.environ.get("FMNIST_DATA_DIR", "data"), 0).train
        levels = images.pixels.float()
        self.mean, self.std = float(levels.mean() / 255), float(levels.std() / 255)
        if recipe.blur:
            blurred = torch.lerp(levels, gaussian_filter(levels, recipe.blur), recipe.blurred)
            images = Images(blurred, images.labels)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 + split))
        self.validation, self.training = images[order[:held_out]], images[order[held_out:]]

    def scale(self, pixels: Tensor) -> Tensor:
        """Grey levels to mean 0 and standard deviation 1."""
        return (pixels.float() / 255 - self.mean) / self.std


def gaussian_filter(pixels: Tensor, std: float) -> Tensor:
    """Images (N, 1, H, W), black around them, filtered within four pixels."""
    across = torch.exp(-(torch.arange(-4, 5) ** 2) / (2 * std**2))
    across /= across.sum()
    down = F.conv2d(pixels, across.view(1, 1, 9, 1), padding=(4, 0))
    return F.conv2d(down, across.view(1, 1, 1, 9), padding=(0, 4))


def moved(pixels: Tensor, recipe: Recipe) -> Tensor:
    """Each image under an affine map and a warp of its own, interpolated."""
    angle, scale, aspect, shear = ((torch.rand(len(pixels)) * 2 - 1) for _ in range(4))
    offset = (torch.rand(len(pixels), 2) * 2 - 1) * recipe.translation * 2 / pixels.shape[-1]
    angle = angle * recipe.rotation * math.pi / 180
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale, aspect = 1 + scale * recipe.scaling, 1 + aspect * recipe.scaling
    across = torch.stack([cos * scale, (-sin + shear * recipe.shear) * scale, offset[:, 0]], 1)
    down = torch.stack([sin * scale * aspect, cos * scale * aspect, offset[:, 1]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(pixels.shape), align_corners=False)
    if recipe.warp:
        warp = (torch.rand(len(pixels), 2, 4, 4) * 2 - 1) * recipe.warp * 2 / pixels.shape[-1]
        fine = F.interpolate(warp, size=pixels.shape[2:], mode="bicubic", align_corners=True)
        grid = grid + fine.permute(0, 2, 3, 1)
    return F.grid_sample(pixels.float(), grid, mode="bilinear", align_corners=False)


def cut_out(pixels: Tensor, side: int) -> Tensor:
    """Half of the images with a black square, which may reach over the rim."""
    rows, columns = (torch.randint(pixels.shape[-1], (len(pixels), 1)) for _ in range(2))
    places = torch.arange(pixels.shape[-1])[None]
    inside = ((places - rows).abs() < side / 2)[:, :, None] & ((places - columns).abs() < side / 2)[:, None, :]
    chosen = torch.rand(len(pixels)) < 0.5
    return pixels.masked_fill((inside & chosen[:, None, None])[:, None], 0)


def mixed_loss(model: MLP, recipe: Recipe, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """The loss of a batch, of mixed images if the recipe mixes; the same mixture at every call."""
    if recipe.mse:
        mse = OneHotLoss(nn.MSELoss())
        return lambda: mse(model(images).float(), labels)
    if not recipe.mixup:
        return lambda: F.cross_entropy(model(images), labels)
    share = float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
    others = torch.randperm(len(images))
    mixed = share * images + (1 - share) * images[others]

    def loss() -> Tensor:
        logits = model(mixed)
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[others])

    return loss


def backward(loss: Callable[[], Tensor], model: MLP, radius: float) -> None:
    """The gradient of the loss here or, with a radius, where it is highest nearby, to first order."""
    parameters = list(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        here = loss()
    here.backward()
    if not radius:
        return
    with torch.no_grad():
        norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
        steps = [p.grad * (radius / (norm + 1e-12)) for p in parameters]
        torch._foreach_add_(parameters, steps)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        there = loss()
    there.backward()
    with torch.no_grad():
        torch._foreach_sub_(parameters, steps)


def learning_rate(step: int, schedule: WarmupPolynomialLR, lowest: float) -> float:
    """The share of the highest rate, as best_mlp's schedule has it, but that it falls to ``lowest`` and not to zero."""
    share = schedule.factor(step)
    return share if step < schedule.warmup_steps else lowest + (1 - lowest) * share


def train(recipe: Recipe, held: Held, seed: int) -> MLP:
    """The network with the average of its weights."""
    torch.manual_seed(seed)
    model = MLP(dropout=recipe.dropout)
    named = list(model.named_parameters())
    matrices = {"params": [(name, p) for name, p in named if p.ndim > 1]}
    biases = {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0}
    optimizer = MuonWithAdamW([matrices, biases], lr=0.08, weight_decay=recipe.weight_decay, adamw_weight_decay=0.05)
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = list(model.parameters())
    average = [p.detach().clone() for p in parameters]
    augmentation, chance = Augmentation(flip=True, shift=1), torch.Generator().manual_seed(seed)
    images = held.training
    steps, step = math.ceil(len(images) / BATCH_SIZE) * recipe.epochs, 0
    schedule = WarmupPolynomialLR(optimizer, steps, power=recipe.power)
    moves = any((recipe.rotation, recipe.scaling, recipe.shear, recipe.translation, recipe.warp))
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=chance)
        draws = augmentation.draw(len(images), chance, torch.device("cpu"))
        for rows in torch.split(order, BATCH_SIZE):
            batch = images[rows]
            pixels = moved(batch.pixels, recipe) if moves else batch.pixels
            pixels = augmentation.apply(pixels, draws[rows])
            if recipe.cutout:
                pixels = cut_out(pixels, recipe.cutout)
            seen = held.scale(pixels)
            if recipe.noise:
                seen = seen + recipe.noise * torch.randn_like(seen)
            if recipe.input_dropout:
                seen = F.dropout(seen, recipe.input_dropout)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * learning_rate(step, schedule, recipe.lowest)
            backward(mixed_loss(model, recipe, seen, batch.labels), model, recipe.sharpness)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - recipe.ema_decay)
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    return model


@torch.no_grad()
def accuracies(model: MLP, held: Held) -> tuple[float, float]:
    """On the images held out, plain and averaged with their mirror images."""
    model.eval()
    images, labels = held.scale(held.validation.pixels), held.validation.labels
    plain = model(images)
    both = (plain + model(images.flip(3))) / 2
    shares = [(logits.argmax(1) == labels).float().mean().item() for logits in (plain, both)]
    return shares[0], shares[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", choices=RECIPES, help=", ".join(RECIPES))
    parser.add_argument("--splits", type=int, nargs="+", default=[0])
    parser.add_argument("--held-out", type=int, default=5000, help="images of the 60,000 that validate")
    parser.add_argument("--epochs", type=int, help="for all, to try the script")
    parser.add_argument("--output", type=Path, help="folder for a JSON file a recipe and split")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.recipes:
        recipe = RECIPES[name]
        settings = asdict(recipe) | ({"epochs": args.epochs} if args.epochs else {})
        for split in args.splits:
            changed = Recipe(**settings)
            held, start = Held(split, args.held_out, changed), time.process_time()
            model = train(changed, held, seed=split)
            seconds = time.process_time() - start
            plain, averaged = accuracies(model, held)
            shown = f"{100 * plain:.2f} %, with flip averaging {100 * averaged:.2f} %"
            print(f"{name}, split {split}: {shown}, {seconds:.0f} CPU seconds", flush=True)
            found = {"recipe": name, "settings": settings, "split": split, "held_out": args.held_out}
            found |= {
                "val_accuracy": plain,
                "val_accuracy_flip_average": averaged,
                "cpu_seconds": round(seconds, 1),
                **software(),
            }
            if args.output:
                write_json(args.output / f"{name}_{args.held_out}_{split}.json", found)


if __name__ == "__main__":
    main()
