"""A synthetic stand-in for Fashion-MNIST: the same ten classes, light garments on black, drawn from a seed.

The classes overlap where the real ones do: a shirt may lack its buttons, a sneaker may be as high as a boot.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Range = tuple[float, float]
Table = Mapping[str, Range | Sequence[Range]]

SIDE = 28
BLOCK_SIZE = 250  # samples per random stream; few enough that a block's arrays stay in cache
SPLITS = ("train", "test")

# Each parameter is uniform in its class's (low, high). Lengths are in half image sides, angles in radians; y
# points down. A strength or a length below zero means that the sample lacks the feature.
# Unformatted, so that the classes line up and can be compared:
# fmt: off
GARMENT_LABELS = (0, 1, 2, 3, 4, 6)
GARMENTS: Table = {
    #                T-shirt/top    Trouser        Pullover       Dress          Coat           Shirt
    "top":          ((-.98, -.84),  (-.98, -.90),  (-.98, -.80),  (-.98, -.88),  (-.98, -.84),  (-.98, -.84)),
    "hem":          ((.72, .98),    (.86, .98),    (.66, .98),    (.80, .98),    (.76, .98),    (.72, .98)),
    "shoulder":     ((.38, .62),    (.20, .36),    (.40, .60),    (.20, .42),    (.40, .60),    (.38, .62)),
    "waist":        ((.34, .58),    (.22, .38),    (.38, .56),    (.18, .40),    (.36, .56),    (.34, .58)),
    "bottom":       ((.36, .60),    (.22, .46),    (.36, .56),    (.22, .60),    (.38, .62),    (.36, .60)),
    "slope":        ((.10, .30),    (.00, .05),    (.12, .40),    (.10, .35),    (.12, .40),    (.10, .38)),
    "sleeve":       ((-.12, .60),   (0, 0),        (.85, 1.4),    (-.90, .90),   (.85, 1.4),    (.20, 1.4)),
    "sleeve_angle": ((.15, .70),    (0, 0),        (.08, .32),    (.15, .50),    (.08, .30),    (.10, .45)),
    "sleeve_width": ((.12, .20),    (-1, -1),      (.11, .18),    (.08, .17),    (.11, .19),    (.11, .19)),
    "neck_width":   ((.08, .34),    (-1, -1),      (.06, .28),    (.06, .30),    (-.10, .24),   (-.10, .28)),
    "neck_depth":   ((.08, .45),    (1, 1),        (.06, .28),    (.08, .50),    (.06, .28),    (.06, .40)),
    "leg_gap":      ((-1, -1),      (-.02, .16),   (-1, -1),      (-1, -1),      (-1, -1),      (-1, -1)),
    "zip":          ((-.70, .15),   (-.40, .20),   (-.60, .20),   (-.60, .25),   (-.10, .90),   (-.20, .70)),
    "buttons":      ((-.90, .20),   (-1, -1),      (-.80, .20),   (-.60, .30),   (-.60, .50),   (-.15, .75)),
}
SHOE_LABELS = (5, 7, 9)
SHOES: Table = {
    #                Sandal         Sneaker        Ankle boot
    "length":       ((.72, .97),    (.84, .97),    (.70, .96)),
    "toe":          ((.10, .34),    (.20, .36),    (.22, .38)),
    "instep":       ((.20, .70),    (.42, .70),    (.50, .84)),
    "shaft":        ((.10, 1.1),    (.48, .96),    (.68, 1.6)),
    "throat":       ((.50, .80),    (.42, .65),    (.36, .60)),  # where the shaft begins: toe 0, heel 1
    "heel":         ((-.40, .70),   (-.06, .08),   (-.20, .45)),
    "heel_width":   ((.08, .60),    (.30, .60),    (.12, .40)),
    "sole":         ((.08, .18),    (.10, .22),    (.08, .18)),
    "sole_tone":    ((.40, 1.3),    (.40, 1.5),    (.30, 1.2)),
    "straps":       ((5, 12),       (5, 12),       (5, 12)),
    "holes":        ((-.15, .75),   (-.80, .35),   (-.90, .15)),  # share of the upper between the straps
}
BAG_LABELS = (8,)
BAG: Table = {
    "top":          (-.80, .10),
    "base":         (.60, .92),
    "top_width":    (.44, .90),
    "base_width":   (.50, .92),
    "bulge":        (-.06, .16),
    "flap":         (-.40, .60),
    "handle":       (-.30, .95),
    "handle_width": (.30, .56),
}
LOOK: Table = {  # of every class
    "shift_x":      (-.12, .12),
    "shift_y":      (-.09, .09),
    "shear":        (-.08, .08),
    "tilt":         (-.06, .06),
    "zoom":         (.84, 1.06),
    "brightness":   (.25, 1.25),
    "light_x":      (-.15, .15),
    "light_y":      (-.20, .20),
    "rows":         (-.90, .25),
    "columns":      (-.90, .25),
    "frequency":    (6, 30),
    "phase":        (0, 6.28),
    "blotches":     (-.80, .50),
    "print":        (-.80, .60),
    "print_size":   (.08, .30),
    "grain":        (.02, .14),
}
# fmt: on


class Parameters(SimpleNamespace):
    """A value of every parameter of a table for each sample, shaped (samples, 1, 1) to broadcast over the pixels."""

    if TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Floats: ...

    def __getitem__(self, rows: NDArray[np.int64]) -> "Parameters":
        return Parameters(**{name: values[rows] for name, values in vars(self).items()})


def draw_split(
    num_samples: int, seed: int, split: Literal["train", "test"]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first ``num_samples`` of the endless data set that ``seed`` (0 or more) and ``split`` determine.

    Returns:
        Images (num_samples, 28, 28) uint8, 0 (background) to 255, and labels (num_samples,) int64, 0 to 9 with
        Fashion-MNIST's meaning and balanced in every block. A shorter draw is a prefix of a longer one.
    """
    return draw_samples(np.arange(num_samples), seed, split)


