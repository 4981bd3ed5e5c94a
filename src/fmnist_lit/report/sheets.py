"""Many small images on one sheet, as PNG: with a caption below each, or as a grid of weights."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION_SIZE = 12  # pixels
MARGIN = 4  # between images
SHADES = 20  # of red, and of blue
# from blue over white, which is 0, to red
PALETTE = [
    255 if channel == (2 if shade < 0 else 0) else 255 - round(255 * abs(shade) / SHADES)
    for shade in range(-SHADES, SHADES + 1)
    for channel in range(3)
]


def image_sheet(images: np.ndarray, captions: Sequence[str], columns: int = 8, scale: int = 4) -> bytes:
    """Images (N, H, W) uint8, ``scale`` times as large, each with its caption, lines of text, below."""
    lines = max(caption.count("\n") + 1 for caption in captions)
    height, width = (scale * side for side in images.shape[1:])
    cell_height, cell_width = height + lines * (CAPTION_SIZE + 3) + 2 * MARGIN, width + 2 * MARGIN
    rows = -(-len(images) // columns)
    sheet = Image.new("L", (columns * cell_width, rows * cell_height), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION_SIZE)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = number % columns * cell_width + MARGIN, number // columns * cell_height + MARGIN
        sheet.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.multiline_text((left, top + height + 2), caption, 0, font, spacing=2)
    return sheet_to_png(sheet)


def weight_sheet(weights: np.ndarray, columns: int = 8, scale: int = 2) -> bytes:
    """Weights (N, H, W) as a grid: positive ones red, negative ones blue, the strongest of the sheet the darkest."""
    weights = np.nan_to_num(weights, posinf=0, neginf=0)
    strength = weights / max(float(np.abs(weights).max()), 1e-12)
    shades = np.rint(SHADES * strength).astype(np.int8) + SHADES  # into PALETTE
    tiles = shades.astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (2, 2), (2, 2)), constant_values=SHADES)
    num, height, width = tiles.shape
    grid = tiles.reshape(num // columns, columns, height, width).swapaxes(1, 2)
    sheet = Image.fromarray(grid.reshape(num // columns * height, columns * width)).convert("P")
    sheet.putpalette(PALETTE)
    return sheet_to_png(sheet)


def fewer_colours(png: bytes) -> bytes:
    """The same picture in at most 64 colours, which takes a third of the room."""
    return sheet_to_png(Image.open(io.BytesIO(png)).convert("RGB").quantize(64))


def sheet_to_png(image: Image.Image) -> bytes:
    """An image as PNG."""
    content = io.BytesIO()
    image.save(content, format="png")
    return content.getvalue()
