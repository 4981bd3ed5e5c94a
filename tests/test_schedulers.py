import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fmnist_lit.model import MLP
from fmnist_lit.optimizers import MuonWithAdamW
from fmnist_lit.schedulers import OneCycleLR, WarmupLinearLR, WarmupPolynomialLR
from fmnist_lit.train import train


def learning_rates(optimizer: torch.optim.Optimizer, scheduler, steps: int) -> list[list[float]]:
    """What each step ran at, a list for each group."""
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [list(group) for group in zip(*rates, strict=True)]


def sgd(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_warmup_linear_rises_over_the_fraction_then_falls_to_zero():
    optimizer = sgd(2.0)
    scheduler = WarmupLinearLR(optimizer, total_steps=20, warmup_fraction=0.2)
    rates = learning_rates(optimizer, scheduler, 20)[0]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4:] == pytest.approx([2.0 * (20 - t) / 16 for t in range(4, 20)])
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_warmup_linear_without_warm_up_starts_at_the_learning_rate():
    optimizer = sgd(1.0)
    scheduler = WarmupLinearLR(optimizer, total_steps=4, warmup_fraction=0.0)
    assert learning_rates(optimizer, scheduler, 4)[0] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_warmup_polynomial_falls_with_a_power_of_what_is_left():
    optimizer = sgd(2.0)
    scheduler = WarmupPolynomialLR(optimizer, total_steps=20, warmup_fraction=0.2, power=3)
    rates = learning_rates(optimizer, scheduler, 20)[0]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4:] == pytest.approx([2.0 * ((20 - t) / 16) ** 3 for t in range(4, 20)])
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_warmup_polynomial_with_a_power_of_one_is_warmup_linear():
    straight, of_one = sgd(0.3), sgd(0.3)
    rates = learning_rates(straight, WarmupLinearLR(straight, total_steps=97), 97)
    assert learning_rates(of_one, WarmupPolynomialLR(of_one, total_steps=97, power=1), 97) == rates


@pytest.mark.parametrize("total_steps", [1, 2, 5, 10, 11])
def test_warmup_linear_never_runs_a_step_at_zero_nor_above_the_learning_rate(total_steps):
    optimizer = sgd(1.0)
    rates = learning_rates(optimizer, WarmupLinearLR(optimizer, total_steps), total_steps)[0]
    assert min(rates) > 0
    assert max(rates) <= 1


def test_warmup_linear_stays_at_zero_after_its_steps():
    optimizer = sgd(1.0)
    learning_rates(optimizer, WarmupLinearLR(optimizer, total_steps=4), 6)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_one_cycle_peaks_at_the_learning_rate_of_each_group():
    optimizer = MuonWithAdamW(MLP([6]).named_parameters(), lr=0.02, adamw_lr=3e-3)
    scheduler = OneCycleLR(optimizer, total_steps=20, pct_start=0.5, cycle_momentum=False)
    rates = learning_rates(optimizer, scheduler, 20)
    assert [max(group) for group in rates] == pytest.approx([0.02, 3e-3])
    assert all(group[-1] < 1e-3 * max(group) for group in rates)
    assert all(a < b for a, b in pairwise(rates[0][:10]))


Rates = Callable[..., list[float]]


@pytest.fixture
def logged(configure, tmp_path: Path) -> Rates:
    """The learning rates in metrics.csv after a run of three epochs of four steps each."""

    def run(*overrides: str) -> list[float]:
        train(configure("trainer.max_epochs=3", "optimizer.lr=0.1", *overrides))
        with open(tmp_path / "run" / "metrics.csv", newline="") as file:
            return [float(row["lr"]) for row in csv.DictReader(file)]

    return run


@pytest.mark.parametrize(
    ("overrides", "rates"),
    [
        (["scheduler=constant"], [0.1, 0.1, 0.1]),
        (["scheduler=step", "scheduler.step_size=2"], [0.1, 0.1, 0.05]),
        (["scheduler=exponential"], [0.1, 0.09, 0.081]),
        (["scheduler=exponential", "scheduler.interval=step"], [0.1 * 0.9**t for t in (3, 7, 11)]),
    ],
)
def test_schedule_advances_by_its_interval(logged: Rates, overrides, rates):
    assert logged(*overrides) == pytest.approx(rates)


def test_cosine_falls_with_each_step_to_zero_at_the_last(logged: Rates):
    expected = [0.05 * (1 + math.cos(math.pi * step / 12)) for step in (3, 7, 11)]
    assert logged("scheduler=cosine") == pytest.approx(expected)


def test_warmup_linear_covers_the_steps_of_the_whole_run(logged: Rates):
    assert logged("scheduler=warmup_linear", "scheduler.warmup_fraction=0.25") == pytest.approx(
        [0.1 * (12 - step) / 9 for step in (3, 7, 11)]
    )


def test_schedule_ends_with_max_steps(logged: Rates):
    rates = logged("scheduler=warmup_linear", "scheduler.warmup_fraction=0", "trainer.max_steps=6")
    assert rates == pytest.approx([0.1 * 3 / 6, 0.1 * 1 / 6])


def test_schedule_counts_optimiser_steps_and_not_accumulated_batches(logged: Rates):
    rates = logged("scheduler=warmup_linear", "scheduler.warmup_fraction=0", "trainer.accumulate_grad_batches=2")
    assert rates == pytest.approx([0.1 * (6 - step) / 6 for step in (1, 3, 5)])


def test_plateau_lowers_the_learning_rate_when_validation_stands_still(logged: Rates):
    rates = logged("scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-6")
    assert rates == pytest.approx([1e-6, 1e-6, 5e-7])