def draw_samples(
    numbers: NDArray[np.int64], seed: int, split: Literal["train", "test"]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The samples with these ``numbers``, from 0 and ascending, of the same data set, bit for bit as a whole draw's."""
    images = np.empty((len(numbers), SIDE, SIDE), np.uint8)
    labels = np.empty(len(numbers), np.int64)
    blocks, starts = np.unique(numbers // BLOCK_SIZE, return_index=True)
    for block, start, stop in zip(blocks.tolist(), starts, np.append(starts, len(numbers))[1:], strict=True):
        rng = np.random.default_rng([seed, SPLITS.index(split), block])
        chosen = numbers[start:stop] - block * BLOCK_SIZE
        images[start:stop], labels[start:stop] = _draw_block(chosen, rng)
    return images, labels


def _draw_block(chosen: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Some samples of a block.

    Random numbers are drawn for all of it, so that each sample gets its own whatever else is chosen. That takes a
    fifteenth of the time; the rest goes into pixels, of which only those of the chosen samples are computed.
    """
    labels = rng.permutation(np.arange(BLOCK_SIZE) % 10)
    look = _sample(LOOK, np.zeros_like(labels), rng)[chosen]
    blotches = rng.random((BLOCK_SIZE, SIDE // 2, SIDE // 2), np.float32)[chosen]
    grain = rng.random((BLOCK_SIZE, SIDE, SIDE), np.float32)[chosen]
    row, column = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    x = look.zoom * (column + look.shear * row) + look.shift_x
    y = look.zoom * (row + look.tilt * column) + look.shift_y
    images = _fabric(look, x, y, blotches.repeat(2, axis=1).repeat(2, axis=2), grain - 0.5)
    for classes, table, silhouette in (
        (GARMENT_LABELS, GARMENTS, _garment),
        (SHOE_LABELS, SHOES, _shoe),
        (BAG_LABELS, BAG, _bag),
    ):
        members = np.flatnonzero(np.isin(labels, classes))
        shape = _sample(table, np.searchsorted(classes, labels[members]), rng)
        wanted = np.flatnonzero(np.isin(chosen, members))
        shape = shape[np.searchsorted(members, chosen[wanted])]
        images[wanted] *= silhouette(shape, x[wanted], y[wanted])
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8), labels[chosen]


def _sample(table: Table, column: NDArray[np.int64], rng: np.random.Generator) -> Parameters:
    """Draw every parameter of ``table`` for each sample, from the range in the sample's column."""
    draws = {name: rng.uniform(*np.atleast_2d(ranges)[column].T) for name, ranges in table.items()}
    return Parameters(**{name: draw.astype(np.float32)[:, None, None] for name, draw in draws.items()})


def _fabric(p: Parameters, x: Floats, y: Floats, blotches: Floats, grain: Floats) -> Floats:
    """Brightness of the uncut cloth: slanting light, stripes or checks, blotches, a print, grain."""
    pattern = _present(p.rows) * np.sin(p.frequency * y + p.phase)
    pattern += _present(p.columns) * np.sin(p.frequency * x + p.phase)
    pattern -= _present(p.blotches) * blotches
    pattern -= _present(p.print) * (x**2 + (y + 0.2) ** 2 < p.print_size**2)
    return p.brightness * (1 + p.light_x * x + p.light_y * y + pattern) + p.grain * grain


# A silhouette is a factor on the brightness, 0 outside. Its parts are signed distances, positive inside:
# minimum intersects, maximum unites, minus inverts.


def _garment(p: Parameters, x: Floats, y: Floats) -> Floats:
    x = np.abs(x)  # left and right are mirror images
    below = y - p.top
    down = below / (p.hem - p.top)  # 0 at the shoulders, 1 at the hem
    width = p.shoulder + (p.waist - p.shoulder) * _ramp(down, 0, 0.5)
    width += (p.bottom - p.waist) * _ramp(down, 0.5, 1)
    neck = p.neck_width - np.hypot(x, below * p.neck_width / p.neck_depth)
    legs = np.minimum(p.leg_gap * down - x, down - 0.3)
    torso = _intersect(width - x, below - p.slope * x, p.hem - y, -neck, -legs)

    # A sleeve is a capsule that leaves the shoulder at sleeve_angle; without length it rounds the shoulder.
    across, along = np.sin(p.sleeve_angle), np.cos(p.sleeve_angle)
    out = x - (p.shoulder - p.sleeve_width)
    under = below - p.slope * p.shoulder - p.sleeve_width
    reach = np.clip(out * across + under * along, 0, _present(p.sleeve))
    sleeve = p.sleeve_width - np.hypot(out - reach * across, under - reach * along)

    seam = 0.5 * _cover(sleeve) * _cover(0.04 - np.abs(torso))
    front = _present(p.zip) * _cover(0.03 - x)
    front += _present(p.buttons) * _cover(0.06 - x) * (np.sin(18 * y) > 0.3)
    body = np.maximum(torso, sleeve)
    return _cover(body) * _bulge(body) * (1 - seam) * (1 - front)


def _shoe(p: Parameters, x: Floats, y: Floats) -> Floats:
    back = (x / p.length + 1) / 2  # 0 at the toe, 1 at the heel
    ground = (np.maximum(p.shaft, p.instep) + _present(p.heel)) / 2  # centres the shoe
    up = ground - y - _present(p.heel) * _ramp(back, 0.35, 0.85)  # height above the lower side of the sole
    top = p.toe + (p.instep - p.toe) * _ramp(back, 0, p.throat)
    top += (p.shaft - p.instep) * _ramp(back, p.throat, p.throat + 0.12)
    top -= 0.1 * np.sin(np.pi * _ramp(back, p.throat, 1))  # the opening sags
    top *= np.sqrt(_ramp(back, 0, 0.2))  # and the toe is round
    ends = p.length - np.abs(x)
    upper = _intersect(top - up, ends, up)
    heel = _intersect(-up, ground - y, ends, back - 1 + p.heel_width)

    straps = np.sin(p.straps * (2 * back - up)) + 1 - 2 * p.holes
    leather = _bulge(upper) * _bulge(np.abs(up - p.sole)) * (0.1 + 0.9 * _ramp(straps, 0, 0.3))
    return _cover(np.maximum(upper, heel)) * np.where(up < p.sole, p.sole_tone, leather)


def _bag(p: Parameters, x: Floats, y: Floats) -> Floats:
    down = (y - p.top) / (p.base - p.top)  # 0 at the top, 1 at the base
    width = p.top_width + (p.base_width - p.top_width) * down + p.bulge * np.sin(np.pi * down)
    pouch = _intersect(width - np.abs(x), y - p.top, p.base - y)
    ring = 0.05 - 0.25 * np.abs(np.hypot(x / p.handle_width, (y - p.top) / p.handle) - 1)
    body = np.maximum(pouch, _intersect(ring, p.top - y, p.handle))
    return _cover(body) * _bulge(body) * (1 - 0.5 * _cover(0.03 - np.abs(down - p.flap)))


def _ramp(value: Floats, start: Floats | float, stop: Floats | float) -> Floats:
    """Rise linearly from 0 at ``start`` to 1 at ``stop``, and stay there."""
    return np.clip((value - start) / (stop - start), 0, 1)


def _present(strength: Floats) -> Floats:
    """A strength or length from the tables, 0 where it is negative because the sample lacks the feature."""
    return np.maximum(strength, 0)


def _intersect(*distances: np.ndarray) -> Floats:
    return reduce(np.minimum, distances)


def _cover(distance: Floats) -> Floats:
    """Fraction of a pixel that a shape covers."""
    return _ramp(distance, -1 / SIDE, 1 / SIDE)


def _bulge(distance: Floats) -> Floats:
    """Darken towards the outline, as if the shape were round."""
    return 0.75 + 0.25 * _ramp(distance, 0, 0.12)
