"""Files that show one garment, saved in every way that loses nothing, and files that are no photo."""

import os

import numpy as np
from PIL import Image

from fmnist_lit.data.synthetic import draw_split

GARMENT = draw_split(1, 0, "test")[0][0]


def png(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    Image.fromarray(GARMENT).rotate(90).save(path, exif=exif)


LOSSLESS = {
    "grey.png": lambda path: png(path, GARMENT),
    "rgb.png": lambda path: png(path, np.dstack([GARMENT] * 3)),
    "transparent.png": lambda path: png(path, np.dstack([np.full((28, 28, 3), 255, np.uint8), GARMENT])),
    "grey_alpha.png": lambda path: png(path, np.dstack([np.full((28, 28), 255, np.uint8), GARMENT])),
    "palette.png": lambda path: Image.fromarray(GARMENT).quantize(256).save(path),
    "16_bit.png": lambda path: png(path, GARMENT.astype(np.uint16) * 257),
    "white.png": lambda path: png(path, 255 - GARMENT),
    "turned.png": turned,
    "ten_times.png": lambda path: png(path, GARMENT.repeat(10, 0).repeat(10, 1)),
    "grey.bmp": lambda path: png(path, GARMENT),
    "rgb.webp": lambda path: png(path, np.dstack([GARMENT] * 3), lossless=True),
    "a_png_by_content.jpg": lambda path: png(path, GARMENT, format="PNG"),
}


def truncated(path):
    png(path, np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "nothing.png": (lambda path: None, "No such file"),
    "empty.png": (lambda path: path.touch(), "0 bytes"),
    "text.png": (lambda path: path.write_text("hello"), "not a PNG, JPEG, BMP or WebP"),
    "a_gif.png": (lambda path: png(path, GARMENT, format="GIF"), "not a PNG, JPEG, BMP or WebP"),
    "truncated.png": (truncated, "truncated"),
    "loop.png": (lambda path: path.symlink_to(path), "symbolic links"),
    "pipe.png": (os.mkfifo, "not a file"),
    "large.png": (lambda path: Image.new("1", (8000, 8000)).save(path), "50 million pixels"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "50 million pixels"),
}
