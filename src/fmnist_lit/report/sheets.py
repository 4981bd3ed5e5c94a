"""Many small images on one sheet, as PNG: with a caption below each, or as a grid of weights."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION_SIZE = 12  # pixels
MARGIN = 4  # between images
CELL = 46  # of a confusion matrix
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


def confusion_sheet(counts: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """Counts (true class, predicted class), the darker, the larger the share of its true class.

    ``evaluate`` draws a finer one with matplotlib, which takes 8 % of an epoch.
    """
    font = ImageFont.load_default(CAPTION_SIZE)
    names = max(int(font.getlength(name)) for name in classes) + 2 * MARGIN
    side, top = CELL * len(classes), 3 * CAPTION_SIZE
    sheet = Image.new("RGB", (names + side + MARGIN, top + side + names), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((names, CAPTION_SIZE), f"{title}; rows: true, columns: predicted", "black", font)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(counts):
        left, upper = names + CELL * column, top + CELL * row
        white, dark = np.array([255, 255, 255]), np.array([8, 64, 129])
        colour = tuple(int(part) for part in white + (dark - white) * shares[row, column])
        draw.rectangle((left, upper, left + CELL - 2, upper + CELL - 2), colour)
        if count:
            ink = "white" if shares[row, column] > 0.5 else "black"
            draw.text((left + CELL / 2, upper + CELL / 2), str(count), ink, font, anchor="mm")
    upright = Image.new("RGB", (names, side), "white")
    down = ImageDraw.Draw(upright)
    for number, name in enumerate(classes):
        middle = CELL * number + CELL / 2
        draw.text((names - MARGIN, top + middle), name, "black", font, anchor="rm")
        down.text((names - MARGIN, middle), name, "black", font, anchor="rm")
    sheet.paste(upright.transpose(Image.Transpose.ROTATE_90), (names, top + side))
    return sheet_to_png(sheet.quantize(64))


def sheet_to_png(image: Image.Image) -> bytes:
    """An image as PNG."""
    content = io.BytesIO()
    image.save(content, format="png")
    return content.getvalue()
