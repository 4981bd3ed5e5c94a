import contextlib
import functools
import http.server
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import (
    ADAM,
    FORKS,
    HARDEST,
    RUN,
    TINY,
    Child,
    composed,
    content,
    fingerprint,
    is_right,
    outcome,
    points,
    results,
    rows,
    signal_at,
    tree,
    until,
)
from torchvision.datasets import FashionMNIST

from fmnist_lit.classifier import Classifier
from fmnist_lit.command_line.job import run_job
from fmnist_lit.data import fashion_mnist
from fmnist_lit.data.images import load_images
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.run.files import link_durably

pytestmark = FORKS
resource: Any = pytest.importorskip("resource", reason="Windows has none")
SPOILING = ("optimizer=adam", "scheduler=exponential", "scheduler.gamma=20", "data.batch_size=16")  # best is not last


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """What takes seconds is done once for all children: drawing the images, and what torch imports when first used."""
    data = load_images("synthetic", os.environ.get("FMNIST_DATA_DIR", "data"), 0)
    for images in (data.train, data.test):
        images[:]
    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).zero_grad()


def assert_whole(run_dir: Path) -> None:
    """Every file of a run folder can be read to its end, or is not there yet."""
    for file in run_dir.rglob("*"):
        if file.suffix == ".tmp" or file.is_dir():
            continue
        if file.name == "results.json":
            assert json.loads(file.read_text())["status"]
        elif file.name == "metrics.csv":
            assert [int(row["epoch"]) for row in rows(run_dir)] == list(range(1, 1 + len(rows(run_dir))))
            assert all(None not in row.values() for row in rows(run_dir))
        elif file.suffix == ".ckpt":
            assert torch.load(file, weights_only=True)["state_dict"]
            assert fingerprint(run_dir, file.stem)


def orphans(folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob(".*.tmp")]


# kill -9


@pytest.fixture
def attempt(configure, tmp_path) -> Callable[..., Child]:
    """Start or go on with a run in a child, as a user would after a kill."""
    numbers = itertools.count()

    def go(name: str, *overrides: str, prepare: Callable[[], Any] = lambda: None) -> Child:
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        cfg = composed(configure, tmp_path / name, *RUN, *overrides, ckpt_path=last if last.exists() else None)

        def work() -> None:
            prepare()
            run_job(cfg)

        return Child(work, tmp_path / f"screen{next(numbers)}")

    return go


KILLED = ("trainer.max_epochs=9", "trainer.checkpoint_every_n_steps=3", "logger=default")
KILLS = 5  # at least, in each of four runs


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam", "scheduler=one_cycle"],
        ["optimizer=sgd_momentum", "scheduler=plateau", "trainer.accumulate_grad_batches=2"],
        ["optimizer=muon", "model.batch_norm=true", "trainer.steps_per_batch=1"],
        ["optimizer=adamw", "scheduler=exponential", "scheduler.gamma=2", "data.val_size=32"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_run_survives_kills_at_random_moments(attempt, tmp_path, overrides):
    started = time.monotonic()
    child = attempt("whole", *KILLED, *overrides)
    assert child.wait() == 0, child.text
    whole, seconds = outcome(tmp_path / "whole"), time.monotonic() - started
    moments = random.Random(repr(overrides))
    kills, steps = 0, []
    for number in itertools.count():  # another run where one comes to its end too early
        parts = tmp_path / f"parts{number}"
        while True:
            child = attempt(parts.name, *KILLED, *overrides)
            if kills < KILLS or not steps:
                time.sleep(moments.uniform(0, seconds / 2))
                child.send(signal.SIGKILL)
            if child.wait() == 0:
                break
            assert child.returncode == -signal.SIGKILL, child.text
            kills += 1
            assert_whole(parts)
            if (parts / "checkpoints" / "last.ckpt").exists():
                steps.append(load_checkpoint(parts / "checkpoints" / "last.ckpt")["global_step"])
        assert results(parts)["status"] == "completed", child.text
        assert outcome(parts) == whole
        assert points(parts) == points(tmp_path / "whole")
        assert orphans(parts) == []
        if kills >= KILLS and steps:  # steps: at least one came after the first checkpoint
            break


def kill_before(point: int) -> None:
    """Die at the ``point``-th moment at which the disk is told something that cannot be taken back."""
    calls = itertools.count()
    for name in ("fsync", "replace", "link"):

        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if next(calls) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, functools.partial(call, getattr(os, name)))


