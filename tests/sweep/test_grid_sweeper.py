import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from interruptions import FORKS, SIGKILL, Child, outcome, signal_at, tree

from fmnist_lit.sweep.summary import summarize

# 4 optimiser steps an epoch
TINY = (
    "data=synthetic",
    "data.train_size=128",
    "data.val_size=64",
    "data.test_size=64",
    "data.batch_size=32",
    "model.hidden_sizes=[8]",
    "trainer.accelerator=cpu",
    "num_threads=1",
    "logger=csv",
    "~callbacks.progress_bar",
)
GRID = ("-m", *TINY, "trainer.max_epochs=2,3", "seed=0,1")
DONE, STOPPED, MISSING = (
    ("seed=0,trainer.max_epochs=2", "seed=1,trainer.max_epochs=2"),
    "seed=0,trainer.max_epochs=3",
    "seed=1,trainer.max_epochs=3",
)


def conclusion(sweep_dir: Path) -> tuple[list[dict[str, str]], Any, list[str]]:
    """All that a summary says, but for times."""
    with open(sweep_dir / "summary.csv", newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    charts = sorted(file.name for file in sweep_dir.glob("plots/*"))
    verdict = summarize([sweep_dir], charts=False).verdict
    return rows, (verdict.headline, verdict.command, verdict.warnings), charts


def statuses(sweep_dir: Path) -> dict[str, str]:
    with open(sweep_dir / "summary.csv", newline="") as file:
        return {row["folder"]: row["status"] for row in csv.DictReader(file)}


@FORKS
@pytest.mark.parametrize(
    ("signum", "code", "status"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (SIGKILL, -9, "running"),  # nobody was left to say otherwise
    ],
)
def test_sweep_goes_on_after_a_signal_as_if_there_had_been_none(launch_here, tmp_path, signum, code, status):
    sweep, whole = tmp_path / "sweep", tmp_path / "whole"
    assert launch_here(*GRID, "hydra.sweep.dir=whole") == 0
    with signal_at(9, signum):  # in the third job; the first two have 8 steps
        assert Child(lambda: launch_here(*GRID, "hydra.sweep.dir=sweep"), tmp_path / "screen").wait() == code
    assert statuses(sweep) == {**dict.fromkeys(DONE, "completed"), STOPPED: status, MISSING: "not started"}
    assert (sweep / "summary.html").read_text().rstrip().endswith("</html>")
    assert MISSING in (sweep / "summary.md").read_text()
    finished = {name: tree(sweep / name) for name in DONE}

    assert launch_here(*GRID, "hydra.sweep.dir=sweep") == 0
    assert {name: tree(sweep / name) for name in DONE} == finished
    assert "ckpt_path" in (sweep / STOPPED / ".hydra" / "overrides.yaml").read_text()
    for name in (*DONE, STOPPED, MISSING):
        assert outcome(sweep / name) == outcome(whole / name)
    assert conclusion(sweep) == conclusion(whole)


def test_only_what_is_new_runs_where_values_are_added(launch_here, tmp_path):
    sweep = tmp_path / "sweep"
    run = ("-m", *TINY, "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert launch_here(*run, "optimizer.lr=0.1,0.2") == 0
    old = {name: tree(sweep / name) for name in ("optimizer.lr=0.1", "optimizer.lr=0.2")}
    assert launch_here(*run, "optimizer.lr=0.1,0.2,0.3") == 0
    assert launch_here(*run, "optimizer.lr=0.4") == 0  # a single one is named like those before
    assert {name: tree(sweep / name) for name in old} == old
    assert statuses(sweep) == dict.fromkeys([f"optimizer.lr=0.{lr}" for lr in range(1, 5)], "completed")


def test_failed_job_is_tried_again_and_a_diverged_one_is_not(launch_here, tmp_path):
    run = ("-m", *TINY, "trainer.max_epochs=1", "hydra.sweep.dir=sweep", "optimizer.lr=0.1,1e30,0.2")
    assert launch_here(*run) == 1
    results = tmp_path / "sweep" / "optimizer.lr=0.1" / "results.json"
    diverged = tree(tmp_path / "sweep" / "optimizer.lr=1e+30")
    results.write_text(json.dumps({**json.loads(results.read_text()), "status": "failed", "error": "x"}))
    assert launch_here(*run) == 1
    assert statuses(tmp_path / "sweep") == {
        "optimizer.lr=0.1": "completed",
        "optimizer.lr=0.2": "completed",
        "optimizer.lr=1e+30": "diverged",
    }
    assert tree(tmp_path / "sweep" / "optimizer.lr=1e+30") == diverged


def test_job_of_the_same_name_but_another_command_line_is_refused(launch_here, tmp_path, capsys):
    run = ("-m", *TINY, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert launch_here(*run, "trainer.max_epochs=1") == 0
    before = tree(tmp_path)
    capsys.readouterr()
    assert launch_here(*run, "trainer.max_epochs=2") == 2
    message = capsys.readouterr().err
    assert "trainer.max_epochs=1" in message
    assert "name another folder" in message
    assert tree(tmp_path) == before
