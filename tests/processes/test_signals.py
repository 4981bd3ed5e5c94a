import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from interruptions import (
    ADAM,
    FORKS,
    HARDEST,
    PATIENCE,
    RUN,
    TINY,
    Child,
    interrupting,
    outcome,
    points,
    results,
    rows,
    signal_at,
    until,
)

import fmnist_lit.command_line.job
import fmnist_lit.command_line.launch
import fmnist_lit.run.checkpoint
import fmnist_lit.train
from fmnist_lit.__main__ import main
from fmnist_lit.classifier import Classifier
from fmnist_lit.command_line.job import run_job
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.sweep.callback import SummaryCallback

# In this process


CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140}
if sys.platform != "linux":  # numbers its own way
    CODES = {name: 128 + signal.Signals[name] for name in CODES if name in signal.Signals.__members__}
HANGUP = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")


@pytest.mark.parametrize(("name", "code"), CODES.items())
@pytest.mark.parametrize("steps_per_batch", [1, 50])
def test_signal_saves_the_current_step_and_says_who_it_was(configure, tmp_path, caplog, name, code, steps_per_batch):
    cfg = configure(*RUN, f"trainer.steps_per_batch={steps_per_batch}")
    with signal_at(11, signal.Signals[name]), pytest.raises(SystemExit) as end:
        run_job(cfg)
    assert end.value.code == code
    written = results(tmp_path / "run")
    assert written["status"] == "interrupted"
    assert written["signal"] == name
    assert written["test_accuracy"] is None
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 11
    assert f"Interrupted by {name}" in caplog.text
    assert f"ckpt_path={tmp_path / 'run'}" in caplog.text
    assert len(rows(tmp_path / "run")) == 1


def test_handlers_are_put_back(configure):
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with signal_at(3), pytest.raises(SystemExit):
        run_job(configure(*RUN))
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


@HANGUP
@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_signal_that_is_ignored_stays_so(configure, tmp_path, monkeypatch, name):
    """As under nohup, and in the background of a script."""
    before = signal.signal(signal.Signals[name], signal.SIG_IGN)
    try:
        with signal_at(3, signal.Signals[name]):
            run_job(configure(*RUN))
        assert signal.getsignal(signal.Signals[name]) is signal.SIG_IGN
    finally:
        signal.signal(signal.Signals[name], before)
    assert results(tmp_path / "run")["status"] == "completed"


SBATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "node1",
}


