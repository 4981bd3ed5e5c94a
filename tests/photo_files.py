"""Files that show one garment, saved in every way that loses nothing, and files that are no photo."""

import os
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from fmnist_lit.data.synthetic import draw_split

GARMENT = draw_split(1, 0, "test")[0][0]


def png(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    Image.fromarray(GARMENT).rotate(90).save(path, exif=exif)


def as_photographed(seen=GARMENT > 0):
    """The garment cut out of a photo on white, RGBA; what is transparent has no colour left."""
    dark = np.where(seen, 255 - GARMENT, 0).astype(np.uint8)
    return Image.fromarray(np.dstack([dark, dark, dark, np.where(seen, 255, 0).astype(np.uint8)]))


def as_in_the_data_set():
    """The same cut out of the image that Fashion-MNIST would hold."""
    return Image.fromarray(np.dstack([GARMENT] * 3 + [np.where(GARMENT > 0, 255, 0).astype(np.uint8)]))


def turned_cut_out(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    as_photographed().rotate(90).save(path, exif=exif)


def with_transparent_colour(path):
    """A palette whose last colour is transparent."""
    image = Image.frombytes("P", (28, 28), np.where(GARMENT > 0, np.minimum(255 - GARMENT, 254), 255).tobytes())
    image.putpalette([level for level in range(256) for _ in range(3)])
    image.save(path, transparency=255)


def with_transparent_level(path):
    """A grey PNG of 16 bits in which one level is transparent, which Pillow reads but does not write."""
    levels = np.where(GARMENT > 0, (255 - GARMENT).astype(np.uint16) * 257, 1234)
    header = struct.pack(">IIBBBBB", 28, 28, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    chunks = {b"IHDR": header, b"tRNS": struct.pack(">H", 1234), b"IDAT": zlib.compress(rows), b"IEND": b""}
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks.items()
        )
    )


def of_two_frames(path, **options):
    other = Image.new("L", (28, 28), 99)
    Image.fromarray(GARMENT).convert("L").save(path, save_all=True, append_images=[other], **options)


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
    "cut_out.png": lambda path: as_photographed().save(path),
    "cut_out_of_the_data_set.png": lambda path: as_in_the_data_set().save(path),
    "grey_cut_out.png": lambda path: as_photographed().convert("LA").save(path),
    "turned_cut_out.png": turned_cut_out,
    "cut_out.webp": lambda path: as_photographed().save(path, lossless=True),
    "cut_out.tif": lambda path: as_photographed().save(path),
    "palette_cut_out.png": with_transparent_colour,
    "palette_cut_out.gif": with_transparent_colour,
    "16_bit_cut_out.png": with_transparent_level,
    "grey.gif": lambda path: png(path, GARMENT),
    "animated.gif": of_two_frames,
    "animated.png": of_two_frames,
    "pages.tiff": of_two_frames,
    "lzw.tif": lambda path: png(path, GARMENT, compression="tiff_lzw"),
    "turned.tif": turned,
    "16_bit.tif": lambda path: png(path, GARMENT.astype(np.uint16) * 257),
    "fractions.tif": lambda path: png(path, (GARMENT / 255).astype(np.float32)),
    "cmyk.tif": lambda path: Image.fromarray(np.dstack([GARMENT] * 3)).convert("CMYK").save(path),
    "grey.pgm": lambda path: png(path, GARMENT),
    "a_png_by_content.jpg": lambda path: png(path, GARMENT, format="PNG"),
}


def truncated(path):
    png(path, np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


def large_tile(path):
    """A TIFF of 28 × 28 pixels in one tile of 16,000 × 16,000."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {
        256: 28,
        257: 28,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: 16000,
        323: 16000,
        324: 8,
        325: 8,
    }.items():
        tags[tag] = value
    with path.open("wb") as file:
        file.write(b"II*\0\x10\0\0\0" + bytes(8))
        tags.save(file)


BAD = {
    "nothing.png": (lambda path: None, "No such file"),
    "empty.png": (lambda path: path.touch(), "0 bytes"),
    "text.png": (lambda path: path.write_text("hello"), "not a PNG, JPEG, BMP, WebP, GIF, TIFF"),
    "an_icon.png": (lambda path: png(path, GARMENT, format="ICO"), "not a PNG, JPEG, BMP, WebP, GIF, TIFF"),
    "heic.jpg": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), "save it as JPEG"),
    "drawing.png": (lambda path: path.write_text('<?xml version="1.0"?><svg/>'), "SVG, a drawing"),
    "large_tile.tif": (large_tile, "50 million pixels"),
    "truncated.png": (truncated, "truncated"),
    "loop.png": (lambda path: path.symlink_to(path), "symbolic links"),
    "pipe.png": (os.mkfifo, "not a file"),
    "large.png": (lambda path: Image.new("1", (8000, 8000)).save(path), "50 million pixels"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "50 million pixels"),
}
