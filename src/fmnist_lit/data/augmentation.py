"""Random flips and shifts of training images, many images at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Draws:
    """What happens to each of N images in one epoch.

    Attributes:
        flipped: (N,) bool, whether the image is mirrored left-right.
        offsets: (N, 2) int64 in 0..2·shift, the row and column at which its crop starts in the padded image.
    """

    flipped: Tensor
    offsets: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Draws":
        return Draws(self.flipped[rows], self.offsets[rows])


@dataclass(frozen=True)
class Augmentation:
    """Left-right flips with probability 1/2, and shifts by whole pixels that fill with black.

    Attributes:
        flip: whether to flip.
        shift: the largest shift along each axis, in pixels; uniform over -shift..shift.
    """

    flip: bool = False
    shift: int = 0

    def __bool__(self) -> bool:
        return self.flip or self.shift > 0

    def draw(self, num_images: int, generator: torch.Generator, device: torch.device) -> Draws:
        """The draws for one epoch, from a generator on the CPU, put on ``device``."""
        flipped = torch.rand(num_images, generator=generator) < 0.5
        offsets = torch.randint(2 * self.shift + 1, (num_images, 2), generator=generator)
        return Draws(flipped.to(device), offsets.to(device))

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Images (N, 1, H, W) with their N draws applied, in a new tensor; black is 0."""
        if self.shift:
            height, width = pixels.shape[2:]
            padded = F.pad(pixels[:, 0], [self.shift] * 4)
            windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # (N, rows, columns, H, W), a view
            images = torch.arange(len(pixels), device=pixels.device)
            pixels = windows[images, draws.offsets[:, 0], draws.offsets[:, 1]].unsqueeze(1)
        if self.flip:
            pixels = torch.where(draws.flipped[:, None, None, None], pixels.flip(3), pixels)
        return pixels
