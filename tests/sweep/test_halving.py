import json
from dataclasses import replace

import pytest
from interruptions import FORKS, SIGKILL, TINY, Child, outcome, results, signal_at

from fmnist_lit.config.criterion import Criterion
from fmnist_lit.sweep.halving import configurations, figure_at, halving_of, rounds
from fmnist_lit.sweep.plan import Halving, Plan, PlannedJob, read_plan

RATES = ("0.001", "0.01", "0.1", "1", "1e30", "3", "10", "30", "100")  # of which 1e30 diverges
TINY = (*TINY, "logger=csv", "~callbacks.progress_bar")
GRID = ("-m", *TINY, "trainer.max_epochs=9", "scheduler=cosine", f"optimizer.lr={','.join(RATES)}")


def lengths(sweep_dir):
    """How many epochs each job has trained."""
    return {
        file.parent.name: len(file.read_text().splitlines()) - 1 for file in sorted(sweep_dir.glob("*/metrics.csv"))
    }


def test_the_best_third_goes_on_and_the_winner_ends_in_the_bits_of_a_plain_run(launch_here, tmp_path, capsys):
    assert launch_here(*GRID, "sweep.halving=3", "hydra.sweep.dir=sweep") == 1  # one has diverged
    screen = capsys.readouterr().out
    sweep = tmp_path / "sweep"
    assert read_plan(sweep).halving == Halving(3, (1, 3, 9))
    assert sorted(lengths(sweep).values()) == [1, 1, 1, 1, 1, 3, 3, 9]  # what diverged has none
    (winner,) = (file.parent for file in sweep.glob("*/results.json") if results(file.parent)["status"] == "completed")
    others = [results(file.parent) for file in sweep.glob("*/results.json") if file.parent != winner]
    assert {each["stopped_by"] for each in others if each["status"] == "interrupted"} == {
        "pruned: halving, after epoch 1 of 9",
        "pruned: halving, after epoch 3 of 9",
    }
    assert "7 of 9 jobs were pruned" in screen
    assert launch_here(*TINY, "trainer.max_epochs=9", "scheduler=cosine", winner.name, "hydra.run.dir=alone") == 0
    assert outcome(winner) == outcome(tmp_path / "alone")
    # what was left behind can be seen to its end
    (third, *_) = (name for name, epochs in lengths(sweep).items() if epochs == 3)
    assert launch_here(f"ckpt_path='sweep/{third}'") == 0
    assert results(sweep / third)["epochs"] == 9


@FORKS
def test_halved_sweep_goes_on_after_a_kill_as_if_there_had_been_none(launch_here, tmp_path):
    command = (*GRID[:-1], "optimizer.lr=0.01,0.1,1", "sweep.halving=3")
    assert launch_here(*command, "hydra.sweep.dir=whole") == 0
    with signal_at(14, SIGKILL):  # 4 steps an epoch; in the round of the best
        child = Child(lambda: launch_here(*command, "hydra.sweep.dir=sweep"), tmp_path / "screen")
    assert child.wait() == -9
    assert launch_here(*command, "hydra.sweep.dir=sweep") == 0
    assert lengths(tmp_path / "sweep") == lengths(tmp_path / "whole")
    for folder in lengths(tmp_path / "whole"):
        assert outcome(tmp_path / "sweep" / folder) == outcome(tmp_path / "whole" / folder)


@pytest.fixture
def made(tmp_path):
    """Four configurations of two seeds each, of which one seed has diverged and one stopped early."""
    figures = {("a", 0): [0.5, 0.6], ("a", 1): [0.7, 0.6], ("b", 0): [0.9, 0.9], ("b", 1): [0.1, 0.9]}
    figures |= {("c", 0): [0.95, 0.95], ("c", 1): [0.95], ("d", 0): [0.62], ("d", 1): [0.62]}
    jobs = []
    for (name, seed), values in figures.items():
        folder = tmp_path / f"{name}{seed}"
        folder.mkdir()
        status = {"c1": "diverged", "d0": "completed", "d1": "completed"}.get(folder.name, "interrupted")
        (folder / "results.json").write_text(json.dumps({"status": status}))
        rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values, start=1))
        (folder / "metrics.csv").write_text(f"epoch,val_accuracy\n{rows}")
        jobs.append(PlannedJob(folder.name, (f"model={name}", f"seed={seed}")))
    return Plan("", ("model", "seed"), tuple(jobs), tuple(range(8)))


def test_seeds_go_on_together_by_their_mean(tmp_path, made):
    assert list(configurations(made)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    at = {
        name: figure_at(tmp_path, made, numbers, 1, Criterion())
        for name, numbers in zip("abcd", configurations(made), strict=True)
    }
    assert at == {"a": pytest.approx(0.6), "b": pytest.approx(0.5), "c": None, "d": pytest.approx(0.62)}
    (first, second) = rounds(tmp_path, replace(made, halving=Halving(2, (1, 4))), Criterion())
    assert first == (1, [])  # all have come to the first epoch, or ended
    assert [number for number, _ in second[1]] == [0, 1]  # d has ended, of its own accord


def test_figure_is_the_best_so_far_as_it_is_of_a_whole_run(tmp_path, made):
    assert figure_at(tmp_path, made, [0, 1], 2, Criterion()) == pytest.approx(0.65)
    assert figure_at(tmp_path, made, [0, 1], 2, Criterion("accuracy/val", "min")) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("jobs", "factor", "max_epochs", "rungs"),
    [
        (100, 3, 9, (1, 3, 9)),
        (9, 3, 9, (1, 3, 9)),
        (3, 3, 9, (3, 9)),
        (100, 3, 10, (1, 3, 10)),
        (2, 2, 9, (4, 9)),
        (1, 3, 9, (9,)),
    ],
)
def test_jobs_are_compared_as_often_as_there_is_something_to_choose(jobs, factor, max_epochs, rungs):
    listed = tuple(PlannedJob(f"{job}", (f"optimizer.lr={job}",)) for job in range(1, jobs + 1))
    assert halving_of(Plan("", (), listed, tuple(range(jobs))), factor, max_epochs).rungs == rungs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep.halving=1"], "sweep.halving=1: must be a whole number >= 2 or null"),
        (["sweep.halving=3", "trainer.max_epochs=2"], "sweep.halving=3: needs trainer.max_epochs of 3 or more"),
        (["sweep.halving=3", "trainer.max_steps=50"], "sweep.halving=3: needs trainer.max_epochs of 3 or more, and no"),
        (["sweep.halving=3", "trainer.max_epochs=3,9"], "sweep.halving=3: all jobs must be of one length, not"),
        (["sweep.halving=2,3"], "sweep.halving=2,3: several values"),
        (["sweep.halving=3", "select.metric=f1/val"], "select.metric=f1/val"),
    ],
)
def test_what_cannot_be_halved_is_refused_before_anything_is_written(launch_here, tmp_path, capsys, words, told):
    assert launch_here("-m", *TINY, "trainer.max_epochs=9", "optimizer.lr=0.1,1", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert list(tmp_path.iterdir()) == []
