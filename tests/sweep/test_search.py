import contextlib
import csv
import dataclasses
import json
import math
import random
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from interruptions import FORKS, SIGKILL, TINY, Child, outcome, tree
from omegaconf import DictConfig

import fmnist_lit.command_line.launch
from fmnist_lit.command_line import sweeps
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.config.overrides import key_of, parse
from fmnist_lit.run import study as journal
from fmnist_lit.run.results import selected_by
from fmnist_lit.run.study import NAME, STUDY, make_pruner, open_study
from fmnist_lit.sweep.plan import plan_search, read_plan, save_plan
from fmnist_lit.sweep.search import SAMPLERS, Search
from fmnist_lit.sweep.space import SearchSpace
from fmnist_lit.sweep.summary import summarize

optuna = pytest.importorskip("optuna", minversion="5")

SEARCH = ("-m", "data=synthetic", "hydra/sweeper=search", "hydra.sweep.dir=sweep", "hydra.sweeper.n_jobs=2")
SPACE = ("optimizer.lr=tag(log,interval(1e-4,1))", "data.batch_size=int(interval(16,64))", "optimizer=sgd,adam")
WHEN = "hydra.sweeper.when=['optimizer=adam optimizer.lr=tag(log,interval(1e-5,1e-2))']"
QUICK = {  # so that each is past what it begins with
    "tpe": {"n_startup_trials": 3},
    "gp": {"n_startup_trials": 3},
    "cmaes": {"popsize": 3},
    "random": {},
    "qmc": {"qmc_type": "halton"},
}


@pytest.fixture
def ran(monkeypatch) -> SimpleNamespace:
    """The numbers of jobs, which only write what they came to, with a status of their own if they have one."""
    seen = SimpleNamespace(numbers=[], statuses={})

    def run(cfg: DictConfig) -> float:
        number = HydraConfig.get().job.num
        seen.numbers.append(number)
        score = math.exp(-((math.log10(cfg.optimizer.lr) + 2) ** 2) - cfg.data.batch_size / 100)
        results = {"status": seen.statuses.get(number, "completed"), "dataset": "synthetic", "val_accuracy": score}
        results |= {"error": "x", "diverged_step": 3} if number in seen.statuses else {}
        results["select"] = selected_by(Criterion.of(cfg.select), {"accuracy/val": score, "loss/val": -score})
        Path(cfg.run_dir, "results.json").write_text(json.dumps(results))
        return score

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    monkeypatch.setattr("fmnist_lit.sweep.callback.update", lambda _: None)
    monkeypatch.setattr(sweeps, "summarize", lambda folders, charts: summarize(folders, charts=False))
    return seen


def study_in(folder: Path) -> "optuna.Study":
    return open_study(folder, "max")[0]


