import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from interruptions import TINY, tree

import fmnist_lit.command_line.launch
from fmnist_lit.command_line.folders import claim, make_folder, require_room
from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.processes.lock import LOCK, is_held, writing


@pytest.fixture
def written(monkeypatch) -> list[bool]:
    """Jobs that only write their status; whether each of them was locked."""
    seen = []

    def run(cfg: Any) -> float:
        run_dir = Path(cfg.run_dir)
        seen.append(is_held(run_dir, otherwise=False))
        (run_dir / "results.json").write_text(json.dumps({"status": "interrupted"}), encoding="utf-8")
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / "last.ckpt").touch()
        (run_dir / LOCK).touch()  # as a job that runs does
        return 0.5

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    return seen


@pytest.fixture
def elsewhere() -> Callable[[Path], subprocess.Popen[str]]:
    """Let another process lock a folder; it holds it until it is killed."""
    program = (
        "import sys, filelock, pathlib; pathlib.Path(sys.argv[1]).mkdir(exist_ok=True); "
        "lock = filelock.FileLock(sys.argv[1] + '/.lock'); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    started = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_run_holds_its_folder_until_it_has_ended(launch_here, written, tmp_path):
    assert launch_here("hydra.run.dir=run") == 1
    assert launch_here("ckpt_path=run") == 1
    assert written == [True, True]
    assert not is_held(tmp_path / "run", otherwise=True)


@pytest.mark.parametrize("arguments", [("hydra.run.dir=run",), ("ckpt_path=run",)])
def test_second_writer_is_refused_before_anything_is_written(
    launch_here, written, tmp_path, capsys, elsewhere, arguments
):
    if "ckpt_path=run" in arguments:
        launch_here("hydra.run.dir=run")
    other = elsewhere(tmp_path / "run")
    before = tree(tmp_path)
    capsys.readouterr()
    assert launch_here(*arguments) == 2
    error = capsys.readouterr().err
    key = arguments[0].split("=")[0]
    assert error.startswith(f"error: {key}=")
    assert error.endswith("run: another run is writing to it; wait for it or stop it\n")
    assert tree(tmp_path) == before
    other.kill()  # the kernel lets go
    other.wait()
    assert launch_here(*arguments) == 1


def test_of_many_that_start_at_once_one_writes(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from contextlib import ExitStack\n"
        "from fmnist_lit.command_line.folders import make_folder\n"
        "locks = ExitStack(); print('ready', flush=True); sys.stdin.readline()\n"
        "make_folder('hydra.run.dir', lambda: Path('run'), True, locks)\n"
        "time.sleep(3)"
    )
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, text=True, **pipes) for _ in range(4)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1, 1], errors


def test_job_of_a_sweep_that_runs_cannot_be_resumed_by_hand(launch_here, written, tmp_path, capsys, elsewhere):
    launch_here("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep")
    other = elsewhere(tmp_path / "sweep")
    before = tree(tmp_path)
    assert launch_here("ckpt_path=sweep/seed=0") == 2
    assert f"the sweep in {tmp_path / 'sweep'} is running" in capsys.readouterr().err
    assert tree(tmp_path) == before
    other.kill()
    other.wait()
    assert launch_here("ckpt_path=sweep/seed=0") == 1


