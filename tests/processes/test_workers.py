import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from conftest import QUIET, SMALL
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from interruptions import signal_at
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.processes import workers

PATIENCE = 300.0  # seconds that other processes may take on a busy machine


def extra(name: str, *values: str) -> object:
    """A parameter for whom Hydra's plugin of that name has to be installed."""
    missing = importlib.util.find_spec(f"hydra_plugins.{name}") is None
    return pytest.param(*values, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
LAUNCHERS = [
    extra("hydra_joblib_launcher", JOBLIB),
    extra("hydra_submitit_launcher", ("hydra/launcher=submitit_local",)),
    extra("hydra_ray_launcher", ("hydra/launcher=ray",)),
]
needs_joblib = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="joblib's launcher is not installed"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None, reason="Ray's launcher is not installed"
)


def rows(sweep_dir: Path) -> list[dict[str, str]]:
    """summary.csv without what takes other times."""
    with open(sweep_dir / "summary.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def statuses(sweep_dir: Path) -> dict[str, str]:
    return {row["folder"]: row["status"] for row in rows(sweep_dir)}


@pytest.fixture(autouse=True)
def new_processes() -> Iterator[None]:
    """Let joblib keep no process for the next test, which is in another folder."""
    yield
    if "joblib" in sys.modules:
        sys.modules["joblib"].externals.loky.get_reusable_executor().shutdown(wait=True)


# With real launchers

ONE_OF_EACH = ("optimizer.lr=0.1,1e30", "+trainer.profiler=null,nonsense")  # completed, diverged, two that fail


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_summary_is_the_same_whatever_the_launcher(launch_here, tmp_path, launcher):
    assert launch_here("-m", *SMALL, *QUIET, *ONE_OF_EACH, "hydra.sweep.dir=basic") == 1
    assert launch_here("-m", *SMALL, *QUIET, *ONE_OF_EACH, *launcher, "hydra.sweep.dir=parallel") == 1
    assert rows(tmp_path / "parallel") == rows(tmp_path / "basic")
    assert sorted(statuses(tmp_path / "basic").values()) == ["completed", "diverged", "failed", "failed"]
    assert "BasicLauncher" not in next(tmp_path.glob("parallel/*/.hydra/hydra.yaml")).read_text()


@needs_joblib
def test_sweep_goes_on_under_another_launcher_and_leaves_what_is_finished_alone(launch_here, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    arguments = ("-m", *SMALL[:-1], *QUIET, "hydra.sweep.dir=sweep", *JOBLIB)  # no number of threads
    assert launch_here("-m", *SMALL[:-1], *QUIET, "hydra.sweep.dir=sweep", "optimizer.lr=0.1,0.15") == 0
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("sweep/optimizer.lr*/**/*") if file.is_file()}
    assert launch_here(*arguments, "optimizer.lr=0.1,0.15,0.2,0.3") == 0
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert set(statuses(tmp_path / "sweep").values()) == {"completed"}
    new = [json.loads((tmp_path / "sweep" / f"optimizer.lr={lr}" / "results.json").read_text()) for lr in (0.2, 0.3)]
    assert [results["num_threads"] for results in new] == [1, 1]
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sweep_with_nothing_left_to_do_ends_well(launch_here, tmp_path, launcher):
    arguments = ("-m", *SMALL, *QUIET, "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert launch_here(*arguments) == 0
    before = rows(tmp_path / "sweep")
    assert launch_here(*arguments, *launcher) == 0
    assert rows(tmp_path / "sweep") == before


def interrupt(tmp_path: Path, *launcher: str) -> list[str]:
    """Send SIGTERM to a sweep of three jobs, two at a time, once both run; returns the lines on its screen."""
    arguments = (*SMALL, *QUIET, *launcher, "optimizer.lr=1,2,3", "trainer.max_epochs=1000000", "hydra.sweep.dir=sweep")
    with open(tmp_path / "screen", "w") as screen:
        command = [sys.executable, "-m", "fmnist_lit", "-m", *arguments]
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=screen, stderr=screen)
    try:
        end = time.monotonic() + PATIENCE
        while len(list(tmp_path.glob("sweep/*/checkpoints/last.ckpt"))) < 2:
            assert time.monotonic() < end
            assert sweep.poll() is None
            time.sleep(0.05)
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(PATIENCE) == 143
    finally:
        sweep.kill()
    assert [(row["status"], row["reason"].split(" after")[0]) for row in rows(tmp_path / "sweep")] == [
        ("interrupted", "by SIGTERM"),
        ("interrupted", "by SIGTERM"),
        ("not started", ""),
    ]
    lines = (tmp_path / "screen").read_text().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines


@needs_joblib
def test_signal_to_a_sweep_stops_its_jobs_and_starts_no_more(tmp_path):
    lines = interrupt(tmp_path, *JOBLIB)
    assert any(line.startswith("[optimizer.lr=1] Interrupted by SIGTERM. Go on with:") for line in lines)
    assert any(line.startswith("To go on with what is missing: python -m fmnist_lit") for line in lines)


@needs_ray
def test_signal_to_a_sweep_under_ray_does_too(tmp_path):
    lines = interrupt(tmp_path, "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2")
    assert any(line.startswith("To go on with what is missing: python -m fmnist_lit") for line in lines)
    assert "Interrupted by SIGTERM. Go on with:" in (tmp_path / "sweep" / "optimizer.lr=1" / "train.log").read_text()


@needs_joblib
def test_job_of_a_search_is_pruned_in_a_process_of_its_own_too(launch_here, tmp_path):
    pytest.importorskip("optuna", minversion="5")
    command = ("-m", *SMALL, *QUIET, *JOBLIB, "hydra/sweeper=search", "optimizer.lr=tag(log,interval(1e-4,1))")
    command += ("hydra.sweeper.n_trials=4", "hydra.sweeper.pruner=median", "hydra.sweep.dir=sweep")
    assert launch_here(*command, "hydra.sweeper.pruner_options={n_startup_trials: 1}") == 0
    assert [folder[:2] for folder in sorted(statuses(tmp_path / "sweep"))] == ["0_", "1_", "2_", "3_"]
    assert sorted(statuses(tmp_path / "sweep").values())[0] == "completed"
    reasons = [row["reason"] for row in rows(tmp_path / "sweep") if row["status"] == "interrupted"]
    assert all(reason.startswith("pruned: median, validation accuracy") for reason in reasons)
    assert reasons


# In this process


@pytest.fixture
def job(tmp_path: Path) -> Iterator[DictConfig]:
    """The configuration of a job whose sweep another process leads, or nobody does."""
    overrides = (*SMALL, *QUIET, "hydra.mode=MULTIRUN", f"hydra.sweep.dir='{tmp_path}'", f"run_dir='{tmp_path}/job'")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides)
        whole = hydra.compose("config", overrides, return_hydra_config=True)
    (tmp_path / "job").mkdir()
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(whole)
    yield cfg
    HydraConfig.instance().cfg = before