def summary(sweep_dir: Path) -> list[dict[str, str]]:
    with open(sweep_dir / "summary.csv", newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    """The configuration of a search; composing it takes longer than all else here."""
    words = [*SEARCH[1:], WHEN, "hydra.sweeper.n_trials=9", "hydra.sweeper.seed=1"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", words, return_hydra_config=True)


def go_on(folder: Path, cfg: DictConfig, most: int = 99, trials: int = 9) -> list[int]:
    """Search as a sweep does, up to a number of jobs, which only write what they came to; returns theirs."""
    space = SearchSpace.of(parse(SPACE), cfg.hydra.sweeper.when)
    folder.mkdir(exist_ok=True)
    plan_search(folder, "command", space.keys, trials, SPACE)
    ran: list[int] = []
    for batch in Search(folder, cfg).batches():
        for number, overrides in batch:
            if len(ran) == most:
                return ran
            ran.append(number)
            values = {key_of(line): line.partition("=")[2] for line in overrides}
            job = folder / values["hydra.sweep.subdir"].strip("'")
            job.mkdir(exist_ok=True)
            lr, batch_size = float(values["optimizer.lr"]), int(values["data.batch_size"])
            score = math.exp(-((math.log10(lr) + 2) ** 2) - batch_size / 100)
            (job / "results.json").write_text(json.dumps({"status": "completed", "select": {"value": score}}))
    return ran


def trials(folder: Path) -> list[tuple[dict, float | None, str]]:
    return [(trial.params, trial.value, trial.state.name) for trial in study_in(folder).trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_are_the_same_however_often_a_search_was_stopped(cfg, tmp_path, monkeypatch, sampler):
    cfg.hydra.sweeper.sampler, cfg.hydra.sweeper.sampler_options = sampler, QUICK[sampler]
    assert go_on(tmp_path / "whole", cfg) == list(range(9))
    whole = read_plan(tmp_path / "whole")
    assert len({job.overrides for job in whole.jobs}) == 9
    add, added = Search.add, []

    def stop(self: Search, *trial: object) -> None:
        added.append(trial)
        if len(added) in (2, 8):  # in the middle of a batch
            raise KeyboardInterrupt
        add(self, *trial)

    monkeypatch.setattr(Search, "add", stop)
    ran: list[int] = []
    for most in (1, 99, 2, 0, 99):
        with contextlib.suppress(KeyboardInterrupt):
            ran += go_on(tmp_path / "sweep", cfg, most)
    assert len(added) == 9 + 2
    assert read_plan(tmp_path / "sweep").jobs == whole.jobs
    assert trials(tmp_path / "sweep") == trials(tmp_path / "whole")
    assert {state for _, _, state in trials(tmp_path / "sweep")} == {"COMPLETE"}


def test_a_study_is_looked_at_and_gone_on_with(launch_here, ran, tmp_path, capsys):
    ran.statuses = {1: "failed", 2: "diverged"}
    command = (*SEARCH, *SPACE, "hydra.sweeper.sampler=random")
    assert launch_here(*command, "hydra.sweeper.n_trials=4") == 1
    states = [trial.state.name for trial in study_in(tmp_path / "sweep").trials]
    assert states == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]  # what failed is tried again
    assert study_in(tmp_path / "sweep").trials[2].value == 0  # as bad as can be
    assert "To go on with what is missing" in capsys.readouterr().out
    ran.statuses = {}
    assert launch_here(*command, "hydra.sweeper.n_trials=6") == 1  # the diverged one stays
    assert ran.numbers == [0, 1, 2, 3, 1, 4, 5]
    assert {row["status"] for row in summary(tmp_path / "sweep")} == {"completed", "diverged"}
    capsys.readouterr()
    shutil.move(tmp_path / "sweep" / STUDY, tmp_path / "away")  # and the same command makes it anew
    assert launch_here(*command, "hydra.sweeper.n_trials=6") == 1
    assert len(ran.numbers) == 7
    assert [trial.value for trial in study_in(tmp_path / "sweep").trials] == [
        trial.value for trial in optuna.load_study(study_name="search", storage=storage_of(tmp_path / "away")).trials
    ]
    assert "with what is missing" not in capsys.readouterr().out


def test_the_summary_of_a_search_that_was_killed_says_how_many_trials_are_to_come(launch_here, ran, tmp_path):
    assert launch_here(*SEARCH, *SPACE, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=3") == 0
    folder = tmp_path / "sweep"
    save_plan(folder, dataclasses.replace(read_plan(folder), trials=40))
    assert "The sweep is not complete: 37 not sampled of 40 jobs." in summarize([folder], charts=False).text


def storage_of(file: Path) -> "optuna.storages.BaseStorage":
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))


def test_a_lower_loss_is_what_is_looked_for_and_a_torn_line_is_dropped(launch_here, ran, tmp_path):
    command = (*SEARCH, *SPACE, "select.metric=loss/val", "select.mode=min")
    assert launch_here(*command, "hydra.sweeper.n_trials=2") == 0
    study = study_in(tmp_path / "sweep")
    assert study.direction.name == "MINIMIZE"
    assert study.best_value == min(trial.value for trial in study.trials) < 0
    with open(tmp_path / "sweep" / STUDY, "a") as file:
        file.write('{"op_code": 4, "worker_id": "x')
    assert launch_here(*command, "hydra.sweeper.n_trials=3") == 0
    assert ran.numbers == [0, 1, 2]


BAD = {
    "a sampler that is not there": (["hydra.sweeper.sampler=tpee"], "must be one of tpe, random, qmc, gp, cmaes"),
    "a pruner that is not there": (["hydra.sweeper.pruner=mean"], "must be one of none, median, halving, hyperband"),
    "an option that is not there": (["hydra.sweeper.sampler_options={popsize: 3}"], "sampler=tpe has only n_startup"),
    "an option of another kind": (["hydra.sweeper.sampler_options={group: 3}"], "sampler_options.group=3: must be of"),
    "a pruner without options": (["hydra.sweeper.pruner_options={a: 3}"], "pruner=none has no options"),
    "a key that is not there": (["hydra.sweeper.trials=3"], "hydra.sweeper.trials"),
    "no trial": (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be a whole number from 1"),
    "a negative seed": (["hydra.sweeper.seed=-1"], "hydra.sweeper.seed=-1: must be a whole number from 0"),
    "a condition of nothing": (["hydra.sweeper.when=['optimizer=sgd']"], "must be a condition and what holds under it"),
    "a line for lines": (["hydra.sweeper.when='optimizer=sgd seed=1'"], "must be a list of lines"),
    "an end that no run takes": (["model.dropout=interval(0,1.5)"], "model.dropout=1.5"),
    "one that holds under a condition": (["hydra.sweeper.when=['optimizer=sgd seed=-1']"], "seed=-1"),
    "a folder named by what varies": (["hydra.sweep.subdir=${hydra.job.num}_${seed}"], "and nothing else"),
    "the sweeper of earlier versions": (["hydra/sweeper=optuna"], "has become hydra/sweeper=search"),
}


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_searched_is_refused_in_a_line_before_anything_is_written(
    launch_here, ran, tmp_path, capsys, words, told
):
    assert launch_here(*SEARCH, "optimizer=sgd,adam", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert not any(tmp_path.iterdir())


def test_another_search_in_the_folder_and_a_study_that_cannot_be_read_cost_nothing(
    launch_here, ran, tmp_path, capsys, monkeypatch
):
    command = (*SEARCH, *SPACE, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=2")
    assert launch_here(*command) == 0
    assert launch_here("-m", "data=synthetic", "optimizer=sgd", "hydra.sweep.dir=grid") == 0
    assert launch_here(*command, "hydra.sweep.dir=grid") == 2
    assert "holds a grid" in capsys.readouterr().err
    before = tree(tmp_path / "sweep")
    monkeypatch.setattr(journal, "PATIENCE", 0.1)

    def refused(*words: str) -> str:
        capsys.readouterr()
        assert launch_here(*words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert tree(tmp_path / "sweep") == before
        return line

    for words, told in (
        (["optimizer.lr=interval(0.1,1)"], "its study has optimizer.lr=0.0001..1.0 log, not optimizer.lr=0.1..1.0;"),
        (["trainer.max_epochs=3"], "its study has nothing for that, not trainer.max_epochs=3;"),
        (["select.metric=loss/val", "select.mode=min"], "its study has nothing for that, not select.metric"),
    ):
        assert told in refused(*command, *words)
    assert "holds a search" in refused(*SEARCH[:2], SEARCH[3], "optimizer=sgd,adam")
    with FileLock(tmp_path / "sweep" / journal.LOCK):
        assert "another program has kept it locked" in refused(*command)
    content = (tmp_path / "sweep" / STUDY).read_text()
    (tmp_path / "sweep" / STUDY).write_text(content[:100] + "\n" + content[100:])
    before = tree(tmp_path / "sweep")
    assert "is damaged" in refused(*command)


def test_what_a_strangers_study_would_unpickle_is_refused(cfg, tmp_path, monkeypatch):
    cfg.hydra.sweeper.sampler, cfg.hydra.sweeper.sampler_options = "cmaes", QUICK["cmaes"]
    go_on(tmp_path / "sweep", cfg)
    file = tmp_path / "sweep" / STUDY
    evil = f"cposix\nmkdir\n(S'{tmp_path / 'owned'}'\ntR.".encode().hex()
    changed, count = re.subn(r'("cma:optimizer:0": ?)"[0-9a-f]+"', rf'\1"{evil}"', file.read_text())
    assert count
    file.write_text(re.sub(r'("cma:optimizer:[1-9]": ?)"[0-9a-f]+"', r'\1""', changed))
    with pytest.raises(ConfigError, match="holds no state of CMA-ES"):
        go_on(tmp_path / "sweep", cfg, trials=10)
    assert not (tmp_path / "owned").exists()


REAL = ("-m", *TINY, "logger=csv", "~callbacks.progress_bar", "hydra/sweeper=search", "optimizer=sgd,adam")
REAL += ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "hydra.sweeper.sampler_options={n_startup_trials: 3}")


@FORKS
def test_a_search_that_is_killed_again_and_again_comes_to_what_it_would_have(launch_here, tmp_path):
    command = (*REAL, "hydra.sweeper.n_trials=8", "trainer.max_epochs=2", "trainer.checkpoint_every_n_steps=2")
    begun = time.monotonic()
    assert launch_here(*command, "hydra.sweep.dir=whole") == 0
    seconds, chance, kills = time.monotonic() - begun, random.Random(0), 0
    while True:
        child = Child(lambda: launch_here(*command, "hydra.sweep.dir=sweep"), tmp_path / "screen")
        if kills < 4:
            time.sleep(chance.uniform(0.1, 0.5) * seconds)
            child.send(SIGKILL)
        kills += (code := child.wait()) == -SIGKILL
        if code == 0:
            break
        assert code == -SIGKILL, child.text
    assert kills > 1
    plans = [read_plan(tmp_path / name) for name in ("whole", "sweep")]
    assert plans[0].jobs == plans[1].jobs
    assert len(set(plans[0].jobs)) == 8
    for job in plans[0].jobs:
        assert outcome(tmp_path / "sweep" / job.folder) == outcome(tmp_path / "whole" / job.folder)
    assert summary(tmp_path / "sweep") == summary(tmp_path / "whole")
    assert [trial.value for trial in study_in(tmp_path / "sweep").trials] == [
        trial.value for trial in study_in(tmp_path / "whole").trials
    ]


@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_each_pruner_ends_the_worse_and_not_the_best(name):
    options = {"n_startup_trials": 1} if name == "median" else {}
    pruner = make_pruner(name, options, max_epochs=9)
    # hyperband draws its brackets by the name
    study = optuna.create_study(study_name=NAME, direction="maximize", pruner=pruner)
    pruned = []
    for number in range(20):
        trial, score = study.ask(), (10 - number % 10) / 10
        for epoch in range(1, 9):
            trial.report(score, epoch)
            if trial.should_prune():
                pruned.append(score)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, score)
    assert pruned
    assert 1.0 not in pruned
    assert min(pruned) == 0.1


def test_what_does_badly_is_pruned_and_can_be_resumed_to_the_same_bits(launch_here, tmp_path):
    tiny = (*TINY, "logger=csv", "~callbacks.progress_bar", "optimizer=adam", "select.metric=loss/val")
    tiny += ("select.mode=min",)
    command = (*tiny, "hydra/sweeper=search", "hydra.sweep.dir=sweep", "optimizer.lr=tag(log,interval(1e-5,1e-2))")
    command += ("hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}")
    command += ("hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=4")
    assert launch_here("-m", *command) == 0  # pruned is not failed
    table = summary(tmp_path / "sweep")
    pruned = [row for row in table if row["status"] == "interrupted"]
    assert pruned
    assert table[0]["status"] == "completed"
    assert all(row["reason"].startswith("pruned: median, validation loss ") for row in pruned)
    assert {row["rank"] for row in pruned} == {""}
    states = [trial.state.name for trial in study_in(tmp_path / "sweep").trials]
    assert states.count("PRUNED") == len(pruned)
    folder = tmp_path / "sweep" / pruned[0]["folder"]
    before = tree(folder)
    assert launch_here("-m", *command) == 0  # nothing is left to do
    assert tree(folder) == before
    assert launch_here(f"ckpt_path={folder}") == 0
    assert launch_here(*tiny, f"optimizer.lr={pruned[0]['optimizer.lr']}", "hydra.run.dir=plain") == 0
    assert outcome(folder) == outcome(tmp_path / "plain")


def test_a_study_that_cannot_be_written_costs_a_job_no_more_than_that_nothing_prunes_it(
    launch_here, tmp_path, monkeypatch
):
    def report(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optuna.trial.Trial, "report", report)
    command = (*REAL, "trainer.max_epochs=1", "hydra.sweeper.n_trials=1", "hydra.sweeper.pruner=median")
    assert launch_here(*command, "hydra.sweep.dir=sweep") == 0
    (log,) = tmp_path.glob("sweep/*/train.log")
    assert "this job goes on and is not pruned: " in log.read_text()
    assert "No space left on device" in log.read_text()


def test_without_a_pruner_a_job_needs_no_optuna(monkeypatch):
    from fmnist_lit.run.pruning import pruning_of

    monkeypatch.setattr(HydraConfig, "initialized", lambda: False)
    assert pruning_of(DictConfig({})) == []
