"""python -m fmnist_lit.predict RUN_OR_CKPT IMAGE_OR_FOLDER…: which garment is in a photo?"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_lit.processes.streams import READER_LEFT, reader_has_left, run_printing
from fmnist_lit.trained.find import NoSuchRunError, find_trained

if TYPE_CHECKING:
    from fmnist_lit.trained.classifier import TrainedClassifier
    from fmnist_lit.trained.photos import Background

PHOTOS_AT_A_TIME = 256  # decoded, then classified, so that any number of them takes bounded memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify the photos that the command line names.

    Returns:
        The exit code: 0 all are classified, 1 a photo or the checkpoint cannot be used, 2 a bad argument, 141 who reads
            the output has left, as ``| head`` does.
    """
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit.predict", description="Classify photos of garments.")
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run folder, a checkpoint or an exported .safetensors")
    parser.add_argument(
        "photos", nargs="+", metavar="IMAGE_OR_FOLDER", help="PNG, JPEG, BMP or WebP of any size, or folders of them"
    )
    parser.add_argument(
        "--top", type=int, choices=range(1, 11), default=3, metavar="K", help="classes to show, 1 to 10"
    )
    parser.add_argument("--json", action="store_true", help="print one list, an object for each photo")
    parser.add_argument(
        "--background",
        choices=("auto", "black", "white"),
        default="auto",
        help="white is inverted; auto judges by the border",
    )
    args = parser.parse_args(arguments)
    try:
        find_trained(args.run)
    except NoSuchRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from fmnist_lit.run.checkpoint import CheckpointError
    from fmnist_lit.trained.load import load_trained

    try:
        classifier = load_trained(args.run)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total = failed = 0
    for entry in print_entries(classify(classifier, args.photos, args.top, args.background), args.json):
        total += 1
        failed += "error" in entry
        if reader_has_left():
            return READER_LEFT
    if failed:
        print(f"{failed} of {total} could not be used", file=sys.stderr)
    return 1 if failed else 0


def classify(
    classifier: "TrainedClassifier", paths: Sequence[str | Path], top: int, background: "Background"
) -> Iterator[dict[str, Any]]:
    """An entry for each photo, in order, as ``--json`` prints it; probabilities are fractions."""
    import numpy as np

    from fmnist_lit.trained.photos import PhotoError, find_photos, read_photo

    def read(found: Path | tuple[Path, PhotoError]) -> tuple[Path, np.ndarray | PhotoError]:
        if isinstance(found, tuple):
            return found
        try:
            return found, read_photo(found, background)
        except PhotoError as error:
            return found, error

    photos = map(read, find_photos(paths))
    while batch := list(itertools.islice(photos, PHOTOS_AT_A_TIME)):
        pixels = [content for _, content in batch if not isinstance(content, PhotoError)]
        rows = iter(classifier.predict(np.stack(pixels)).probabilities.tolist() if pixels else [])
        for file, content in batch:
            if isinstance(content, PhotoError):
                yield {"file": str(file), "error": str(content)}
            else:
                yield {"file": str(file), **ranked(next(rows), classifier.classes, top)}


def ranked(probabilities: Sequence[float], classes: Sequence[str], top: int) -> dict[str, Any]:
    """The most probable class, and the ``top`` most probable ones, most probable first."""
    order = sorted(range(len(classes)), key=lambda index: -probabilities[index])
    entries = [
        {"label": classes[index], "class_index": index, "probability": probabilities[index]} for index in order[:top]
    ]
    return {**entries[0], "top": entries}


def print_entries(entries: Iterator[dict[str, Any]], as_json: bool) -> Iterator[dict[str, Any]]:
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
    """``Ankle boot 97.1 %, Sneaker 2.2 %``, or why the photo cannot be used."""
    if "error" in entry:
        return f"cannot be used: {entry['error']}"
    return ", ".join(f"{choice['label']} {100 * choice['probability']:.1f} %" for choice in entry["top"])


if __name__ == "__main__":
    sys.exit(run_printing(main))
