import contextlib
import json
import math
from pathlib import Path

import pytest
import yaml
from hydra._internal.utils import get_args_parser

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.prepare import prepare

FILES = sorted(CONF.glob("study/*.yaml"))
STUDIES = [file.stem for file in FILES]
GRIDS = [file for file in FILES if file.stem != "search"]


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What the command line of a study would run, after every check of it: sweep.json."""
    monkeypatch.chdir(tmp_path)

    def plan(*overrides: str) -> dict:
        with contextlib.ExitStack() as locks:
            start = prepare(get_args_parser().parse_args([*overrides, "hydra.sweep.dir=sweep"]), locks)
        assert start.sweep_launcher is not None
        return json.loads(Path("sweep", "sweep.json").read_text())

    return plan


@pytest.mark.parametrize("file", FILES, ids=STUDIES)
def test_every_study_says_what_it_does(file):
    lines = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert lines[:2] == ["# @package _global_", f"# python -m fmnist_lit study={file.stem}"]
    said = " ".join(line.removeprefix("# ") for line in lines)
    for part in ("Varies: ", "Tunes along: ", "Fixed: "):
        assert part in said


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_every_study_plans_each_combination_of_its_values_once(planned, file):
    params = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    sizes = [10 if values == "range(10)" else len(values.split(",")) for values in params.values()]
    plan = planned(f"study={file.stem}")
    assert plan["varied"] == [key for key, size in zip(params, sizes, strict=True) if size > 1]
    assert len({tuple(job["overrides"]) for job in plan["jobs"]}) == len(plan["jobs"]) == math.prod(sizes)
    assert len({job["folder"] for job in plan["jobs"]}) == len(plan["jobs"])


def test_a_study_can_be_a_search_and_a_command_line_changes_it(planned):
    pytest.importorskip("optuna", minversion="5")
    plan = planned("study=search", "hydra.sweeper.n_trials=7", "data.batch_size=range(64,129,32)", "seed=1")
    assert (plan["trials"], plan["jobs"]) == (7, [])
    assert plan["varied"] == ["optimizer", "data.batch_size", "optimizer.lr"]
    assert {"data.batch_size=range(64,129,32)", "seed=1"} < set(plan["space"])


def test_a_command_line_replaces_what_a_study_varies_and_fixes_and_adds_to_it(planned):
    plan = planned("study=optimizers", "optimizer=adam,sgd", "optimizer.lr=0.02", "trainer.max_epochs=1", "seed=1,2")
    assert plan["varied"] == ["optimizer", "seed"]
    assert [job["folder"] for job in plan["jobs"]] == [
        "optimizer=adam,seed=1",
        "optimizer=adam,seed=2",
        "optimizer=sgd,seed=1",
        "optimizer=sgd,seed=2",
    ]
    assert all({"optimizer.lr=0.02", "trainer.max_epochs=1"} < set(job["overrides"]) for job in plan["jobs"])


def test_the_command_of_the_verdict_runs_one_configuration_of_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["optimizer.lr=0.1", "data.batch_size=32", "study=lr_batch_size", "hydra.mode=RUN", "hydra.run.dir=run"]
    with contextlib.ExitStack() as locks:
        assert prepare(get_args_parser().parse_args(arguments), locks).sweep_launcher is None
