"""Which configurations of a sweep can be told apart from its best; docs/sweeps.md says how and how far to trust it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.significance import (
    LEVEL,
    holm,
    mcnemar,
    paired_t,
    seeds_needed,
    two_proportions,
    unpaired_t,
)
from fmnist_lit.sweep.table import RankedGroup
from fmnist_lit.sweep.values import SEED, identity, is_number, select

MOST_COMPARED = 100  # groups; there are half a million pairs of a thousand
VAL_SIZE = 5000  # images, by default; for a run whose configuration cannot be read


@dataclass(frozen=True)
class Comparison:
    """A configuration beside the best.

    Attributes:
        other: the configuration.
        behind: its distance from the best in the figure that selects, not negative.
        p: of a difference as large between equals; corrected for that all configurations of the sweep were compared.
            None where there is no test.
        test: the name of the test.
        covers_training: whether the test knows of luck in training, which takes more than one seed.
        seeds: how many of each, in a sweep of the two alone, would tell such a difference; None where there is none.
    """

    other: RankedGroup
    behind: float
    p: float | None
    test: str
    covers_training: bool
    seeds: int | None

    @property
    def is_told_apart(self) -> bool:
        """Whether the best is better by more than chance."""
        return self.p is not None and self.p <= LEVEL


@dataclass(frozen=True)
class Test:
    """A test of two groups, and what it found.

    Attributes:
        p: two-sided, not corrected.
        std: of the difference of two runs, one of each.
        name: in words, with what it counts.
        paired: whether the two are compared seed by seed, or image by image.
        covers_training: as in ``Comparison``.
    """

    p: float
    std: float
    name: str
    paired: bool
    covers_training: bool


def compare_with_best(ranked: Sequence[RankedGroup]) -> list[Comparison]:
    """The other groups beside the first, in their order.

    P values are corrected over all pairs of groups, not only the pairs with the best: which group is the best has been
    looked up in the same figures, and the best of many equals is ahead by luck. Of more than ``MOST_COMPARED`` groups
    only the pairs with the best are tested, and corrected as if all were.
    """
    best, *others = ranked
    pairs = itertools.combinations(ranked, 2) if len(ranked) <= MOST_COMPARED else zip(itertools.repeat(best), others)
    tests = [compare(a, b) for a, b in pairs]  # those with the best come first
    tested = [test.p for test in tests if test is not None]
    corrected = iter(holm(tested, len(tested) + math.comb(len(ranked), 2) - len(tests)))
    comparisons = []
    for other, test in zip(others, tests, strict=False):
        behind = best.criterion.cost(other.value) - best.criterion.cost(best.value)
        if test is None:
            comparisons.append(Comparison(other, behind, None, "", False, None))
            continue
        p = next(corrected)
        seeds = seeds_needed(behind, test.std, paired=test.paired) if behind > 0 else None
        comparisons.append(Comparison(other, behind, p, test.name, test.covers_training, seeds))
    return comparisons


def compare(a: RankedGroup, b: RankedGroup) -> Test | None:
    """The test that suits what two groups have: several seeds, the same ones or not, or one seed each.

    None for one seed each where the figure is not the share of right answers: nothing tells of its luck then.
    """
    if a.n == b.n == 1:
        return compare_images(a.counted[0], b.counted[0]) if a.criterion.metric == "accuracy/val" else None
    column, step = a.criterion.column, 0.0
    seeds = [[identity(job.value(SEED)) for job in group.counted] for group in (a, b)]
    figures = [dict(zip(own, group.figures(column), strict=True)) for own, group in zip(seeds, (a, b), strict=True)]
    if column.startswith("val_accuracy"):
        step = 1 / min(num_val_images(job) for job in (a.counted[0], b.counted[0]))  # accuracies know no less
    if figures[0].keys() == figures[1].keys():
        t = paired_t(list(figures[0].values()), [figures[1][seed] for seed in figures[0]], step)
        return Test(t.p, t.error * math.sqrt(a.n), f"the paired t-test over {a.n} seeds", True, True)
    t = unpaired_t(list(figures[0].values()), list(figures[1].values()), step)
    name = "Student's" if 1 in (a.n, b.n) else "Welch's"
    std = t.error * math.sqrt(2 / (1 / a.n + 1 / b.n))  # as if both had their harmonic mean of seeds
    return Test(t.p, std, f"{name} t-test, {a.n} and {b.n} seeds", False, True)


def compare_images(a: Job, b: Job) -> Test:
    """The test of two runs: image by image where both have kept which ones they get right, of the same images."""
    if a.answers is not None and b.answers is not None and a.answers.same_images(b.answers):
        num_images = a.answers.num_images
        only_a = (a.answers.correct & ~b.answers.correct).bit_count()
        only_b = (b.answers.correct & ~a.answers.correct).bit_count()
        variance = (only_a + only_b) / num_images - ((only_a - only_b) / num_images) ** 2
        name = f"McNemar's exact test on {num_images} validation images"
        return Test(mcnemar(only_a, only_b), math.sqrt(variance / num_images), name, True, False)
    num_images = min(num_val_images(a), num_val_images(b))
    shares = a.results["val_accuracy"], b.results["val_accuracy"]
    std = math.sqrt(sum(share * (1 - share) for share in shares) / num_images)
    name = f"the test of two proportions on {num_images} validation images, as it is not known of both which were right"
    return Test(two_proportions(*shares, num_images), std, name, False, False)


def num_val_images(job: Job) -> int:
    """The number of validation images of a run, as far as it is known."""
    val_size = job.results.get("val_images") or select(job.config, ["data", "val_size"])
    return int(val_size) if is_number(val_size) and val_size >= 1 else VAL_SIZE
