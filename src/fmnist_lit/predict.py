"""python -m fmnist_lit.predict RUN_OR_CKPT IMAGE_OR_FOLDER…: which garment is in a photo?"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_lit.config import ConfigError
from fmnist_lit.config.trust import add_trust_option, trust
from fmnist_lit.processes.streams import READER_LEFT, reader_has_left, run_printing
from fmnist_lit.run.find import NoSuchRunError, find_trained

if TYPE_CHECKING:
    from fmnist_lit.data.photos import Background
    from fmnist_lit.trained.classifier import TrainedClassifier

PHOTOS_AT_A_TIME = 256  # decoded, then classified, so that any number of them takes bounded memory
NAMED_AT_MOST = 5  # files that are passed over


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify the photos that the command line names.

    Returns:
        The exit code: 0 all are classified, 1 a photo or the checkpoint cannot be used, 2 a bad argument, 141 who reads
            the output has left, as ``| head`` does.
    """
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit.predict", description="Classify photos of garments.")
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run folder, a checkpoint or an exported .safetensors")
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="pictures of any size (PNG, JPEG, WebP, GIF, TIFF, …), or folders of them",
    )
    parser.add_argument(
        "--top", type=at_least_one, default=3, metavar="K", help="classes to show, or all where there are fewer"
    )
    parser.add_argument("--json", action="store_true", help="print one list, an object for each photo")
    parser.add_argument(
        "--background",
        choices=("auto", "black", "white"),
        default="auto",
        help="white is inverted, and is put behind a cut-out; auto judges by the border or by the cut-out's rim",
    )
    parser.add_argument(
        "--trim",
        action="store_true",
        help="cut a plain background away, grey ones too, so that the garment fills the frame",
    )
    add_trust_option(parser)
    args = parser.parse_args(arguments)
    try:
        trust(args.trust)
        find_trained(args.run)
    except (NoSuchRunError, ConfigError) as error:
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
    passed_over: list[Path] = []
    entries = classify(classifier, args.photos, args.top, args.background, args.trim, passed_over)
    for entry in print_entries(entries, args.json):
        total += 1
        failed += "error" in entry
        if "warning" in entry:
            print(f"warning: {entry['file']}: {entry['warning']}; {advice(args.trim)}", file=sys.stderr)
        if reader_has_left():
            return READER_LEFT
    if passed_over:
        print(in_a_line(passed_over), file=sys.stderr)
    if failed:
        print(f"{failed} of {total} could not be used", file=sys.stderr)
    return 1 if failed else 0


def at_least_one(text: str) -> int:
    """The number that an argument gives."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")
    return int(text)


def classify(
    classifier: "TrainedClassifier",
    paths: Sequence[str | Path],
    top: int,
    background: "Background",
    trim: bool = False,
    passed_over: list[Path] | None = None,
) -> Iterator[dict[str, Any]]:
    """An entry for each photo, in order, as ``--json`` prints it; probabilities are fractions.

    What else is in the folders is added to ``passed_over``.
    """
    import numpy as np

    from fmnist_lit.data.photos import PhotoError, find_photos, open_photo
    from fmnist_lit.data.pixels import Converted

    def read(found: Path | tuple[Path, PhotoError]) -> tuple[Path, Converted | PhotoError]:
        if isinstance(found, tuple):
            return found
        try:
            return found, open_photo(found, background, trim)
        except PhotoError as error:
            return found, error

    photos = map(read, find_photos(paths, passed_over))
    while batch := list(itertools.islice(photos, PHOTOS_AT_A_TIME)):
        pixels = [content.pixels for _, content in batch if not isinstance(content, PhotoError)]
        rows = iter(classifier.predict(np.stack(pixels)).probabilities.tolist() if pixels else [])
        for file, content in batch:
            if isinstance(content, PhotoError):
                yield {"file": str(file), "error": str(content)}
                continue
            warning = {"warning": content.warning} if content.warning else {}
            yield {"file": str(file), **ranked(next(rows), classifier.classes, top), **warning}


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


def advice(trim: bool) -> str:
    """What settles a warning."""
    return "--background black|white says it" + ("" if trim else ", --trim cuts a plain one away")


def in_a_line(passed_over: Sequence[Path]) -> str:
    """``2 files passed over: notes.txt, boot.heic (…)``: pictures that are not read come first, with a word why."""
    from fmnist_lit.data.photos import why_passed_over

    files = sorted(passed_over, key=lambda path: not why_passed_over(path))  # stable
    named = [f"{path} ({why})" if (why := why_passed_over(path)) else str(path) for path in files[:NAMED_AT_MOST]]
    more = f" and {len(files) - NAMED_AT_MOST} more" if len(files) > NAMED_AT_MOST else ""
    return f"{len(files)} file{'s' * (len(files) != 1)} passed over: {', '.join(named)}{more}"


if __name__ == "__main__":
    sys.exit(run_printing(main))