@HANGUP
@pytest.mark.parametrize("moment", ["in a step", "before training", "in the test"])
@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0"}], ids=["sbatch", "srun"])
def test_signal_in_a_job_of_slurm_is_ours_and_nothing_is_requeued(configure, tmp_path, monkeypatch, moment, step):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\ntouch {tmp_path / 'requeued'}\n", encoding="utf-8")
    (tmp_path / "scontrol").chmod(0o755)
    for name, value in {**SBATCH, **step, "PATH": f"{tmp_path}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    hook = {"before training": "configure_optimizers", "in the test": "on_test_epoch_start"}.get(moment)
    if hook:
        interrupting(monkeypatch, Classifier, hook, signum=signal.SIGUSR1)
    with signal_at(0 if hook else 3, signal.SIGUSR1), pytest.raises(SystemExit) as end:
        run_job(configure(*RUN))
    assert end.value.code == 128 + signal.SIGUSR1
    assert results(tmp_path / "run")["signal"] == "SIGUSR1"
    assert not (tmp_path / "requeued").exists()
    assert not list((tmp_path / "run").glob("hpc_ckpt*"))


def test_run_after_an_interrupted_one_is_not_interrupted(configure, tmp_path):
    with signal_at(3), pytest.raises(SystemExit):
        run_job(configure(*RUN, run_dir="first"))
    run_job(configure(*RUN, run_dir="second"))
    assert results(tmp_path / "second")["status"] == "completed"


def test_run_in_another_thread_trains_without_handlers(configure, tmp_path):
    cfg = configure()
    thread = threading.Thread(target=run_job, args=(cfg,))
    thread.start()
    thread.join(PATIENCE)
    assert results(tmp_path / "run")["status"] == "completed"


BEFORE_TRAINING = [
    (fmnist_lit.command_line.job, "remove_orphans"),
    (fmnist_lit.command_line.job, "check_configuration"),
    (fmnist_lit.train, "seed_everything"),
    (fmnist_lit.train, "make_datamodule"),
    (Classifier, "configure_optimizers"),
]


@pytest.mark.parametrize(("owner", "name"), BEFORE_TRAINING, ids=lambda value: getattr(value, "__name__", value))
def test_signal_before_training_is_an_interruption(configure, tmp_path, monkeypatch, caplog, owner, name):
    cfg = configure(*RUN)
    interrupting(monkeypatch, owner, name)
    with pytest.raises(SystemExit, match="143"):
        run_job(cfg)
    assert results(tmp_path / "run")["status"] == "interrupted"
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert checkpoint.exists() == ("Go on with" in caplog.text)  # no advice that would be refused


def test_signal_in_the_test_at_the_end_keeps_the_training(configure, tmp_path, monkeypatch):
    interrupting(monkeypatch, Classifier, "on_test_epoch_start")
    with pytest.raises(SystemExit, match="143"):
        run_job(configure(*RUN))
    assert results(tmp_path / "run")["status"] == "interrupted"
    assert len(rows(tmp_path / "run")) == 3
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 24


@pytest.mark.parametrize("after", [False, True])
def test_signal_while_the_results_are_written_is_no_crash(configure, tmp_path, monkeypatch, after):
    """The last moment at which it can come: the run is through, its status is on its way to the disk."""
    train = fmnist_lit.train.train

    def through(cfg: Any) -> Any:
        returned = train(cfg)
        interrupting(monkeypatch, fmnist_lit.command_line.job, "write_json", after)
        return returned

    monkeypatch.setattr(fmnist_lit.train, "train", through)
    with pytest.raises(SystemExit, match="143"):
        run_job(configure(*RUN))
    assert results(tmp_path / "run")["status"] in ("completed", "interrupted")


@pytest.mark.parametrize("after", [False, True])
def test_signal_while_a_checkpoint_is_written_does_not_harm_it(configure, tmp_path, monkeypatch, after):
    import fmnist_lit.run.checkpoint

    whole = configure(*RUN, *HARDEST, run_dir="whole")
    run_job(whole)
    interrupting(monkeypatch, fmnist_lit.run.checkpoint, "write_durably", after)
    with pytest.raises(SystemExit, match="143"):
        run_job(configure(*RUN, *HARDEST))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(checkpoint)["global_step"] == 8
    assert not list((tmp_path / "run").rglob("*.tmp"))
    run_job(configure(*RUN, *HARDEST, f"ckpt_path='{checkpoint}'"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


FIXED = [override for override in TINY if not override.startswith("trainer.max_epochs")]
SWEEP = ("-m", *FIXED, "trainer.max_epochs=1,2,3", "hydra.sweep.dir=sweep")


def told(screen: str) -> dict[str, str]:
    """The status of each job in the table on the screen, by its number of epochs."""
    rows = [line for line in screen.splitlines() if line.startswith("|")]
    found = {}
    for epochs in "123":
        (row,) = [row for row in rows if f"trainer.max_epochs={epochs}" in row]
        (found[epochs],) = [status for status in ("completed", "interrupted", "not started") if status in row]
    return found


def test_signal_stops_a_sweep_which_says_what_is_done_and_what_is_not(launch_here, tmp_path, capfd):
    with signal_at(5):  # a step that the first job, of 4 steps, has not
        assert launch_here(*SWEEP) == 143
    screen = capfd.readouterr().out
    assert told(screen) == {"1": "completed", "2": "interrupted", "3": "not started"}
    assert not (tmp_path / "sweep" / "plots").exists()  # drawing takes seconds that a signal does not give
    statuses = {file.parent.name: results(file.parent)["status"] for file in tmp_path.glob("sweep/*/results.json")}
    assert statuses == {"trainer.max_epochs=1": "completed", "trainer.max_epochs=2": "interrupted"}


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end"])
def test_signal_between_the_jobs_of_a_sweep_ends_it_the_same_way(launch_here, tmp_path, monkeypatch, capfd, name):
    """No run is there to notice it."""
    interrupting(monkeypatch, SummaryCallback, name, after=True)
    with stop_request.listening():  # as __main__ does
        assert launch_here(*SWEEP) == 143
    out, err = capfd.readouterr()
    assert told(out)["2"] == told(out)["3"] == "not started"
    assert "Interrupted by SIGTERM" in err


MOMENTS = [
    ("fmnist_lit.command_line.launch", "prepare"),
    ("fmnist_lit.command_line.launch", "check_sources"),
    ("fmnist_lit.command_line.launch", "hydra_application"),
]


@FORKS
@pytest.mark.parametrize(("module", "name"), MOMENTS)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_before_there_is_a_run_is_no_traceback(tmp_path, monkeypatch, module, name, signum, code):
    def arrive(*_: object, **__: object) -> None:
        signal.raise_signal(signum)

    monkeypatch.setattr(sys.modules[module], name, arrive)
    monkeypatch.setattr(sys, "argv", ["fmnist-lit", *TINY, f"hydra.run.dir={tmp_path / 'run'}"])
    child = Child(main, tmp_path / "screen")
    assert child.wait() == code
    assert child.text == f"Interrupted by {signal.Signals(signum).name}.\n"


# In a process of its own


@FORKS
@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)],
)
def test_second_signal_stops_at_once(configure, tmp_path, monkeypatch, first, second):
    cfg = configure(*RUN)

    def stuck(self: Classifier, *_: object) -> None:
        (tmp_path / "stuck").touch()
        time.sleep(PATIENCE)

    monkeypatch.setattr(Classifier, "on_before_optimizer_step", stuck)
    child = Child(lambda: run_job(cfg), tmp_path / "screen")
    until((tmp_path / "stuck").exists)
    child.send(first)
    time.sleep(0.3)
    assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)  # the first one waits for the step
    start = time.monotonic()
    child.send(second)
    assert child.wait() in (-second, 128 + second)
    assert time.monotonic() - start < 2


