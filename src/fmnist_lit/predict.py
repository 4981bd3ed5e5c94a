"""python -m fmnist_lit.predict RUN_OR_CKPT IMAGE_OR_FOLDER…: what garment is in a picture?"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_lit.trained.find import NoSuchRunError, find_trained

if TYPE_CHECKING:
    from fmnist_lit.trained.classifier import TrainedClassifier

BATCH = 256  # pictures decoded before they are classified, so that any number of them takes the same memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify the pictures on the command line.

    Returns:
        The exit code: 0 all are classified, 1 some could not be used, or the checkpoint could not, 2 a bad argument.
    """
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit.predict", description="Classify pictures of garments.")
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run folder, a checkpoint or an exported .safetensors")
    parser.add_argument(
        "pictures", nargs="+", metavar="IMAGE_OR_FOLDER", help="PNG, JPEG, BMP or WebP of any size, or folders of them"
    )
    parser.add_argument(
        "--top", type=int, choices=range(1, 11), default=3, metavar="K", help="classes to show, 1 to 10"
    )
    parser.add_argument("--json", action="store_true", help="print one list, an object for each picture")
    parser.add_argument(
        "--background",
        choices=("auto", "black", "white"),
        default="auto",
        help="white is inverted; auto tells by the edge",
    )
    args = parser.parse_args(arguments)
    try:
        find_trained(args.run)
    except NoSuchRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from fmnist_lit.run.checkpoint import CheckpointError
    from fmnist_lit.trained.classifier import load

    try:
        classifier = load(args.run)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total = failed = 0
    for entry in show(classify(classifier, args.pictures, args.top, args.background), args.json):
        total += 1
        failed += "error" in entry
    if failed:
        print(f"{failed} of {total} could not be used", file=sys.stderr)
    return 1 if failed else 0


def classify(
    classifier: "TrainedClassifier", paths: Sequence[str | Path], top: int, background: str
) -> Iterator[dict[str, Any]]:
    """An entry for each picture, in order, as ``--json`` prints it; accuracies and probabilities are fractions."""
    import numpy as np

    from fmnist_lit.trained.photos import PictureError, find_pictures, read_picture

    def read(found: Path | tuple[Path, PictureError]) -> tuple[Path, Any]:
        if isinstance(found, tuple):
            return found
        try:
            return found, read_picture(found, background)
        except PictureError as error:
            return found, error

    pictures = map(read, find_pictures(paths))
    while batch := list(itertools.islice(pictures, BATCH)):
        pixels = [content for _, content in batch if not isinstance(content, PictureError)]
        rows = iter(classifier.predict(np.stack(pixels)).probabilities.tolist() if pixels else [])
        for file, content in batch:
            if isinstance(content, PictureError):
                yield {"file": str(file), "error": str(content)}
            else:
                yield {"file": str(file), **ranked(next(rows), classifier.classes, top)}


def ranked(probabilities: Sequence[float], classes: Sequence[str], top: int) -> dict[str, Any]:
    """The most probable class, and the ``top`` most probable ones, the best first."""
    order = sorted(range(len(classes)), key=lambda index: -probabilities[index])
    entries = [
        {"label": classes[index], "class_index": index, "probability": probabilities[index]} for index in order[:top]
    ]
    return {**entries[0], "top": entries}


def show(entries: Iterator[dict[str, Any]], as_json: bool) -> Iterator[dict[str, Any]]:
    """Print entries as they come, and hand them on."""
    separator = "["
    for entry in entries:
        if as_json:
            print(f"{separator}\n  {json.dumps(entry)}", end="")
            separator = ","
        else:
            print(f"{entry['file']}: {in_words(entry)}")
        yield entry
    if as_json:
        print("[]" if separator == "[" else "\n]")


def in_words(entry: dict[str, Any]) -> str:
    """``Ankle boot 97.1 %, Sneaker 2.2 %``, or why not."""
    if "error" in entry:
        return f"cannot be used: {entry['error']}"
    return ", ".join(f"{choice['label']} {100 * choice['probability']:.1f} %" for choice in entry["top"])


if __name__ == "__main__":
    sys.exit(main())
