"""Any ordinary picture as Fashion-MNIST would have it: 28 × 28, grey, a light garment on black."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Background = Literal["auto", "black", "white"]

SIDE = 28
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_BYTES = 100_000_000
MAX_PIXELS = 50_000_000  # 200 MB decoded; a camera's picture has 12 to 50 million
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} million pixels when decoded"


class PictureError(ValueError):
    """A file that cannot be used as a picture; the message is the reason."""


def find_pictures(paths: Sequence[str | Path]) -> Iterator[Path | tuple[Path, PictureError]]:
    """The picture files that ``paths`` mean, or what is wrong with one of them.

    A folder means the files in it, and in its subfolders, whose names end as pictures' do, in the order of their names.
    Links to folders in it are not followed.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        failures: list[OSError] = []
        found = 0
        for folder, subfolders, names in os.walk(path, onerror=failures.append):
            subfolders.sort()
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES):
                    found += 1
                    yield Path(folder, name)
        for failure in failures:
            yield Path(failure.filename), PictureError(f"cannot be listed: {failure.strerror}")
        if not found and not failures:
            yield path, PictureError(f"no picture in this folder; they end in {', '.join(SUFFIXES)}")


def read_picture(file: str | Path, background: Background = "auto") -> np.ndarray:
    """The picture in a file, as ``to_pixels`` makes it. What it is, is told by its content.

    Raises:
        PictureError: if it is not a whole PNG, JPEG, BMP or WebP picture, or too large to decode safely.
    """
    path = Path(file)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PictureError("not a file")
        if size == 0:
            raise PictureError("empty, 0 bytes")
        if size > MAX_BYTES:
            raise PictureError(f"{size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f} MB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of odd EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PictureError(TOO_LARGE)
                image.draft(None, (4 * SIDE, 4 * SIDE))  # a large JPEG is decoded at a fraction of its size
                return to_pixels(image, background)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError("not a PNG, JPEG, BMP or WebP picture, or its first bytes are damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(TOO_LARGE) from None
    except OSError as error:  # the file system's have a strerror, the decoders' a text
        raise PictureError(reason(error.strerror or str(error))) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise PictureError(f"cannot be decoded: {reason(str(error) or type(error).__name__)}") from error


def reason(text: str) -> str:
    """The first line of an error's text."""
    return " ".join(text.split("\n")[0].split())[:200]


def to_pixels(image: Image.Image, background: Background = "auto") -> np.ndarray:
    """A picture of any size and mode, (28, 28) uint8, as light as Fashion-MNIST has it on black.

    It is turned as its EXIF data say, put over black where it is transparent, made grey (ITU-R 601 luma), fitted into
    28 × 28 keeping its aspect, and inverted if its background is white. 16-bit pictures keep their high bytes.

    Args:
        image: neither its size nor its aspect matters.
        background: ``auto`` takes it for white where the picture's edge is lighter than mid-grey on average; of the
            70,000 images of Fashion-MNIST and their negatives, that is right for every one.
    """
    image = fit(in_simple_mode(ImageOps.exif_transpose(image)))
    if image.mode == "RGBa":  # multiplied by alpha, which is over black
        image = Image.merge("RGB", image.split()[:3])
    if image.mode == "RGB":
        image = image.convert("L")
    pixels = np.asarray(image)  # L, or F of a 16-bit picture
    grey = pixels if pixels.dtype == np.uint8 else np.clip(pixels / 256, 0, 255).astype(np.uint8)
    if background == "white" or (background == "auto" and edge(grey).mean() > 127.5):
        grey = 255 - grey
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - grey.shape[0]) // 2, (SIDE - grey.shape[1]) // 2
    canvas[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return canvas


def in_simple_mode(image: Image.Image) -> Image.Image:
    """The same picture as L, RGB, RGBa, or, of 16 bits, F in 0..65535."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).astype(np.float32))
    if image.has_transparency_data:
        return image.convert("RGBA").convert("RGBa")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def fit(image: Image.Image) -> Image.Image:
    """As large as fits into 28 × 28; the mean over an area where it shrinks, so that whole factors are exact."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)


def edge(grey: np.ndarray) -> np.ndarray:
    """The outermost pixels of a picture (H, W)."""
    return np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
