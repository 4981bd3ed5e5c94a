"""Tests of the difference between two configurations; formulas and sources are in docs/sweeps.md.

From the standard library alone: a summary is written after each job, and to import scipy.stats takes seconds.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

LEVEL = 0.05  # of all comparisons of a sweep together
POWER = 0.8  # what a number of seeds is worked out for
MOST_TERMS = 10_000  # of the continued fraction, which needs about sqrt(a + b)
TINY = 1e-300  # in place of a zero that would be divided by


@dataclass(frozen=True)
class TTest:
    """A two-sided t-test of whether two means are the same.

    Attributes:
        difference: between the means.
        error: its standard error.
        df: degrees of freedom, not always a whole number.
    """

    difference: float
    error: float
    df: float

    @property
    def p(self) -> float:
        """The probability of a difference as large as this between equals."""
        if self.error == 0.0:
            return 1.0 if self.difference == 0.0 else 0.0
        return student_tails(self.difference / self.error, self.df)


def paired_t(a: Sequence[float], b: Sequence[float], least_std: float = 0.0) -> TTest:
    """Student's t of the differences ``a[i] - b[i]``, two or more of them.

    Args:
        a: figures of one configuration.
        b: of the other, with the same seeds in the same order.
        least_std: what the standard deviation of a difference is taken as, where that of the sample is less.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    std = max(statistics.stdev(differences), least_std)
    return TTest(statistics.fmean(differences), std / math.sqrt(len(differences)), len(differences) - 1)


def unpaired_t(a: Sequence[float], b: Sequence[float], least_std: float = 0.0) -> TTest:
    """Welch's t of two samples; where one of them is a single figure, the other's spread stands for both.

    Args:
        a: figures of one configuration.
        b: of the other; one of the two has two figures or more.
        least_std: what the standard deviation of a figure is taken as, where that of the sample is less.
    """
    difference = statistics.fmean(a) - statistics.fmean(b)
    variances = [max(statistics.variance(x), least_std**2) for x in (a, b) if len(x) > 1]
    if len(variances) == 1:  # Student's t with its pooled variance, to which one figure adds nothing
        return TTest(difference, math.sqrt(variances[0] * (1 / len(a) + 1 / len(b))), len(a) + len(b) - 2)
    parts = variances[0] / len(a), variances[1] / len(b)
    if sum(parts) == 0.0:
        return TTest(difference, 0.0, 1.0)
    df = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    return TTest(difference, math.sqrt(sum(parts)), df)


@cache
def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: how likely equals differ so much in the images that only one gets right.

    Args:
        only_a: images that the first gets right and the second does not.
        only_b: the other way round.
    """
    fewer, both = min(only_a, only_b), only_a + only_b
    if 2 * fewer >= both:
        return 1.0
    return min(1.0, 2 * beta_tail(0.5, both - fewer, fewer + 1))  # twice a binomial tail with even odds


def two_proportions(a: float, b: float, num_images: int) -> float:
    """The normal test, two-sided, of two shares of right answers, each on ``num_images`` images of its own."""
    pooled = (a + b) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / num_images)
    if error == 0.0:
        return 1.0
    return math.erfc(abs(a - b) / error / math.sqrt(2))


def holm(p_values: Sequence[float], num_tests: int | None = None) -> list[float]:
    """P values made larger by Holm's method, so that all may be held against one level.

    Args:
        p_values: of the tests.
        num_tests: how many tests there are, of which these are some; they become no smaller than beside all of them.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, ((num_tests or len(p_values)) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(difference: float, std: float, *, paired: bool) -> int:
    """How many seeds of each of two configurations tell such a difference with probability ``POWER``, at ``LEVEL``.

    Args:
        difference: between the means, not 0.
        std: of the difference of two runs, one of each configuration.
        paired: whether the two are compared seed by seed.
    """
    level, power = NormalDist().inv_cdf(1 - LEVEL / 2), NormalDist().inv_cdf(POWER)
    correction = level**2 / (2 if paired else 4)  # for the t distribution's tails
    return max(2, math.ceil(((level + power) * std / difference) ** 2 + correction))


def student_tails(t: float, df: float) -> float:
    """The probability of a Student's t with ``df`` degrees of freedom beyond ``t`` on either side."""
    return beta_tail(df / (df + t * t), df / 2, 0.5)


def beta_tail(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for x in [0, 1] and positive a and b."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly
        return 1.0 - beta_tail(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * beta_fraction(x, a, b) / a


def beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method as modified by Thompson and Barnett."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1) or TINY)
    fraction = d
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or TINY)
            c = 1.0 + term / c or TINY
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            return fraction
    raise ArithmeticError(f"the incomplete beta function does not converge at x={x}, a={a}, b={b}")