def test_run_survives_a_kill_at_every_write(configure, attempt, tmp_path):
    """Also between a checkpoint and the link that says it is the best."""
    overrides = (*SPOILING, "trainer.max_epochs=2", "trainer.checkpoint_every_n_steps=11")
    assert attempt("whole", *overrides).wait() == 0
    whole = outcome(tmp_path / "whole")
    failures = {}
    for point in itertools.count():
        name = f"parts{point}"
        child = attempt(name, *overrides, prepare=functools.partial(kill_before, point))
        if child.wait() == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.text
        assert_whole(tmp_path / name)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        run_job(composed(configure, tmp_path / name, *RUN, *overrides, ckpt_path=last if last.exists() else None))
        if results(tmp_path / name)["status"] != "completed" or outcome(tmp_path / name) != whole:
            failures[point] = results(tmp_path / name)
        assert orphans(tmp_path / name) == []
    assert failures == {}
    assert point > 20


def test_crash_leaves_no_more_to_redo_than_the_steps_between_checkpoints(attempt, tmp_path):
    with signal_at(14, signal.SIGKILL):
        child = attempt("run", "trainer.checkpoint_every_n_steps=3")
    assert child.wait() == -signal.SIGKILL
    # 8 steps an epoch, and the count begins again with each
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 11


# Disks that are full or cannot be written to


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, free: int) -> None:
    size = shutil.disk_usage(folder).free - free
    with open(folder / "filler", "wb") as filler:
        filler.write(bytes(max(size, 0)))


def at_second_epoch(patch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    original = Classifier.on_train_epoch_start

    def start(self: Classifier) -> None:
        original(self)
        if self.current_epoch == 1:
            do()

    patch.setattr(Classifier, "on_train_epoch_start", start)


FAILING = ("optimizer=adam", "trainer.max_epochs=3")


def assert_first_epoch_is_kept(run_dir: Path, one_epoch: Path) -> None:
    checkpoint, expected = (load_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (run_dir, one_epoch))
    assert checkpoint["global_step"] == 8
    for name, weight in expected["state_dict"].items():
        assert torch.equal(checkpoint["state_dict"][name], weight)
    assert orphans(run_dir) == []


@pytest.mark.parametrize(("free", "logger"), [(0, "csv"), (0, "default"), (4 * 4096, "default"), (40 * 4096, "csv")])
def test_full_disk_fails_the_run_and_spares_the_last_checkpoint(
    configure, small_disk, tmp_path, monkeypatch, caplog, free, logger
):
    """Nothing fits any more; small files still fit; half a checkpoint of 300 kB fits."""
    options = (*RUN, *FAILING, f"logger={logger}")
    run_job(configure(*options, run_dir="whole"))
    run_job(configure(*options, "trainer.max_epochs=1", run_dir="one"))
    with monkeypatch.context() as patch:
        at_second_epoch(patch, lambda: fill(small_disk, free))
        run_job(configure(*options, run_dir="disk/run"))
    run_dir = small_disk / "run"
    assert "No space left" in caplog.text
    assert "Traceback" not in caplog.messages[-1]
    assert_whole(run_dir)
    assert_first_epoch_is_kept(run_dir, tmp_path / "one")
    if results(run_dir)["status"] == "running":
        assert "results.json cannot be written" in caplog.text
        assert free == 0
    else:
        assert results(run_dir)["status"] == "failed"
        assert "No space left" in results(run_dir)["error"]
    (small_disk / "filler").unlink()
    run_job(configure(*options, f"ckpt_path='{run_dir}/checkpoints/last.ckpt'", run_dir="disk/run"))
    assert outcome(run_dir) == outcome(tmp_path / "whole")
    assert points(run_dir) == points(tmp_path / "whole") or logger == "csv"


def test_file_size_limit_fails_the_command_and_spares_the_last_checkpoint(launch_here, tmp_path, monkeypatch):
    assert launch_here(*ADAM, "trainer.max_epochs=1", "hydra.run.dir=one") == 0

    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (40_000, 40_000))
        at_second_epoch(monkeypatch, limit)
        return launch_here(*ADAM, "logger=csv", "hydra.run.dir=run")

    child = Child(limited, tmp_path / "screen")
    assert child.wait() == 1, child.text
    assert "File too large" in child.text
    assert "Traceback" not in child.text
    assert results(tmp_path / "run")["status"] == "failed"
    assert "File too large" in results(tmp_path / "run")["error"]
    last, one = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("run", "one"))
    assert last["global_step"] == 4
    assert all(torch.equal(last["state_dict"][name], weight) for name, weight in one["state_dict"].items())
    assert orphans(tmp_path) == []


