"""The files that a user calls photos: which there are, and how to read a stranger's safely."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from fmnist_lit.data.pixels import SIDE, Background, Converted, convert, to_pixels
from fmnist_lit.errors import in_one_line

__all__ = ["Background", "PhotoError", "PhotoWarning", "find_photos", "open_photo", "read_photo", "to_pixels"]

# What Pillow decodes in this process, and names by their first bytes: not EPS, which it gives to Ghostscript, for one.
PHOTO_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else []))
PHOTO_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *([".avif"] if "AVIF" in PHOTO_FORMATS else []),
)
KNOWN = "PNG, JPEG, BMP, WebP, GIF, TIFF, PPM" + (" or AVIF" if "AVIF" in PHOTO_FORMATS else "")
HEIC = "HEIC, which Pillow does not read: save it as JPEG"
SVG = "SVG, a drawing without pixels: save it as PNG"
AVIF = "AVIF, which the installed Pillow does not read: save it as JPEG"
MAX_BYTES = 100_000_000
MAX_PIXELS = 50_000_000  # 200 MB decoded; a camera's photo has 12 to 50 million
TOO_LARGE = f"more than {MAX_PIXELS / 1e6:.0f} million pixels when decoded"
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF


class PhotoError(ValueError):
    """A file that cannot be used as a photo; the message is the reason, without the file's name."""


class PhotoWarning(UserWarning):
    """A photo is used, but how it was to be converted is in doubt."""


def find_photos(
    paths: Sequence[str | Path], passed_over: list[Path] | None = None
) -> Iterator[Path | tuple[Path, PhotoError]]:
    """The photos that ``paths`` mean: files, and errors for folders that cannot be used.

    A folder means the files in it and in its subfolders with one of ``PHOTO_SUFFIXES``, in the order of their names.
    Links to folders in it are not followed. They and the other files in it are added to ``passed_over``.
    """
    others = passed_over if passed_over is not None else []
    for path in map(Path, map(os.path.expanduser, paths)):
        if not path.is_dir():
            yield path
            continue
        failures: list[OSError] = []
        found = 0
        for folder, subfolders, names in os.walk(path, onerror=failures.append):
            subfolders.sort()
            others += [Path(folder, name) for name in subfolders if os.path.islink(Path(folder, name))]
            for name in sorted(names):
                if name.lower().endswith(PHOTO_SUFFIXES):
                    found += 1
                    yield Path(folder, name)
                else:
                    others.append(Path(folder, name))
        for failure in failures:
            yield Path(failure.filename), PhotoError(f"cannot be listed: {failure.strerror}")
        if not found and not failures:
            yield path, PhotoError(f"no picture in this folder; they end in {', '.join(PHOTO_SUFFIXES)}")


def why_passed_over(path: Path) -> str:
    """For a file of pictures that are not read, what to do about it; else nothing."""
    suffix = path.suffix.lower()
    if suffix in (".heic", ".heif", ".hif"):
        return HEIC
    return {".svg": SVG, ".svgz": SVG, ".avif": AVIF}.get(suffix, "")


def read_photo(file: str | Path, background: Background = "auto", trim: bool = False) -> np.ndarray:
    """The pixels of ``open_photo``, (28, 28) uint8, light on black."""
    return open_photo(file, background, trim).pixels


def open_photo(file: str | Path, background: Background = "auto", trim: bool = False) -> Converted:
    """The photo in a file, as ``convert`` converts it; of several frames or pages, the first.

    Its format is told by its content, not by its name.

    Raises:
        PhotoError: if it has none of ``PHOTO_FORMATS``, is damaged, or is too large to decode safely.
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
                refuse_large(image)
                # A large JPEG is decoded at a fraction of its size; what is trimmed may be a small part of it.
                image.draft(None, (32 * SIDE, 32 * SIDE) if trim else (4 * SIDE, 4 * SIDE))
                return convert(image, background, trim)
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError(why_unknown(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(TOO_LARGE) from None
    except OSError as error:  # from the file system with a strerror, from a decoder without
        raise PhotoError(error.strerror or in_one_line(error)) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise PhotoError(f"cannot be decoded: {in_one_line(error)}") from error


def refuse_large(image: Image.Image) -> None:
    """Refuse an opened picture that would decode to too many pixels, a TIFF also for tiles larger than itself."""
    pixels = [image.width * image.height]
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        pixels.append(int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0)))
    if max(pixels) > MAX_PIXELS:
        raise PhotoError(TOO_LARGE)


def why_unknown(path: Path) -> str:
    """What a file is that is no photo, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return AVIF if "AVIF" not in PHOTO_FORMATS else "an AVIF picture that is damaged"
    if start[4:8] == b"ftyp" and start[8:12] in (
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"mif1",
        b"msf1",
    ):
        return HEIC
    if b"<svg" in start:
        return SVG
    return f"not a {KNOWN} picture, or its first bytes are damaged"
