import csv
import os
import pickle
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from fmnist_lit.build import make_datamodule, make_trainer
from fmnist_lit.run.checkpoint import CheckpointError, DurableCheckpointIO, load_checkpoint
from fmnist_lit.train import train


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt: no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not a checkpoint") as caught:
        load_checkpoint(tmp_path / "a.ckpt")
    assert len(str(caught.value).splitlines()) == 1


def test_truncated_checkpoint_is_named(tmp_path):
    torch.save({"weights": torch.zeros(1000)}, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_is_not_run(tmp_path, save):
    save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()


def test_checkpoint_io_reads_what_it_wrote(tmp_path):
    io = DurableCheckpointIO()
    saved = {"state_dict": {"weights": torch.arange(3)}, "hyper_parameters": {}, "loops": {}}
    io.save_checkpoint(saved, tmp_path / "deep" / "a.ckpt")
    assert io.load_checkpoint(tmp_path / "deep" / "a.ckpt")["state_dict"]["weights"].tolist() == [0, 1, 2]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.ckpt"]


# What a run saves


def state(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(run_dir / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without the time taken."""
    with open(run_dir / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_best_checkpoint_is_of_the_epoch_with_the_highest_validation_accuracy(configure, tmp_path):
    # a learning rate that spoils what the first epochs learned
    results = train(configure("optimizer=adam", "trainer.max_epochs=4", "scheduler=exponential", "scheduler.gamma=20"))
    accuracies = [float(row["val_accuracy"]) for row in rows(tmp_path / "run")]
    assert results["best_epoch"] == 1 + accuracies.index(max(accuracies)) < 4
    assert results["val_accuracy"] == max(accuracies)
    assert not same_bits(state(tmp_path / "run", "best"), state(tmp_path / "run"))


def test_test_figures_are_those_of_the_best_checkpoint(configure, tmp_path):
    cfg = configure("optimizer=adam", "trainer.max_epochs=4", "scheduler=exponential", "scheduler.gamma=20")
    results = train(cfg)
    module = make_datamodule(cfg, make_trainer(cfg))
    model = instantiate(cfg.model)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state(tmp_path / "run", "best").items()})
    images, labels = next(iter(module.test_dataloader()))
    assert results["test_accuracy"] == (model(images).argmax(dim=1) == labels).double().mean().item()


def test_tutorial_selects_nothing_and_tests_the_last_weights(configure, tmp_path):
    results = train(configure("experiment=tutorial", "data.val_size=0"))
    assert results["best_epoch"] is None
    assert results["checkpoint"] == "checkpoints/last.ckpt"
    assert results["val_accuracy"] is None
    assert float(rows(tmp_path / "run")[-1]["test_accuracy"]) == results["test_accuracy"]
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_checkpoint_holds_the_configuration_as_plain_values(configure, tmp_path):
    train(configure("optimizer.lr=0.25"))
    hyper_parameters = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["hyper_parameters"]
    assert hyper_parameters["optimizer"]["lr"] == 0.25
    assert type(hyper_parameters["model"]["hidden_sizes"]) is list


def test_checkpoint_is_also_written_in_mid_epoch(configure, tmp_path, monkeypatch):
    saved = []
    save = DurableCheckpointIO.save_checkpoint

    def record(self, checkpoint, path, storage_options=None):
        saved.append((checkpoint["global_step"], checkpoint["position"] is None))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", record)
    train(configure("data.batch_size=32", "trainer.checkpoint_every_n_steps=3", "trainer.max_epochs=1"))
    assert saved == [(3, False), (6, False), (8, True)]


# Resumed equals uninterrupted; 8 steps an epoch

RUN = ("data.batch_size=32", "trainer.max_epochs=3", "model.dropout=0.4", "regularization.l1=1e-5")


@pytest.mark.parametrize("stop", [3, 8, 11, 16])
@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam", "scheduler=step", "scheduler.step_size=1"],
        ["optimizer=muon", "model.batch_norm=true"],
        ["optimizer=sgd_momentum", "scheduler=plateau", "trainer.accumulate_grad_batches=3"],
    ],
    ids=" ".join,
)
def test_resumed_run_ends_in_the_bits_of_an_uninterrupted_one(configure, tmp_path, overrides, stop):
    if "trainer.accumulate_grad_batches=3" in overrides:
        stop = stop * 3 // 8  # 3 steps an epoch
    whole = train(configure(*RUN, *overrides, run_dir="whole"))
    train(configure(*RUN, *overrides, f"trainer.max_steps={stop}", run_dir="parts"))
    assert not same_bits(state(tmp_path / "parts"), state(tmp_path / "whole"))
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    resumed = train(configure(*RUN, *overrides, f"ckpt_path='{last}'", run_dir="parts"))
    assert same_bits(state(tmp_path / "parts"), state(tmp_path / "whole"))
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    times = {"seconds": 0, "fit_cpu_seconds": 0}
    assert resumed | times == whole | times


@pytest.mark.parametrize("steps_per_batch", [1, 3, 50])
def test_resuming_does_not_depend_on_the_chunk(configure, tmp_path, steps_per_batch):
    chunk = f"trainer.steps_per_batch={steps_per_batch}"
    train(configure(*RUN, "optimizer=adam", run_dir="whole"))
    train(configure(*RUN, "optimizer=adam", "trainer.max_steps=13", chunk, run_dir="parts"))
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    train(configure(*RUN, "optimizer=adam", f"ckpt_path='{last}'", run_dir="parts"))
    assert same_bits(state(tmp_path / "parts"), state(tmp_path / "whole"))


def test_resuming_does_not_forget_the_best_epoch(configure, tmp_path):
    spoiling = ("optimizer=adam", "scheduler=exponential", "scheduler.gamma=20", "trainer.max_epochs=4")
    whole = train(configure(*spoiling, run_dir="whole"))
    train(configure(*spoiling, "trainer.max_epochs=3", run_dir="parts"))
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    resumed = train(configure(*spoiling, f"ckpt_path='{last}'", run_dir="parts"))
    for key in ("best_epoch", "val_accuracy", "test_accuracy", "test_loss"):
        assert resumed[key] == whole[key]