def test_resuming_on_a_full_disk_leaves_the_run_as_it_was(launch_here, stopped, small_disk, tmp_path):
    """Hydra empties a file before it finds that there is no room for it."""
    shutil.copytree(stopped, small_disk / "run")
    files = [*(small_disk / "run" / ".hydra").iterdir(), *(small_disk / "run" / "checkpoints").iterdir()]
    kept = {file: file.read_bytes() for file in files}
    fill(small_disk, 0)
    child = Child(lambda: launch_here(f"ckpt_path={small_disk / 'run'}"), tmp_path / "screen")
    assert child.wait() == 2, child.text
    assert "No space left" in child.text
    assert "Traceback" not in child.text
    assert {file: file.read_bytes() for file in kept} == kept
    (small_disk / "filler").unlink()
    assert launch_here(f"ckpt_path={small_disk / 'run'}") == 0
    assert results(small_disk / "run")["status"] == "completed"


def test_folder_that_turns_read_only_fails_the_run(configure, small_disk, tmp_path, monkeypatch, caplog):
    def turn(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    # a disk with a file that is open for writing, as a lock is, cannot be remounted
    monkeypatch.setattr("fmnist_lit.processes.workers.writing", lambda folder: contextlib.nullcontext())
    at_second_epoch(monkeypatch, functools.partial(turn, "ro"))
    run_job(configure(*RUN, *FAILING, run_dir="disk/run"))
    turn("rw")
    assert "Read-only file system" in caplog.text
    assert load_checkpoint(small_disk / "run" / "checkpoints" / "last.ckpt")["global_step"] == 8


@pytest.mark.parametrize("taken", ["checkpoints", "checkpoints/last.ckpt/folder"])
def test_checkpoint_that_cannot_be_written_fails_the_run(configure, tmp_path, taken):
    """Lightning's own writer returns as if nothing were wrong."""
    cfg = configure(*RUN)
    (tmp_path / "run" / taken).parent.mkdir(parents=True)
    (tmp_path / "run" / taken).write_text("in the way")
    run_job(cfg)
    written = results(tmp_path / "run")
    assert written["status"] == "failed"
    assert "checkpoints" in written["error"]
    assert written["test_accuracy"] is None


def test_everything_is_synced_before_it_gets_its_name_and_its_folder_after(configure, monkeypatch):
    """In a whole run, for each file that gets its name by a rename."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def record_replace(source: Any, target: Any) -> None:
        calls.append(("replace", str(target), os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    run_job(configure(*RUN))
    named = [(index, target, inode) for index, (kind, target, inode) in enumerate(calls) if kind == "replace"]
    assert {Path(target).name for _, target, _ in named} == {
        *("results.json", "metrics.csv", "val_correct.json"),
        *("last.ckpt", "best.ckpt"),
    }
    for index, target, inode in named:
        assert any(kind == "fsync" and synced == inode for kind, _, synced in calls[:index]), target
        assert calls[index + 1][:2] == ("fsync", str(Path(target).parent))


def test_copy_where_there_are_no_hard_links_is_as_durable(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    (tmp_path / "last").write_bytes(b"content")
    link_durably(tmp_path / "last", tmp_path / "best")
    assert (tmp_path / "best").read_bytes() == b"content"
    assert [Path(path).suffix for path in synced] == [".tmp", ""]  # the file, then its folder


def test_copy_that_does_not_fit_leaves_nothing_beside(small_disk, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    (small_disk / "last").write_bytes(bytes(100_000))
    (small_disk / "best").write_bytes(b"old")
    fill(small_disk, 4096)
    with pytest.raises(OSError, match="No space left"):
        link_durably(small_disk / "last", small_disk / "best")
    assert (small_disk / "best").read_bytes() == b"old"
    assert orphans(small_disk) == []


# Trust


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "stopped"


@pytest.fixture
def stopped(kept, launch_here, tmp_path, capsys) -> Path:
    """The folder of a run that was stopped in the second of its four steps."""
    if not kept.exists():
        with signal_at(2):
            assert launch_here(*TINY, "trainer.max_epochs=1", "hydra.run.dir=stopped") == 143
        (tmp_path / "stopped").rename(kept)
    shutil.copytree(kept, tmp_path / "stopped")
    capsys.readouterr()
    return tmp_path / "stopped"


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("stopped", "state_dict"),
        ("stopped", "hyper_parameters"),
        ("stopped/checkpoints/last.ckpt", "surprise"),
        ("elsewhere.ckpt", "state_dict"),
    ],
)
def test_resuming_does_not_run_what_is_in_a_checkpoint(launch_here, stopped, tmp_path, monkeypatch, capsys, where, key):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    last = stopped / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(last)
    torch.save({**checkpoint, key: Bomb(tmp_path / "ran")}, last)
    shutil.copy(last, tmp_path / "elsewhere.ckpt")
    arguments = [*TINY, "trainer.max_epochs=1"] if where == "elsewhere.ckpt" else []
    assert launch_here(*arguments, f"ckpt_path={where}") in (1, 2)
    assert "last.ckpt" in (screen := "".join(capsys.readouterr())) or "elsewhere.ckpt" in screen
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"hyper_parameters": 5}, {}, {"hyper_parameters": {}}])
def test_file_that_is_no_checkpoint_of_ours_is_refused_by_name(launch_here, tmp_path, capsys, content):
    torch.save(content, tmp_path / "foreign.ckpt")
    assert launch_here(*TINY, "ckpt_path=foreign.ckpt") in (1, 2)
    screen = "".join(capsys.readouterr())
    assert "foreign.ckpt" in screen
    assert "Error: '" not in screen  # no KeyError or AttributeError
    assert "has no attribute" not in screen


def test_best_checkpoint_that_runs_code_is_refused_at_the_end(launch_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    spoiling = (*TINY, "optimizer=adam", "scheduler=exponential", "scheduler.gamma=1000")
    with signal_at(9):  # in the third epoch, which is worse
        assert launch_here(*spoiling, "hydra.run.dir=run") == 143
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert launch_here("ckpt_path=run") == 1
    assert "best.ckpt" in "".join(capsys.readouterr())
    assert not (tmp_path / "ran").exists()


def test_checkpoint_loads_with_torch_alone(configure, tmp_path):
    run_job(configure(*RUN, *HARDEST, "trainer.max_epochs=1"))
    program = f"""
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "lightning_fabric", "omegaconf", "hydra", "fmnist_lit"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import torch
for name in ("last", "best"):
    checkpoint = torch.load({str(tmp_path / "run" / "checkpoints")!r} + "/" + name + ".ckpt", weights_only=True)
    print(len(checkpoint["state_dict"]), checkpoint["hyper_parameters"]["optimizer"]["lr"])
"""
    finished = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["9", "0.001"] * 2


HOSTILE = {
    "python tag in overrides": (".hydra/overrides.yaml", "!!python/object/apply:os.mkdir [ran]"),
    "python tag within overrides": (".hydra/overrides.yaml", "- !!python/object/apply:os.mkdir [ran]"),
    "python tag in config": (".hydra/config.yaml", "x: !!python/object/apply:os.mkdir [ran]"),
    "target": (".hydra/overrides.yaml", "- +callbacks.x._target_=builtins.print"),
    "nested target": (".hydra/overrides.yaml", "- +callbacks.checkpoint.x={_target_:os.mkdir,_args_:[ran]}"),
    "optimizer": (".hydra/overrides.yaml", "- optimizer._target_=os.mkdir"),
    "launcher": (".hydra/overrides.yaml", "- hydra.launcher._target_=os.mkdir"),
    "logging": (".hydra/overrides.yaml", "- hydra.job_logging.handlers.console.class=os.mkdir"),
    "package": (".hydra/overrides.yaml", "- hydra.searchpath=[pkg://evil]"),
    "package in disguise": (".hydra/overrides.yaml", "- hydra.searchpath=['p${oc.env:KG,kg}://evil']"),
    "several values": (".hydra/overrides.yaml", "- seed=0,1"),
    "sweep": (".hydra/overrides.yaml", "- hydra.mode=MULTIRUN"),
    "flag": (".hydra/overrides.yaml", "- --config-dir=elsewhere"),
    "no key": (".hydra/overrides.yaml", "- '=1'"),
    "mapping": (".hydra/overrides.yaml", "seed: 1"),
    "numbers": (".hydra/overrides.yaml", "[1, 2]"),
    "nested lists": (".hydra/overrides.yaml", "[[seed=1]]"),
    "text": (".hydra/overrides.yaml", "seed=1"),
    "no yaml": (".hydra/overrides.yaml", "a: b: ["),
    "other configuration": (".hydra/config.yaml", "[1, 2]"),
    "empty configuration": (".hydra/config.yaml", ""),
    "no configuration": (".hydra/config.yaml", "a: b: ["),
    "configuration without a scheduler": (".hydra/config.yaml", "seed: 0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_run_folder_of_a_stranger_is_refused_and_nothing_in_it_is_run(
    launch_here, stopped, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.syspath_prepend(tmp_path)  # as python -m does
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("import os; os.mkdir('ran')")
    file, content = HOSTILE[name]
    (stopped / file).write_text(content)
    before = tree(tmp_path)
    assert launch_here("ckpt_path=stopped") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["{", "[]", "5", '{"status": "completed"}', "\ufffd\x00"])
def test_damaged_results_do_not_keep_a_run_from_being_resumed(launch_here, stopped, content):
    (stopped / "results.json").write_text(content)
    assert launch_here("ckpt_path=stopped") == 0
    assert results(stopped)["status"] == "completed"


@pytest.mark.parametrize("harm", [lambda content: content[:-100], lambda content: b"", lambda content: b"x" + content])
def test_damaged_checkpoint_is_refused_and_what_is_known_of_the_run_stays(launch_here, stopped, capsys, harm):
    last = stopped / "checkpoints" / "last.ckpt"
    last.write_bytes(harm(last.read_bytes()))
    before = content(stopped)
    assert launch_here("ckpt_path=stopped") == 2
    screen = "".join(capsys.readouterr())
    assert "last.ckpt" in screen
    assert "Traceback" not in screen
    assert content(stopped) == before


def test_run_folder_without_its_command_line_is_refused(launch_here, stopped, capsys):
    (stopped / ".hydra" / "overrides.yaml").unlink()
    assert launch_here("ckpt_path=stopped") == 2
    assert "overrides.yaml" in capsys.readouterr().err


def test_diverged_command_exits_with_1_and_its_best_checkpoint_is_of_before(launch_here, tmp_path):
    exploding = (*TINY, "loss=mse", "optimizer.lr=0.01", "scheduler=exponential", "scheduler.gamma=1e5")
    assert launch_here(*exploding, "trainer.max_epochs=6", "hydra.run.dir=run") == 1
    written = results(tmp_path / "run")
    assert written["status"] == "diverged"
    assert written["diverged_step"] > 4
    assert written["test_accuracy"] is None
    for name in ("best", "last"):
        checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.ckpt")
        assert checkpoint["global_step"] < written["diverged_step"]
        assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values()) or name == "last"


# Data


class Mirror:
    """An HTTP server that counts what is asked for and may stall in the middle of a file."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: Counter[str] = Counter()
        self.stall_at: int | None = None  # the number of a request that does not get the last bytes
        self.stalled = threading.Event()
        self.given_up = threading.Event()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                mirror.asked[name] += 1
                content = files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content[:-10])
                    self.wfile.flush()
                    if sum(mirror.asked.values()) == mirror.stall_at:
                        mirror.stalled.set()
                        mirror.given_up.wait(20)
                    self.wfile.write(content[-10:])

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def mirror(tiny_idx, monkeypatch) -> Iterator[Mirror]:
    mirror = Mirror(tiny_idx.archives)
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(FashionMNIST, "mirrors", [mirror.url])
    yield mirror
    mirror.given_up.set()
    mirror.server.shutdown()
    mirror.server.server_close()
    thread.join()


