import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fmnist_lit.config.criterion import Criterion
from fmnist_lit.run.answers import Answers
from fmnist_lit.sweep import comparison as comparing
from fmnist_lit.sweep.comparison import compare_with_best
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.significance import LEVEL, holm, paired_t
from fmnist_lit.sweep.table import RankedGroup

IMAGES = 5000


def job(accuracy: float, seed: int = 0, answers: Answers | None = None) -> Job:
    made = Job(Path("nowhere"), "", (f"seed={seed}",), "", "completed", "", {"val_accuracy": accuracy}, {})
    made.__dict__.update(answers=answers, config={"data": {"val_size": IMAGES}})  # in place of its files
    return made


def ranked(groups: Iterable[Sequence[Job]]) -> list[RankedGroup]:
    """The groups in order of mean accuracy, as a sweep's table has them."""
    in_order = sorted(groups, key=lambda jobs: -sum(job.results["val_accuracy"] for job in jobs) / len(jobs))
    return [RankedGroup({"optimizer.lr": rank}, jobs, jobs, rank) for rank, jobs in enumerate(in_order, start=1)]


def seeded(accuracies: Sequence[float], first_seed: int = 0) -> list[Job]:
    return [job(accuracy, seed) for seed, accuracy in enumerate(accuracies, start=first_seed)]


def run_with_answers(correct: np.ndarray, images: str = "same") -> list[Job]:
    bits = int.from_bytes(np.packbits(correct).tobytes(), "big") >> (-len(correct) % 8)
    return [job(float(correct.mean()), answers=Answers(images, len(correct), bits))]


