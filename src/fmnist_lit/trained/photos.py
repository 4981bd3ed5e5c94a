"""A user's photo, converted to what Fashion-MNIST holds: 28 × 28, grey, a light garment on black."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_lit.errors import in_one_line

Background = Literal["auto", "black", "white"]

SIDE = 28
PHOTO_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_BYTES = 100_000_000
MAX_PIXELS = 50_000_000  # 200 MB decoded; a camera's photo has 12 to 50 million
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} million pixels when decoded"


class PhotoError(ValueError):
    """A file that cannot be used as a photo; the message is the reason, without the file's name."""


def find_photos(paths: Sequence[str | Path]) -> Iterator[Path | tuple[Path, PhotoError]]:
    """The photos that ``paths`` mean: files, and errors for folders that cannot be used.

    A folder means the files in it and in its subfolders with one of ``PHOTO_SUFFIXES``, in the order of their names.
    Links to folders in it are not followed.
    """
    for path in map(Path, map(os.path.expanduser, paths)):
        if not path.is_dir():
            yield path
            continue
        failures: list[OSError] = []
        found = 0
        for folder, subfolders, names in os.walk(path, onerror=failures.append):
            subfolders.sort()
            for name in sorted(names):
                if name.lower().endswith(PHOTO_SUFFIXES):
                    found += 1
                    yield Path(folder, name)
        for failure in failures:
            yield Path(failure.filename), PhotoError(f"cannot be listed: {failure.strerror}")
        if not found and not failures:
            yield path, PhotoError(f"no picture in this folder; they end in {', '.join(PHOTO_SUFFIXES)}")


def read_photo(file: str | Path, background: Background = "auto") -> np.ndarray:
    """The photo in a file, as ``to_pixels`` converts it. Its format is told by its content, not by its name.

    Raises:
        PhotoError: if it is not a PNG, JPEG, BMP or WebP, is damaged, or is too large to decode safely.
    """
    path = Path(os.path.expanduser(file))
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PhotoError("not a file")
        if size == 0:
            raise PhotoError("empty, 0 bytes")
        if size > MAX_BYTES:
            raise PhotoError(f"{size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f} MB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of odd EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=PHOTO_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PhotoError(TOO_LARGE)
                image.draft(None, (4 * SIDE, 4 * SIDE))  # a large JPEG is decoded at a fraction of its size
                return to_pixels(image, background)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError("not a PNG, JPEG, BMP or WebP picture, or its first bytes are damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(TOO_LARGE) from None
    except OSError as error:  # from the file system with a strerror, from a decoder without
        raise PhotoError(error.strerror or in_one_line(error)) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise PhotoError(f"cannot be decoded: {in_one_line(error)}") from error


def to_pixels(image: Image.Image, background: Background = "auto") -> np.ndarray:
    """A photo as (28, 28) uint8, light on black.

    It is rotated as its EXIF data say, put over black where it is transparent, made grey (ITU-R 601 luma), scaled to
    fit into 28 × 28 at its aspect ratio, and inverted if its background is white. Of 16 bits, the high 8 are kept.

    Args:
        image: of any size and mode.
        background: ``auto`` takes it for white if the border is on average lighter than mid-grey, which is right for
            each of Fashion-MNIST's 70,000 images and for each of their negatives.
    """
    image = fit_into_square(to_simple_mode(ImageOps.exif_transpose(image)))
    if image.mode == "RGBa":  # already multiplied by alpha, that is, over black
        image = Image.merge("RGB", image.split()[:3])
    if image.mode == "RGB":
        image = image.convert("L")
    pixels = np.asarray(image)  # L, or F where there were 16 bits
    grey = pixels if pixels.dtype == np.uint8 else np.clip(pixels / 256, 0, 255).astype(np.uint8)
    if background == "white" or (background == "auto" and border(grey).mean() > 127.5):
        grey = 255 - grey
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - grey.shape[0]) // 2, (SIDE - grey.shape[1]) // 2
    canvas[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return canvas


def to_simple_mode(image: Image.Image) -> Image.Image:
    """The same image in mode L, RGB or RGBa, or, of 16 bits, F in 0..65535."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).astype(np.float32))
    if image.has_transparency_data:
        return image.convert("RGBA").convert("RGBa")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def fit_into_square(image: Image.Image) -> Image.Image:
    """Scaled so that it just fits into 28 × 28; shrinking averages areas, so that whole factors are exact."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)


def border(grey: np.ndarray) -> np.ndarray:
    """The outermost pixels of an image (H, W)."""
    return np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
