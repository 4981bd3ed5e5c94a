import math

import numpy as np
import pytest

from fmnist_lit.find_lr.curve import BETA, Curve, Range, finding_of

WANTED = Range(1e-5, 1.0, 100)
RATES = [float(rate) for rate in np.geomspace(WANTED.lowest, WANTED.highest, WANTED.steps)]


def averaged(losses: list[float]) -> list[float]:
    """As Lightning's finder smooths them; test_range_test.py compares with what it does."""
    sums, values = 0.0, []
    for n, loss in enumerate(losses, start=1):
        sums = BETA * sums + (1 - BETA) * loss
        values.append(sums / (1 - BETA ** (n + 1)))
    return values


def curve(losses: list[float]) -> Curve:
    return Curve.of(RATES[: len(losses)], averaged(losses))


def falling(floor: float = 1.0) -> list[float]:
    """Flat, then down around 0.001, then up from 0.1."""
    return [2.3 - (2.3 - floor) / (1 + (0.001 / rate) ** 2) + (10 * rate) ** 3 * (rate > 0.1) for rate in RATES]


def test_losses_are_found_again_in_their_average():
    losses = falling()
    assert curve(losses).losses == pytest.approx(losses)


def test_smoothed_loss_begins_at_the_first_and_stays_within_the_losses():
    smoothed = curve([2.0] * 50).smoothed
    assert smoothed == pytest.approx([2.0] * 50)


def test_curve_ends_at_the_first_loss_that_is_not_finite():
    assert len(Curve.of(RATES, [*averaged([2.0] * 30), math.inf, 1.0]).rates) == 30


def test_suggestion_is_where_the_loss_falls_most_for_each_factor():
    finding = finding_of(curve(falling()), WANTED)
    assert finding.suggestion is not None
    assert 0.001 < finding.suggestion < 0.01
    assert "it did not blow up" in finding.words


def test_suggestion_is_no_rate_at_which_the_loss_has_risen_and_falls_again():
    finding = finding_of(curve([*falling()[:90], *[900 * 0.3**step for step in range(10)]]), WANTED)
    assert finding.suggestion is not None
    assert finding.suggestion < 0.01


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([2.3, 9.0, 80.0], "the loss blew up within 4 steps; a lower --min-lr than 1e-05 may show more"),
        ([2.3] * 100, "the loss never fell, and it did not blow up; a higher --max-lr than 1 may show more"),
        (
            [2.3 + 0.1 * step for step in range(60)],
            "the loss never fell, and it blew up at 0.0095; a lower --min-lr than 1e-05 may show more",
        ),
        (
            [2.3 * 0.8**step + 0.01 * step for step in range(100)],
            "the loss falls most at the start; a lower --min-lr than 1e-05, or more --steps, may show where",
        ),
        (
            [2.3 - 0.01 * step for step in range(100)],
            "the loss still falls at the end; a higher --max-lr than 1 may show where it stops",
        ),
    ],
    ids=["at once", "flat", "only up", "from the start", "only down"],
)
def test_curve_that_speaks_for_no_rate_gets_no_suggestion(losses, words):
    finding = finding_of(curve(losses), WANTED)
    assert finding.suggestion is None
    assert finding.words == words