def at_most(rate: float, trials: int) -> float:
    """A rate, and three standard errors of what is counted."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / trials)


@pytest.mark.parametrize(("n", "p"), [(2, 0.386), (5, 0.303)])
def test_a_gap_of_1_1_standard_errors_is_no_difference(n, p):
    spread = [0.01 * (seed - (n - 1) / 2) for seed in range(n)]
    error = math.sqrt(2 * np.var(spread, ddof=1) / n)
    best, other = ([mean + x for x in spread] for mean in (0.88, 0.88 - 1.1 * error))
    (comparison,) = compare_with_best(ranked([seeded(best), seeded(other, first_seed=n)]))  # seeds of their own
    assert comparison.p == pytest.approx(p, abs=5e-4)
    assert comparison.behind == pytest.approx(1.1 * error)
    assert comparison.test == f"Welch's t-test, {n} and {n} seeds"
    assert comparison.covers_training
    assert not comparison.is_told_apart


def test_the_same_seeds_are_compared_seed_by_seed_in_whatever_order():
    best = seeded([0.80, 0.85, 0.90])
    other = seeded([0.79, 0.84, 0.888])[::-1]
    (comparison,) = compare_with_best(ranked([best, other]))
    assert comparison.test == "the paired t-test over 3 seeds"
    assert comparison.p == pytest.approx(paired_t([0.80, 0.85, 0.90], [0.79, 0.84, 0.888]).p)
    assert comparison.is_told_apart


def test_one_seed_against_several_is_students_test():
    (comparison,) = compare_with_best(ranked([seeded([0.9]), seeded([0.80, 0.81, 0.82])]))
    assert comparison.test == "Student's t-test, 1 and 3 seeds"


def test_one_seed_each_is_mcnemars_test_of_the_same_images_only():
    correct = np.zeros(1003, dtype=bool)
    correct[:900] = True
    other = correct.copy()
    other[:12] = False
    other[1000:] = True
    (comparison,) = compare_with_best(ranked([run_with_answers(correct), run_with_answers(other)]))
    assert comparison.test == "McNemar's exact test on 1003 validation images"
    assert comparison.p == pytest.approx(2 * sum(math.comb(15, count) for count in range(4)) / 2**15)
    assert comparison.is_told_apart
    assert not comparison.covers_training
    (comparison,) = compare_with_best(ranked([run_with_answers(correct), run_with_answers(other, "others")]))
    assert comparison.test.startswith("the test of two proportions on 5000 validation images, as it is not known")
    (comparison,) = compare_with_best(ranked([run_with_answers(correct), [job(0.89)]]))
    assert comparison.test.startswith("the test of two proportions")


def test_only_right_answers_tell_two_runs_of_one_seed_apart():
    """Of a loss it is not known how it would be on other images."""
    criterion = Criterion("loss/val", "min")
    jobs = [job(0.9), job(0.8)]
    groups = [RankedGroup({}, [one], [one], rank, criterion) for rank, one in enumerate(jobs, start=1)]
    for one, loss in zip(jobs, (0.3, 0.5), strict=True):
        one.results.update(select={"metric": "loss/val", "mode": "min", "value": loss})  # type: ignore[attr-defined]
    (comparison,) = compare_with_best(groups)
    assert (comparison.p, comparison.seeds, comparison.is_told_apart) == (None, None, False)
    assert comparison.behind == pytest.approx(0.2)


def test_p_values_are_corrected_for_all_pairs():
    groups = [seeded([mean, mean + 0.01, mean - 0.012]) for mean in (0.9, 0.89, 0.88)]
    groups = [[job(one.results["val_accuracy"], 10 * i + j) for j, one in enumerate(g)] for i, g in enumerate(groups)]
    alone = compare_with_best(ranked([groups[0], groups[2]]))[0]
    together = compare_with_best(ranked(groups))
    assert together[1].p == pytest.approx(3 * alone.p)
    assert [comparison.other.rank for comparison in together] == [2, 3]


def test_equals_need_no_seeds_to_be_told_apart():
    (comparison,) = compare_with_best(ranked([seeded([0.8, 0.9]), seeded([0.9, 0.8])]))
    assert (comparison.behind, comparison.p, comparison.seeds) == (0.0, 1.0, None)


# Among equals, how often is any said to be worse than the best?


def alarms(trials: int, draw, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    found = [any(c.is_told_apart for c in compare_with_best(ranked(draw(rng)))) for _ in range(trials)]
    return sum(found) / trials


@pytest.mark.parametrize("own_seeds", [False, True], ids=["paired", "Welch"])
@pytest.mark.parametrize(("k", "n", "trials"), [(2, 2, 2000), (2, 5, 2000), (5, 3, 600)])
def test_equals_with_several_seeds_raise_a_false_alarm_in_at_most_one_sweep_of_twenty(own_seeds, k, n, trials):
    def draw(rng):
        luck = rng.normal(0.88, 0.003, (k, n)) + (0.0 if own_seeds else rng.normal(0, 0.002, n))  # some is the seed's
        accuracies = (np.round(luck * IMAGES) / IMAGES).tolist()
        return [seeded(row, first_seed=own_seeds * n * index) for index, row in enumerate(accuracies)]

    assert alarms(trials, draw) <= at_most(LEVEL, trials)


@pytest.mark.parametrize(("k", "trials"), [(2, 1000), (6, 400)])
def test_equals_with_one_seed_raise_a_false_alarm_in_at_most_one_sweep_of_twenty(k, trials):
    difficulty = np.random.default_rng(0).beta(0.3, 2, 1000)  # most images are easy, and the same ones for all

    def draw(rng):
        return [run_with_answers(rng.random(1000) >= difficulty) for _ in range(k)]

    assert alarms(trials, draw) <= at_most(LEVEL, trials)


def test_to_correct_for_the_pairs_with_the_best_alone_would_not_do():
    """The best of eight equals is ahead by luck, and has been looked up in the same figures."""
    rng, trials, found = np.random.default_rng(0), 1000, 0
    for _ in range(trials):
        best, *others = sorted(rng.normal(0, 1, (8, 5)).tolist(), key=sum, reverse=True)
        found += min(holm([paired_t(best, other).p for other in others])) <= LEVEL
    assert found / trials > at_most(LEVEL, trials)


def test_of_many_only_the_pairs_with_the_best_are_tested_and_no_gap_looks_surer_for_that(monkeypatch):
    groups = ranked([job(0.9 - 0.003 * place)] for place in range(12))
    of_all = compare_with_best(groups)
    tested = []
    compare = comparing.compare
    monkeypatch.setattr(comparing, "compare", lambda a, b: tested.append(b) or compare(a, b))
    monkeypatch.setattr(comparing, "MOST_COMPARED", 5)
    of_some = compare_with_best(groups)
    assert tested == groups[1:]
    assert [comparison.other for comparison in of_some] == groups[1:]
    assert all(few.p >= every.p for few, every in zip(of_some, of_all, strict=True))
    assert of_some[-1].p == pytest.approx(of_all[-1].p)  # the smallest is corrected for all pairs in either way
