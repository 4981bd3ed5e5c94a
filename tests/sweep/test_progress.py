import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fmnist_lit.sweep import callback
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.plan import Halving, Plan, PlannedJob
from fmnist_lit.sweep.progress import Progress, duration
from fmnist_lit.sweep.table import rank_jobs

RATES = ("0.1", "0.3", "1", "3")
STATUSES = ("completed", "completed", "running", "not started")


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    """Two of four have ended, the first before the command that is under way."""
    made = []
    for place, (rate, status) in enumerate(zip(RATES, STATUSES, strict=True)):
        folder, override = f"optimizer.lr={rate}", f"optimizer.lr={rate}"
        (tmp_path / folder).mkdir()
        results = {"val_accuracy": 0.8 + 0.1 * place} if status == "completed" else {}
        made.append(Job(tmp_path / folder, folder, (override, "seed=0"), "", status, "", results, {}))
    os.utime(made[0].run_dir, (0, 0))
    return made


@pytest.fixture
def plan(jobs) -> Plan:
    return Plan("", ("optimizer.lr",), tuple(PlannedJob(job.folder, job.overrides) for job in jobs), (0, 1, 2, 3))


def test_a_job_is_announced_with_its_place_its_values_the_best_and_the_time_left(tmp_path, jobs, plan):
    progress = Progress.of(plan, rank_jobs(tmp_path, jobs, ["optimizer.lr"], []), begun=time.time() - 60)
    assert progress.seconds_left == pytest.approx(120, abs=2)  # one job in a minute, two to go
    line = progress.line(2, ["optimizer.lr=1", "trainer.max_epochs=3"])
    assert line == "job 3 of 4 · optimizer.lr=1 · best so far 90.00 % (optimizer.lr=0.3) · about 2 min left"
    assert progress.line(2, [], bar=True).startswith("job 3 of 4 [##########----------] · best")


def test_nothing_is_promised_before_a_job_has_ended(tmp_path, jobs, plan):
    started = [job for job in jobs if job.status != "completed"]
    progress = Progress.of(plan, rank_jobs(tmp_path, started, ["optimizer.lr"], []), begun=time.time() - 60)
    assert progress.line(0, ["optimizer.lr=0.1"]) == "job 1 of 4 · optimizer.lr=0.1"


def test_of_a_grid_that_is_halved_epochs_count_and_not_jobs_that_wait_to_go_on(tmp_path, jobs, plan):
    trained = [replace(job, status="interrupted", curve={1: 0.8}) for job in jobs]
    for job in trained:
        job.run_dir.mkdir(exist_ok=True)
        os.utime(job.run_dir)
    halved = replace(plan, halving=Halving(2, (1, 3)))
    progress = Progress.of(halved, rank_jobs(tmp_path, trained, ["optimizer.lr"], []), begun=time.time() - 60)
    assert progress.share == 0.5  # each has had its one epoch, and half of them have two to go
    line = progress.line(1, ["optimizer.lr=0.3", "sweep.until_epoch=3"])
    assert line == "job 2 of 4 · optimizer.lr=0.3 · to epoch 3 · about 60 s left"


def test_of_jobs_that_are_chosen_as_the_sweep_goes_the_number_is_not_known(tmp_path, jobs):
    progress = Progress.of(Plan("", (), (), ()), rank_jobs(tmp_path, jobs, ["optimizer.lr"], []), begun=0)
    assert progress.line(7, ["optimizer.lr=0.1"]) == "job 8 · best so far 90.00 % (optimizer.lr=0.3)"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (5400, "2 h"), (86400, "24 h")]
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("few", [3, 4])
def test_summaries_of_many_jobs_take_a_small_share_of_the_time(tmp_path, monkeypatch, jobs, few):
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    written = []

    def summarize(folders: list[Path], **options: bool) -> SimpleNamespace:
        written.append(options)
        clock.now += 1
        return SimpleNamespace(table=rank_jobs(tmp_path, jobs, ["optimizer.lr"], []))

    monkeypatch.setattr(callback, "summarize", summarize)
    monkeypatch.setattr(callback, "read_plan", lambda folder: Plan("", (), (), ()))
    monkeypatch.setattr(callback, "known", {})
    monkeypatch.setattr(callback, "FEW", few)
    monkeypatch.setattr(callback, "time", clock)
    (tmp_path / "multirun.yaml").touch()
    first = callback.update(tmp_path)
    clock.now += 15
    assert (callback.update(tmp_path) is first) == (few < len(jobs))
    clock.now += 5
    assert callback.update(tmp_path) is not first
    assert written == [{"live": True, "charts": False}] * (2 if few < len(jobs) else 3)
