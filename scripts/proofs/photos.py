"""Measure what a trained classifier makes of test images that are saved as photographs.

    FMNIST_DATA_DIR=… uv run python scripts/proofs/photos.py RUN_OR_CKPT [--images 500]

Prints a table: the accuracy as the pictures are taken by themselves, and with trim. Exits with 1 if cut-outs, of
garments as photographed or as in the data set, lose half a percent against the images themselves.
"""

import argparse
import sys
import warnings

import numpy as np
from PIL import Image

import fmnist_lit
from fmnist_lit.data.photos import PhotoWarning
from fmnist_lit.trained.data import open_data


def cut_out(shown: np.ndarray, garment: np.ndarray) -> Image.Image:
    """RGBA, opaque where the garment is above 0."""
    return Image.fromarray(np.dstack([shown] * 3 + [np.where(garment > 0, 255, 0).astype(np.uint8)]))


def on_paper(garment: np.ndarray, colour: tuple[int, int, int], noise: float) -> Image.Image:
    """The garment as photographed, four times as large, on paper of one colour with wide margins."""
    large = np.asarray(Image.fromarray(garment).resize((112, 112), Image.Resampling.BICUBIC), np.float64)[..., None]
    covered = np.clip(large / 16, 0, 1)
    paper = np.ones((224, 336, 3)) * colour
    paper[30:142, 60:172] = (255 - large) * covered + paper[30:142, 60:172] * (1 - covered)
    paper += np.random.default_rng(int(garment.sum())).normal(0, noise, paper.shape)
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


WAYS = {
    "the images themselves": Image.fromarray,
    "their negatives": lambda garment: Image.fromarray(255 - garment),
    "cut out, as photographed": lambda garment: cut_out(255 - garment, garment),
    "cut out, as in the data set": lambda garment: cut_out(garment, garment),
    "on white paper, wide margins": lambda garment: on_paper(garment, (255, 255, 255), 0),
    "on light grey paper (220), noise 5": lambda garment: on_paper(garment, (220, 220, 220), 5),
    "on mid-grey paper (128), noise 5": lambda garment: on_paper(garment, (128, 128, 128), 5),
    "on green paper, noise 5": lambda garment: on_paper(garment, (60, 180, 80), 5),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN_OR_CKPT")
    parser.add_argument("--images", type=int, default=500)
    args = parser.parse_args()
    warnings.simplefilter("ignore", PhotoWarning)  # of the edges that are grey on purpose
    classifier = fmnist_lit.load_classifier(args.run)
    data = open_data(classifier)
    data.setup()
    test = data.test_images[: args.images]
    garments, labels = test.pixels.numpy().reshape(-1, 28, 28), test.labels
    print(f"{len(garments)} test images of {classifier.dataset}\n\n| saved | auto | trim |\n| --- | --- | --- |")
    accuracy = {}
    for way, save in WAYS.items():
        pictures = [save(garment) for garment in garments]
        for trim in (False, True):
            right = classifier.predict(pictures, trim=trim).class_indices == labels
            accuracy[way, trim] = 100 * right.float().mean().item()
        print(f"| {way} | {accuracy[way, False]:.1f} % | {accuracy[way, True]:.1f} % |", flush=True)
    lost = [
        accuracy["the images themselves", False] - accuracy[way, False] for way in WAYS if way.startswith("cut out")
    ]
    return 1 if max(lost) > 0.5 else 0


if __name__ == "__main__":
    sys.exit(main())
