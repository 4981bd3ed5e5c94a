import itertools
import math
import random
import statistics
from pathlib import Path

import pytest

from fmnist_lit.sweep.influence import draw_influence, importances, pareto_front, time_to_target
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.table import SweepTable, rank_jobs

RATES = [0.001 * 1.3**step for step in range(24)]


@pytest.fixture
def table(tmp_path: Path) -> SweepTable:
    """Where the learning rate decides, the seed of the data does not, and adam takes twice as long."""
    jobs = []
    for number, rate in enumerate(RATES):
        optimizer, noise = ("sgd", "adam")[number % 2], number * 7 % 11
        score = math.exp(-(math.log10(rate / 0.05) ** 2))
        results = {"status": "completed", "dataset": "synthetic", "val_accuracy": score}
        overrides = (f"optimizer={optimizer}", f"optimizer.lr={rate!r}", f"model.dropout={noise / 20}")
        curve, seconds = {1: score / 2, 2: score}, dict.fromkeys((1, 2), 1.0 + number % 2)
        jobs.append(Job(tmp_path / f"{number}", f"{number}", overrides, "", "completed", "", results, curve, seconds))
    return rank_jobs(tmp_path, jobs, ["optimizer", "optimizer.lr", "model.dropout"], [])


def test_what_mattered_is_found_with_its_spread(table):
    pytest.importorskip("optuna", minversion="5")
    shares = importances(table)
    means = {key: statistics.fmean(values) for key, values in shares.items()}
    assert max(means, key=means.__getitem__) == "optimizer.lr"
    assert sum(means.values()) == pytest.approx(1)
    assert statistics.stdev(shares["optimizer.lr"]) > 0
    names = ["importance", "parallel", "training_time"]
    charts = draw_influence(table)
    assert [chart.name for chart in charts] == names
    assert all(chart.png.startswith(b"\x89PNG") for chart in charts)


def test_of_a_grid_too_what_decides_is_named_and_not_what_has_two_values(tmp_path):
    pytest.importorskip("optuna", minversion="5")
    jobs, noise = [], random.Random(0)
    bests = {"sgd": -0.7, "adam": -2.9, "rmsprop": -3.0, "sgd_momentum": -1.3}
    grid = itertools.product(bests.items(), range(-16, 1), (16, 32, 64, 128), (0.0, 0.1))
    for number, ((optimizer, best), power, size, dropout) in enumerate(grid):
        score = 0.88 - 0.03 * (power / 4 - best) ** 2 - 2e-5 * size - 0.01 * dropout + noise.gauss(0, 0.003)
        results = {"status": "completed", "dataset": "synthetic", "val_accuracy": score}
        settings = {"optimizer": optimizer, "optimizer.lr": 10 ** (power / 4), "model.dropout": dropout}
        overrides = tuple(f"{key}={value}" for key, value in {**settings, "data.batch_size": size}.items())
        jobs.append(Job(tmp_path / f"{number}", f"{number}", overrides, "", "completed", "", results, {}, {}))
    shares = importances(rank_jobs(tmp_path, jobs, [*settings, "data.batch_size"], []))
    assert statistics.fmean(shares["optimizer.lr"]) > 0.5
    assert statistics.fmean(shares["model.dropout"]) < 0.2


def test_the_front_has_those_than_which_none_is_both_quicker_and_better(table):
    front = pareto_front(table)
    for group in front:
        seconds = group.counted[0].epoch_seconds[1]
        assert not [
            other
            for other in table.ranked
            if other.value > group.value and other.counted[0].epoch_seconds[1] <= seconds
        ]
    assert table.ranked[0] in front
    assert [group.settings["optimizer"] for group in front] == sorted({g.settings["optimizer"] for g in front})[::-1]


def test_the_first_to_come_near_the_best_is_named_with_its_time(table):
    best = table.ranked[0]
    told = time_to_target(table)
    assert told.startswith(f"{100 * (best.value - 0.01):.2f} % first reached by optimizer=")
    assert told.endswith((" in 2 s", " in 4 s"))


def test_of_few_configurations_only_the_time_is_drawn(table):
    few = rank_jobs(table.sweep_dir, table.jobs[:5], ["optimizer", "optimizer.lr"], [])
    assert [chart.name for chart in draw_influence(few)] == ["training_time"]
