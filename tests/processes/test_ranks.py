import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from event_contents import steps
from hydra.utils import instantiate
from interruptions import TINY, outcome, points, results, rows, until
from torch.nn.functional import cross_entropy

from fmnist_lit.command_line.job import FIGURES, run_job
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import load_images
from fmnist_lit.processes import ranks
from fmnist_lit.run.answers import read_answers
from fmnist_lit.run.checkpoint import load_checkpoint

DDP = (
    *("trainer=ddp", "trainer.steps_per_batch=3", "trainer.max_epochs=3"),
    *("optimizer=sgd_momentum", "optimizer.lr=0.01"),
)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """Let the server that forks the ranks import faulty_rank as well; one that other tests have started does not."""
    forkserver._forkserver._stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        preload = ForkServerContext.set_forkserver_preload
        patch.setattr(
            ForkServerContext, "set_forkserver_preload", lambda self, names: preload(self, [*names, "faulty_rank"])
        )
        yield
    forkserver._forkserver._stop()


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("KEEP", str(tmp_path / "kept"))
    return tmp_path / "kept"


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(run_dir / "checkpoints" / f"{name}.ckpt")["state_dict"]


def test_rank_does_not_run_the_script_that_starts_it(monkeypatch):
    from multiprocessing.spawn import get_preparation_data

    main = sys.modules["__main__"]
    with ranks.main_module_aside():
        assert not any(key.startswith("init_main") for key in get_preparation_data("rank 0"))
    assert sys.modules["__main__"] is main


ALONE = ("trainer.devices=1", "trainer.strategy=auto")


@pytest.mark.parametrize(
    ("world_size", "overrides"),
    [
        (2, ["trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.5", "regularization.l1=1e-4"]),
        (3, ["data.train_size=250", "scheduler=one_cycle", "scheduler.cycle_momentum=false"]),  # last batch: 4, 3, 3
    ],
)
def test_ranks_do_together_what_one_process_does_alone(configure, tmp_path, kept, world_size, overrides):
    run_job(configure(*DDP, *overrides, *ALONE, f"data.batch_size={8 * world_size}", run_dir="alone"))
    run_job(configure(*DDP, *overrides, f"trainer.devices={world_size}", "data.batch_size=8", run_dir="together"))
    expected = weights(tmp_path / "alone")
    by_rank = [torch.load(kept / f"weights.{rank}", weights_only=True) for rank in range(world_size)]
    for name, weight in expected.items():
        torch.testing.assert_close(by_rank[0][name], weight, rtol=1e-4, atol=1e-6)
        assert all(torch.equal(found[name], by_rank[0][name]) for found in by_rank)
    one, several = (results(tmp_path / name) for name in ("alone", "together"))
    assert several["status"] == "completed"
    assert (several["steps"], several["best_epoch"]) == (one["steps"], one["best_epoch"])
    for split in ("train", "val", "test"):
        assert several[f"{split}_accuracy"] == pytest.approx(one[f"{split}_accuracy"], abs=0.01)
        assert several[f"{split}_loss"] == pytest.approx(one[f"{split}_loss"], rel=1e-4)


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_test_images_count_once_and_figures_are_those_of_one_process(configure, tmp_path, kept, world_size):
    cfg = configure(*DDP, f"trainer.devices={world_size}", "data.test_size=null", "trainer.max_epochs=1")
    run_job(cfg)
    written = results(tmp_path / "run")
    by_rank = [int((kept / f"test.{rank}").read_text()) for rank in range(world_size)]
    assert sum(by_rank) == 10_000
    assert max(by_rank) - min(by_rank) <= 1
    model = instantiate(cfg.model)
    saved = weights(tmp_path / "run", "best")
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in saved.items()})
    images = load_images("synthetic", "data", 0).test
    with torch.no_grad():
        logits = model(images.pixels.float() / 255)
    assert written["test_accuracy"] == float((logits.argmax(1) == images.labels).double().mean())
    assert written["test_loss"] == pytest.approx(float(cross_entropy(logits, images.labels)), rel=1e-5)


def test_which_validation_images_are_right_is_told_of_all_ranks_in_their_order(configure, tmp_path, kept):
    cfg = configure(*DDP, "trainer.devices=2", "data.val_size=63", "data.eval_batch_size=20", "trainer.max_epochs=1")
    run_job(cfg)
    written = results(tmp_path / "run")
    answers = read_answers(tmp_path / "run", written["best_epoch"], written["val_accuracy"])
    model = instantiate(cfg.model)
    saved = weights(tmp_path / "run", "best")
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in saved.items()})
    data = FashionMNISTDataModule("synthetic", val_size=63, train_size=256)
    data.setup()
    with torch.no_grad():
        right = model(data.scale(data.val_images.pixels)).argmax(1) == data.val_images.labels
    assert f"{answers.correct:063b}" == "".join("01"[answer] for answer in right.tolist())
    assert 0 < sum(right) < 63