@FORKS
def test_command_line_is_interrupted_and_resumed_to_the_same_bits(launch_here, tmp_path):
    """SIGTERM to a command, Ctrl-C to the one that resumes it, and then to the end."""
    run_dir = tmp_path / "run"

    def assert_stops(process: Any, wait: Callable[[], int], signum: int, code: int) -> None:
        wanted = 5 + (len(rows(run_dir)) if (run_dir / "metrics.csv").exists() else 0)
        try:
            until(lambda: (run_dir / "metrics.csv").exists() and len(rows(run_dir)) > wanted)
            os.kill(process.pid, signum)
            assert wait() == code
        finally:
            process.kill()
        screen = (tmp_path / "screen").read_text()
        assert "Traceback" not in screen
        assert f"Interrupted by {signal.Signals(signum).name}" in screen
        assert "python -m fmnist_lit ckpt_path=run" in screen
        assert results(run_dir)["status"] == "interrupted"
        assert results(run_dir)["signal"] == signal.Signals(signum).name
        step = load_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"]
        assert 0 <= step - 4 * len(rows(run_dir)) <= 4

    arguments = [*ADAM, "trainer.max_epochs=1000000", "hydra.run.dir=run"]
    with open(tmp_path / "screen", "w") as screen:
        command = [sys.executable, "-m", "fmnist_lit", *arguments]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=screen, stderr=screen)
    assert_stops(process, lambda: process.wait(PATIENCE), signal.SIGTERM, 143)
    child = Child(lambda: launch_here("ckpt_path=run"), tmp_path / "screen")
    assert_stops(child, child.wait, signal.SIGINT, 130)

    epochs = f"trainer.max_epochs={len(rows(run_dir)) + 2}"
    assert Child(lambda: launch_here("ckpt_path=run", epochs), tmp_path / "screen").wait() == 0
    assert launch_here(*ADAM, epochs, "hydra.run.dir=whole") == 0
    assert outcome(run_dir) == outcome(tmp_path / "whole")
    assert points(run_dir) == points(tmp_path / "whole")
