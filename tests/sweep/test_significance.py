import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmnist_lit.sweep.significance import (
    beta_tail,
    holm,
    mcnemar,
    paired_t,
    seeds_needed,
    student_tails,
    two_proportions,
    unpaired_t,
)

COUNTS = st.integers(0, 3000)
FIGURES = st.lists(st.floats(0, 1), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("df", "critical", "p"),  # NIST/SEMATECH e-Handbook, table of critical values of Student's t
    [
        (1, 12.706, 0.05),
        (1, 318.309, 0.002),
        (2, 4.303, 0.05),
        (2, 22.327, 0.002),
        (5, 2.571, 0.05),
        (8, 2.306, 0.05),
        (10, 3.169, 0.01),
        (30, 2.042, 0.05),
        (100, 1.984, 0.05),
        (100, 3.174, 0.002),
    ],
)
def test_student_tails_are_those_of_the_published_table(df, critical, p):
    assert student_tails(critical, df) == pytest.approx(p, rel=2e-3)
    assert student_tails(-critical, df) == student_tails(critical, df)


@pytest.mark.parametrize("t", [1e-3, 0.5, 1.1, 3.0, 50.0, 1e6])
def test_student_tails_have_closed_forms_for_one_and_two_degrees_of_freedom(t):
    assert student_tails(t, 1) == pytest.approx(2 * math.atan2(1, t) / math.pi, rel=1e-9)
    root = math.sqrt(2 + t * t)
    assert student_tails(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-9)


def test_a_gap_of_1_1_standard_errors_says_nothing_with_two_or_five_seeds_each():
    assert student_tails(1.1, 2) == pytest.approx(0.386, abs=5e-4)
    assert student_tails(1.1, 8) == pytest.approx(0.303, abs=5e-4)


@given(st.integers(1, 60), st.data())
def test_mcnemar_is_the_exact_binomial_test(both, data):
    only_a = data.draw(st.integers(0, both))
    tail = sum(math.comb(both, count) for count in range(min(only_a, both - only_a) + 1))
    assert mcnemar(only_a, both - only_a) == pytest.approx(float(min(1, Fraction(2 * tail, 2**both))), rel=1e-9)


@given(COUNTS, COUNTS)
def test_mcnemar_is_symmetric_and_a_probability(a, b):
    assert mcnemar(a, b) == mcnemar(b, a)
    assert 0.0 <= mcnemar(a, b) <= 1.0
    if a > b:
        assert mcnemar(a + 1, b) <= mcnemar(a, b)


def test_mcnemar_of_a_published_table():
    # Agresti, Categorical Data Analysis: approval of the prime minister, 150 and 86 changed their minds: z = 4.17
    assert mcnemar(86, 150) == pytest.approx(3.7e-5, rel=0.05)
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.1, 200), st.floats(0.1, 200))  # 1 - x is x's other side to 1e-10 there
def test_the_two_sides_of_the_beta_distribution_sum_to_one(x, a, b):
    assert beta_tail(x, a, b) + beta_tail(1 - x, b, a) == pytest.approx(1.0, abs=1e-8)


def test_the_paired_test_is_students_own_example():
    # Student (1908), The probable error of a mean: hours of sleep gained by two drugs
    a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    t = paired_t(a, b)
    assert t.difference / t.error == pytest.approx(-4.0621, abs=1e-4)
    assert t.p == pytest.approx(0.002833, abs=1e-6)
    welch = unpaired_t(a, b)
    assert welch.df == pytest.approx(17.776, abs=1e-3)
    assert welch.p == pytest.approx(0.07939, abs=1e-5)


def test_one_figure_against_several_takes_the_spread_of_the_several():
    t = unpaired_t([0.5], [0.1, 0.2, 0.3])
    assert (t.difference, t.df) == (pytest.approx(0.3), 2)
    assert t.error == pytest.approx(0.1 * math.sqrt(1 + 1 / 3))


@given(FIGURES, FIGURES)
def test_t_tests_do_not_depend_on_which_comes_first(a, b):
    assert unpaired_t(a, b, 0.01).p == pytest.approx(unpaired_t(b, a, 0.01).p)
    least = min(len(a), len(b))
    assert paired_t(a[:least], b[:least], 0.01).p == pytest.approx(paired_t(b[:least], a[:least], 0.01).p)


def test_a_spread_below_what_can_be_measured_is_not_believed():
    assert paired_t([0.5, 0.6], [0.4, 0.5]).p < 1e-9
    assert paired_t([0.5, 0.6], [0.4, 0.5], least_std=0.1).p == pytest.approx(student_tails(math.sqrt(2), 1))
    assert unpaired_t([0.5, 0.5], [0.4, 0.4]).p == 0.0
    assert unpaired_t([0.5, 0.5], [0.5, 0.5]).p == 1.0
    assert unpaired_t([0.5, 0.5], [0.4, 0.4], least_std=0.1).p == pytest.approx(student_tails(1.0, 2))


def test_two_proportions_near_the_normal_quantiles():
    error = math.sqrt(2 * 0.85 * 0.15 / 5000)
    assert two_proportions(0.85 + 0.98 * error, 0.85 - 0.98 * error, 5000) == pytest.approx(0.05, abs=1e-4)
    assert two_proportions(1.0, 1.0, 5000) == 1.0


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_between_the_raw_p_and_bonferronis_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= min(1.0, p * len(p_values)) for p, q in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[index] for index in order] == sorted(adjusted)


@pytest.mark.parametrize(
    ("effect", "paired", "seeds"),  # Cohen, Statistical Power Analysis, table 2.4.1, 80 % at 5 %: d = 0.2 to 1
    [(0.2, False, 393), (0.5, False, 64), (0.8, False, 26), (1.0, False, 17), (0.5, True, 34), (1.0, True, 10)],
)
def test_seeds_needed_are_those_of_the_published_table(effect, paired, seeds):
    assert seeds_needed(effect, 1.0 if paired else math.sqrt(2), paired=paired) == pytest.approx(seeds, abs=1)


def test_so_many_seeds_tell_the_difference_in_four_of_five_cases():
    rng = random.Random(0)
    for paired, effect in ((True, 1.0), (False, 1.5)):
        seeds = seeds_needed(effect, 1.0 if paired else math.sqrt(2), paired=paired)
        told = 0
        for _ in range(1000):
            if paired:
                told += paired_t([rng.gauss(effect, 1) for _ in range(seeds)], [0.0] * seeds).p <= 0.05
            else:
                samples = ([rng.gauss(mean, 1) for _ in range(seeds)] for mean in (effect, 0))
                told += unpaired_t(*samples).p <= 0.05
        assert told / 1000 == pytest.approx(0.8, abs=0.05)


def test_the_same_as_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(0)
    for _ in range(200):
        t, df = rng.uniform(-20, 20), rng.uniform(1, 100)
        assert student_tails(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8)
        only_a, only_b = rng.randrange(400), rng.randrange(400)
        assert mcnemar(only_a, only_b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-8)
    a, b = ([rng.random() for _ in range(n)] for n in (4, 7))
    assert unpaired_t(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-8)
    for x, y in itertools.pairwise([a, b[:4], b[3:]]):
        assert paired_t(x, y).p == pytest.approx(stats.ttest_rel(x, y).pvalue, rel=1e-8)