def status(cfg: DictConfig) -> str:
    return json.loads(Path(cfg.run_dir, "results.json").read_text())["status"]


def test_job_stops_when_nobody_leads_its_sweep_any_more(job, tmp_path, monkeypatch):
    job.trainer.max_epochs = 1_000_000
    lead = FileLock(tmp_path / workers.LOCK)
    lead.acquire()
    monkeypatch.setattr("fmnist_lit.train.announce", lambda *_: lead.release())
    with pytest.raises(SystemExit) as end:
        run_job(job)
    assert end.value.code == 143
    assert status(job) == "interrupted"


def test_job_of_a_sweep_that_nobody_leads_does_not_start(job):
    with pytest.raises(SystemExit) as end:
        run_job(job)
    assert end.value.code == 143
    assert not Path(job.run_dir, "results.json").exists()


RAY = OmegaConf.create({"_target_": "ray_launcher.RayLauncher", "ray": {"init": {"address": None}}})


@pytest.fixture
def ray(monkeypatch) -> Iterator[SimpleNamespace]:
    """In place of the package: sets its own handler of SIGTERM when it starts, as the package does."""
    fake = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: signal.signal(signal.SIGTERM, print))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(workers.stop_request, "signum", None)
    before = signal.getsignal(signal.SIGTERM)
    yield fake
    signal.signal(signal.SIGTERM, before)


def test_ray_starts_before_our_handlers_and_gets_the_only_exception_that_it_lets_through(tmp_path, ray):
    with pytest.raises(KeyboardInterrupt), workers.leading(tmp_path, RAY):
        signal.raise_signal(signal.SIGTERM)
    assert workers.stop_request.signum == signal.SIGTERM


def test_what_ray_makes_of_a_signal_ends_in_its_exit_code(launch_here, tmp_path, monkeypatch):
    def run_jobs(args: object) -> None:
        workers.stop_request.signum = signal.SIGTERM
        raise KeyboardInterrupt

    monkeypatch.setattr(workers.stop_request, "signum", None)
    monkeypatch.setattr("fmnist_lit.command_line.launch.hydra_application", lambda: run_jobs)
    assert launch_here("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep") == 143
    assert set(statuses(tmp_path / "sweep").values()) == {"not started"}


def test_cluster_that_does_not_answer_is_named_and_the_sweep_let_go(tmp_path, ray, monkeypatch):
    def init(**options: object) -> None:
        raise ConnectionError("Failed to connect")

    ray.init = init
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(ConfigError, match="RAY_ADDRESS=nowhere:1: Failed to connect"), workers.leading(tmp_path, RAY):
        pass
    assert not workers.is_held(tmp_path, otherwise=True)
    assert "OMP_NUM_THREADS" not in os.environ


def test_job_of_a_led_sweep_runs_to_its_end_and_shows_that_it_lives(job, tmp_path, monkeypatch):
    alive = []
    with FileLock(tmp_path / workers.LOCK):
        monkeypatch.setattr("fmnist_lit.train.announce", lambda *_: alive.append(workers.jobs_alive(tmp_path)))
        assert run_job(job) > 0
    assert alive == [True]
    assert not workers.jobs_alive(tmp_path)
    assert status(job) == "completed"


def test_signal_to_one_job_of_a_led_sweep_leaves_the_others_alone(job, tmp_path):
    with FileLock(tmp_path / workers.LOCK), signal_at(3):
        assert run_job(job) == 0
    assert status(job) == "interrupted"


def test_sweep_that_runs_is_refused_a_second_time(launch_here, tmp_path, capsys):
    arguments = ("-m", *SMALL, *QUIET, "seed=0,1", "hydra.sweep.dir=sweep")
    (tmp_path / "sweep").mkdir()
    with FileLock(tmp_path / "sweep" / workers.LOCK):
        assert launch_here(*arguments) == 2
    assert "hydra.sweep.dir=sweep: a sweep" in capsys.readouterr().err
    assert list((tmp_path / "sweep").glob("*.json")) == []


def test_single_run_without_a_figure_has_none(configure):
    assert math.isnan(run_job(configure("optimizer.lr=1e30")))