def test_sweep_is_refused_while_one_of_its_jobs_runs_by_hand(launch_here, written, tmp_path, capsys, elsewhere):
    sweep = ("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep")
    launch_here(*sweep)
    elsewhere(tmp_path / "sweep" / "seed=1")
    before = tree(tmp_path)
    capsys.readouterr()
    assert launch_here(*sweep) == 2
    assert "a job that one left, is running in it" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_sweep_that_runs_keeps_its_plan(launch_here, written, tmp_path, capsys, elsewhere):
    """The second one has other jobs, which would have been written into sweep.json."""
    launch_here("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep")
    elsewhere(tmp_path / "sweep")
    before = tree(tmp_path)
    assert launch_here("-m", *TINY, "seed=7,8", "hydra.sweep.dir=sweep") == 2
    assert "hydra.sweep.dir=sweep: a sweep" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_job_whose_folder_is_taken_writes_nothing(configure, tmp_path, elsewhere, caplog):
    """A job that another program starts, without our command line."""
    elsewhere(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        run_job(configure())
    assert end.value.code == 2
    assert "another run is writing to it" in caplog.text
    assert [file.name for file in (tmp_path / "run").iterdir()] == [LOCK]


def test_lock_is_taken_again_by_its_holder_alone(tmp_path):
    with writing(tmp_path):
        with writing(tmp_path):
            pass
        assert is_held(tmp_path, otherwise=False)
        with pytest.raises(Timeout):
            FileLock(tmp_path / LOCK, timeout=0).acquire()
    assert not is_held(tmp_path, otherwise=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / LOCK).touch()
    with writing(tmp_path), writing(tmp_path):
        assert is_held(tmp_path, otherwise=True)
        assert not is_held(tmp_path, otherwise=False)
    locks = ExitStack()
    claim("hydra.run.dir", tmp_path, locks)
    locks.close()


# Room


@pytest.mark.parametrize("name", ["checkpoints", ".hydra"])
def test_folder_in_which_a_folder_of_a_run_is_a_file_is_refused(launch_here, written, tmp_path, capsys, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine", encoding="utf-8")
    before = tree(tmp_path / "run")
    assert launch_here("hydra.run.dir=run") == 2
    error = capsys.readouterr().err
    assert error == f"error: hydra.run.dir=run: {name} in it cannot be written to: {os.strerror(errno.ENOTDIR)}\n"
    assert tree(tmp_path / "run") == before
    assert written == []


@pytest.mark.parametrize("name", ["results.json", "metrics.csv", "train.log"])
def test_folder_in_which_a_file_of_a_run_is_a_folder_is_refused(launch_here, written, tmp_path, capsys, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    assert launch_here("hydra.run.dir=run") == 2
    assert capsys.readouterr().err == f"error: hydra.run.dir=run: {name} in it is a folder, must be a file\n"
    assert [file.name for file in (tmp_path / "run").iterdir()] == [name]


def test_checkpoints_that_cannot_be_written_are_noticed_before_a_resume(
    launch_here, written, tmp_path, capsys, monkeypatch
):
    launch_here("hydra.run.dir=run")
    before = tree(tmp_path)
    original = tempfile.TemporaryFile

    def refuse(dir: Path) -> Any:
        if dir.name == "checkpoints":  # to root, who runs many a test, nothing is read-only
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert launch_here("ckpt_path=run") == 2
    assert "checkpoints in it cannot be written to: Permission denied" in capsys.readouterr().err
    assert {name: data for name, (_, data) in tree(tmp_path).items()} == {
        name: data for name, (_, data) in before.items()
    }


def test_job_whose_checkpoints_cannot_be_written_does_not_train(configure, tmp_path, caplog):
    """As of a sweep that goes on; it was noticed after the first epoch."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("mine", encoding="utf-8")
    run_job(configure())
    written = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert written["status"] == "failed"
    assert "checkpoints in it cannot be written to" in written["error"]
    assert "epoch 1" not in caplog.text


def test_room_is_enough_in_an_ordinary_folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    require_room("hydra.run.dir", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]


def test_folder_is_let_go_where_it_is_refused_later(tmp_path):
    (tmp_path / "results.json").touch()
    with ExitStack() as locks, pytest.raises(ConfigError, match="holds a run already"):
        make_folder("hydra.run.dir", lambda: tmp_path, named=True, locks=locks)
    assert not is_held(tmp_path, otherwise=True)


@pytest.mark.parametrize("folder", [".", "checkpoints", ".hydra"])
def test_what_a_killed_process_left_is_cleared_away(configure, tmp_path, folder):
    orphan = tmp_path / "run" / folder / ".config.yaml.4711.tmp"
    orphan.parent.mkdir(parents=True)
    orphan.touch()
    cfg = configure()
    cfg.optimizer.lr = -1  # refused after that
    run_job(cfg)
    assert not orphan.exists()


def test_what_a_killed_sweep_left_is_cleared_away(launch_here, written, tmp_path):
    (tmp_path / "sweep" / "plots").mkdir(parents=True)
    for orphan in (".summary.csv.4711.tmp", "plots/.lr.png.4711.tmp"):
        (tmp_path / "sweep" / orphan).touch()
    launch_here("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep")
    assert not list((tmp_path / "sweep").rglob("*.tmp"))