def test_processes_that_start_together_download_once(tiny_idx, mirror, tmp_path):
    def work() -> int:
        return 0 if is_right(fashion_mnist.load_fashion_mnist(tmp_path / "data"), tiny_idx.splits) else 3

    children = [Child(work, tmp_path / f"screen{number}") for number in range(6)]
    assert [child.wait() for child in children] == [0] * 6, [child.text for child in children]
    assert set(mirror.asked) == set(tiny_idx.archives)
    # torchvision asks for a file twice, once to follow redirections; one file is also what a mirror is tried with
    assert sorted(mirror.asked.values()) in ([2, 2, 2, 2], [2, 2, 2, 3])


def test_killed_download_leaves_nothing_that_is_trusted(tiny_idx, mirror, tmp_path, monkeypatch):
    root = tmp_path / "data"
    mirror.stall_at = 3
    child = Child(lambda: fashion_mnist.load_fashion_mnist(root), tmp_path / "screen")
    assert mirror.stalled.wait(20)
    until(lambda: any(file.stat().st_size for file in root.rglob("*.gz")))
    child.kill()
    mirror.given_up.set()
    with monkeypatch.context() as patch:
        patch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
        with pytest.raises(fashion_mnist.DataMissingError):
            fashion_mnist.load_fashion_mnist(root)
    assert is_right(fashion_mnist.load_fashion_mnist(root), tiny_idx.splits)
    assert not list(root.glob(".fashion_mnist-*"))


def test_kill_at_every_rename_of_the_data_leaves_nothing_wrong(tiny_idx, mirror, tmp_path, monkeypatch):
    for point in itertools.count():
        root = tmp_path / f"data{point}"

        def work(point: int = point, root: Path = root) -> None:
            kill_before(point)
            fashion_mnist.load_fashion_mnist(root)

        child = Child(work, tmp_path / f"screen{point}")
        if child.wait() == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.text
        with monkeypatch.context() as patch, contextlib.suppress(fashion_mnist.DataMissingError):
            patch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
            assert is_right(fashion_mnist.load_fashion_mnist(root), tiny_idx.splits)
        assert is_right(fashion_mnist.load_fashion_mnist(root), tiny_idx.splits)
    assert point >= 4


def test_command_without_data_and_network_says_which_files_go_where(launch_here, tiny_idx, tmp_path, capsys):
    root = tmp_path / "data"
    assert launch_here(*TINY, "data=fashion_mnist", f"data.data_dir={root}", "hydra.run.dir=run") == 1
    screen = "".join(capsys.readouterr())
    assert all(name in screen for name in tiny_idx.archives)
    assert str(root / "FashionMNIST" / "raw") in screen
    assert "Traceback" not in screen
