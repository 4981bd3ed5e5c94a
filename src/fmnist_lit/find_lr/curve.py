"""What a range test measured, and which learning rate it speaks for."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BETA = 0.98  # of the moving average with which Lightning's finder smooths the losses
SKIP_BEGIN = 10  # steps, of which Lightning's suggestion takes none
FEWEST = 5  # steps after those, for a slope that means something
LEAST_FALL = 0.02  # of the loss at the start; less is the noise of batches


@dataclass(frozen=True)
class Range:
    """The learning rates of a range test: ``steps`` of them from ``lowest`` to ``highest``, a factor apart."""

    lowest: float
    highest: float
    steps: int


@dataclass(frozen=True)
class Curve:
    """The losses of a range test, up to the first that is not finite.

    Attributes:
        rates: the learning rate of each step.
        averaged: the loss after each step as Lightning's finder smooths it. That begins too low, because it divides an
            average of n losses by the weight of n + 1.
    """

    rates: tuple[float, ...]
    averaged: tuple[float, ...]

    @staticmethod
    def of(rates: list[float], averaged: list[float]) -> "Curve":
        """The part of what the finder recorded that is finite."""
        finite = tuple(itertools.takewhile(math.isfinite, averaged))
        return Curve(tuple(rates[: len(finite)]), finite)

    @cached_property
    def losses(self) -> list[float]:
        """The loss of each step."""
        sums = [0.0, *(value * (1 - BETA ** (n + 1)) for n, value in enumerate(self.averaged, start=1))]
        return [(after - BETA * before) / (1 - BETA) for before, after in itertools.pairwise(sums)]

    @cached_property
    def smoothed(self) -> list[float]:
        """As ``averaged``, with the weight of n losses."""
        return [value * (1 - BETA ** (n + 1)) / (1 - BETA**n) for n, value in enumerate(self.averaged, start=1)]

    @cached_property
    def steepest(self) -> float | None:
        """The learning rate at which the averaged loss falls most for each factor, as a log axis shows it.

        Lightning's own suggestion is where it falls most for each unit; on rates that span decades that is a far lower
        one. None if the loss is lowest too early for a slope. What falls after that has risen before.
        """
        kept = slice(SKIP_BEGIN, self.lowest + 1)
        rates, averaged = np.array(self.rates[kept]), np.array(self.averaged[kept])
        return float(rates[np.gradient(averaged, np.log(rates)).argmin()]) if len(rates) >= FEWEST else None

    @property
    def lowest(self) -> int:
        """The step, from 0, at which the smoothed loss is lowest."""
        return self.smoothed.index(min(self.smoothed))


@dataclass(frozen=True)
class Finding:
    """What a range test says.

    Attributes:
        suggestion: a learning rate; None if the curve speaks for none.
        words: how the loss went, or why there is no suggestion and what may help.
    """

    suggestion: float | None
    words: str


def finding_of(curve: Curve, wanted: Range) -> Finding:
    """The steepest descent, unless the loss blows up at once, never falls, or falls from the start or to the end.

    Then any suggestion would be a guess.
    """
    blew_up = len(curve.rates) < wanted.steps
    end = f"it blew up at {curve.rates[-1]:.2g}" if blew_up else "it did not blow up"
    lower, higher = f"a lower --min-lr than {wanted.lowest:g}", f"a higher --max-lr than {wanted.highest:g}"
    if len(curve.rates) < SKIP_BEGIN + FEWEST:
        return Finding(None, f"the loss blew up within {len(curve.rates) + 1} steps; {lower} may show more")
    start, lowest = curve.smoothed[0], curve.smoothed[curve.lowest]
    if start - lowest < LEAST_FALL * abs(start):
        return Finding(None, f"the loss never fell, and {end}; {lower if blew_up else higher} may show more")
    if not blew_up and curve.lowest == len(curve.rates) - 1:
        return Finding(None, f"the loss still falls at the end; {higher} may show where it stops")
    if curve.steepest in (None, curve.rates[SKIP_BEGIN]):
        return Finding(None, f"the loss falls most at the start; {lower}, or more --steps, may show where")
    at = f"{curve.rates[curve.lowest]:.2g}"
    return Finding(curve.steepest, f"the loss, smoothed, fell from {start:.3g} to {lowest:.3g} at {at}; {end}")