def test_run_folder_and_screen_are_of_one_run(command, tmp_path):
    dashboard = ("logger=default", "callbacks=[default,dashboard]")
    finished = command(*TINY, "trainer=ddp", "trainer.max_epochs=2", *dashboard, "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    files = [str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert sorted(name.split(".out.")[0] for name in files if name != ".lock") == [
        *(".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("events", "metrics.csv"),
        *(f"projector/{when}_training{of}.tsv" for when in ("after", "before") for of in ("", "_labels")),
        *("projector/images.png", "projector_config.pbtxt", "results.json", "train.log", "val_correct.json"),
    ]
    assert len(rows(tmp_path / "run")) == 2
    assert list(points(tmp_path / "run")["accuracy/val"])[-1][0] == 2
    for tag in ("confusion_matrix/val", "gradient_norm/all", "weights/1_Linear.weight", "mistakes/val"):
        assert steps(tmp_path / "run", tag)[-2:] == [1, 2]
    for text in (finished.stdout, (tmp_path / "run" / "train.log").read_text()):
        for line in ("SYNTHETIC stand-in for Fashion-MNIST: 128 training", "epoch 1/2", "epoch 2/2", "test accuracy"):
            assert text.count(line) == 1, text


def test_torchrun_gives_the_figures_of_the_ranks_that_are_started_here(configure, tmp_path):
    run_job(configure("trainer=ddp", run_dir="own"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "fmnist_lit"]
    options = [*SMALL, *QUIET, "trainer=ddp", "hydra.run.dir=theirs"]
    subprocess.run([*torchrun, *options], cwd=tmp_path, capture_output=True, check=True, timeout=300)
    theirs, own = results(tmp_path / "theirs"), results(tmp_path / "own")
    assert {key: theirs[key] for key in FIGURES} == {key: own[key] for key in FIGURES}
    assert rows(tmp_path / "theirs") == rows(tmp_path / "own")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("trainer.devices=3",), "trainer.devices=3: torchrun started 2 processes"),
        (("-m", "seed=0,1"), "-m under torchrun: start a sweep by itself"),
    ],
)
def test_torchrun_is_told_what_it_cannot_run(launch_here, tmp_path, monkeypatch, capsys, options, told):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "broadcast", lambda place, text: None)  # there is nobody else
    assert launch_here(*SMALL, "trainer=ddp", *options) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dropout_differs_between_ranks_and_repeats_between_runs(configure, tmp_path):
    for name in ("one", "two"):
        run_job(configure(*DDP, "model.dropout=0.3", "trainer.max_epochs=1", run_dir=name))
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    first, second = load_checkpoint(tmp_path / "one" / "checkpoints" / "last.ckpt")["generators"]["cpu"]
    assert not torch.equal(first, second)


# Ends before the end


def faulty(monkeypatch, kind: str, rank: int, step: int) -> None:
    monkeypatch.setenv("FAULT", f"{kind} {rank} {step}")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_to_one_rank_interrupts_all_and_resumes_to_the_same_bits(
    configure, tmp_path, monkeypatch, caplog, name, code
):
    options = (*DDP, "model.dropout=0.3", "data.batch_size=16")  # 8 steps an epoch, in chunks of 3
    run_job(configure(*options, run_dir="whole"))
    faulty(monkeypatch, name, 1, 10)
    with pytest.raises(SystemExit, match=str(code)):
        run_job(configure(*options))
    assert results(tmp_path / "run")["status"] == "interrupted"
    assert results(tmp_path / "run")["signal"] == name
    assert "Go on with" in caplog.text
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["global_step"] == 11
    monkeypatch.delenv("FAULT")
    run_job(configure(*options, f"ckpt_path='{last}'"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("to_ranks", [False, True])
def test_signal_to_the_command_interrupts_it(configure, tmp_path, signum, code, to_ranks):
    """Alone, as by kill, or to the ranks too, as by Ctrl-C in a terminal."""

    def send() -> None:
        try:
            until(lambda: (tmp_path / "run" / "metrics.csv").exists())
        finally:  # or the run would never end
            for pid in [os.getpid(), *(rank.pid for rank in multiprocessing.active_children() if to_ranks)]:
                os.kill(pid, signum)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(SystemExit, match=str(code)):
        run_job(configure(*DDP, "trainer.max_epochs=100000"))
    thread.join()
    assert results(tmp_path / "run")["status"] == "interrupted"
    assert results(tmp_path / "run")["signal"] == signum.name
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] >= 2  # an epoch


@pytest.mark.parametrize(
    ("fault", "status", "detail"),
    [
        ("SIGKILL 1 10", "failed", {"error": "RankDiedError: rank 1 of 2 died (SIGKILL)"}),
        ("SIGKILL 0 10", "failed", {"error": "RankDiedError: rank 0 of 2 died (SIGKILL)"}),
        ("raise 1 10", "failed", {"error": "ValueError: out of luck"}),
        ("nan 1 10", "diverged", {"diverged_step": 10}),
        ("nan 0 11", "diverged", {"diverged_step": 11}),  # the last of a chunk
    ],
)
def test_what_befalls_one_rank_ends_all(launch_here, tmp_path, monkeypatch, capfd, fault, status, detail):
    monkeypatch.setenv("FAULT", fault)
    options = ("data.train_size=256", "data.batch_size=16", *DDP[:2], "trainer.max_epochs=100000", "hydra.run.dir=run")
    assert launch_here(*TINY, *options) == 1
    written = results(tmp_path / "run")
    assert written["status"] == status
    assert detail.items() <= written.items()
    assert written["test_accuracy"] is None
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 8
    screen = "".join(capfd.readouterr())
    assert "Traceback" not in screen
    assert screen.count("out of luck") == (1 if "raise" in fault else 0)
