"""What every run shows, and that going on with one leaves nothing there twice."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from event_contents import contents, read_all, steps, text
from interruptions import RUN, signal_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fmnist_lit.command_line.job import run_job
from fmnist_lit.dashboard.graph import draw_graph
from fmnist_lit.loggers import TensorBoardLogger
from fmnist_lit.loggers.event_files import event_files
from fmnist_lit.model import CNN

LOGGED = (*RUN, "logger=default", "data.batch_size=2")  # 128 steps an epoch


@pytest.fixture
def run(configure, tmp_path):
    def train(folder: str, *overrides: str) -> Path:
        run_job(configure(*LOGGED, *overrides, run_dir=folder))
        return tmp_path / folder

    return train


def without_text(run_dir: Path) -> dict[str, list]:
    """A run that goes on has another command."""
    return {tag: points for tag, points in contents(run_dir).items() if not tag.endswith("/text_summary")}


def test_running_loss_is_by_optimiser_step_and_the_same_of_both_classes(run):
    fast, textbook = run("fast"), run("textbook", "trainer.steps_per_batch=1")
    assert steps(fast, "loss/running") == [epoch * 128 + step for epoch in range(3) for step in (50, 100, 128)]
    assert contents(fast)["loss/running"] == contents(textbook)["loss/running"]
    points = dict(contents(fast)["loss/running"])
    mean = (100 * points[50] + 100 * points[100] + 56 * points[128]) / 256
    assert mean == pytest.approx(contents(fast)["loss/train"][0][1], rel=1e-6)
    assert steps(fast, "accuracy/val") == [1, 2, 3]


@pytest.mark.parametrize("at", [70, 256])
def test_run_that_goes_on_leaves_in_its_events_what_an_uninterrupted_one_leaves(run, tmp_path, at):
    """Also where an earlier attempt logged more than its checkpoint knows, as one that was killed."""
    dashboard = ("callbacks=[default,dashboard]", "data.augmentation.shift=1")
    whole = run("whole", *dashboard)
    last, earlier = (tmp_path / "parts" / "checkpoints" / f"{name}.ckpt" for name in ("last", "earlier"))
    with signal_at(at), pytest.raises(SystemExit):
        run("parts", *dashboard)
    shutil.copy(last, earlier)
    for checkpoint in (last, earlier):
        parts = run("parts", *dashboard, f"ckpt_path='{checkpoint}'")
        assert without_text(parts) == without_text(whole)
        assert len(event_files(parts)) == 2
        assert text(parts, "run") == text(whole, "run")
        assert yaml.safe_load(text(parts, "configuration").strip("`").removeprefix("yaml"))["ckpt_path"]


def test_what_a_run_is_can_be_read(launch_here, tmp_path):
    words = ["data=synthetic", "data.train_size=64", "data.val_size=0", "data.test_size=20", "trainer.max_epochs=1"]
    words += ["trainer.accelerator=cpu", "num_threads=1", "note='two words'", "hydra.run.dir=run"]
    assert launch_here(*words) == 0
    shown = text(tmp_path / "run", "run")
    assert shown.startswith("SYNTHETIC stand-in for Fashion-MNIST\n\n```\npython -m fmnist_lit data=synthetic ")
    configuration = yaml.safe_load(text(tmp_path / "run", "configuration").strip("`").removeprefix("yaml"))
    assert configuration["note"] == "two words"
    assert configuration["dataset"] == "synthetic"
    events = read_all(tmp_path / "run")
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    assert {"relu", "linear"} <= {node.op for node in events.Graph().node}
    assert sum(file.stat().st_size for file in event_files(tmp_path / "run")) < 50_000


class Residual(nn.Module):
    """Operations that are no modules, one module twice, dropout, a branch that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(784, 784), nn.Dropout(0.5))
        self.norm = nn.BatchNorm1d(784)
        self.last = nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        x = x + torch.relu(self.inner(self.inner(x)))
        if x.sum() > 1e9:
            x = x * 2
        return self.last(self.norm(x))


@pytest.mark.parametrize("make", [Residual, CNN])
def test_graph_has_each_operation_and_leaves_the_model_as_it_was(make):
    model = make()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = draw_graph(model, torch.zeros(1, 1, 28, 28))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    nodes = {node.name: node for node in graph.node}
    assert len(nodes) == len(graph.node)
    assert all(source in nodes for node in graph.node for source in node.input)
    reached, waiting = set(), ["output"]
    while waiting:
        reached.add(name := waiting.pop())
        waiting += [source for source in nodes[name].input if source not in reached]
    assert "input" in reached
    assert {node.name for node in graph.node if node.op == "Parameter" and "batches" not in node.name} <= reached
    if make is Residual:
        assert {"Residual/relu", "Residual/Sequential[inner]/Linear[0]/linear_2"} <= reached


def test_model_that_cannot_be_drawn_trains_without_a_word(run, monkeypatch, caplog, capsys):
    def fail(*arguments: object) -> None:
        raise RuntimeError("no graph")

    monkeypatch.setattr("fmnist_lit.dashboard.overview.draw_graph", fail)
    folder = run("run", "trainer.max_epochs=1")
    assert not read_all(folder).Tags()["graph"]
    assert "no graph" not in caplog.text + "".join(capsys.readouterr())


def test_events_of_a_kill_between_the_new_file_and_the_old_ones_count_once(tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"accuracy/train": 0.1}, 1)
    logger.log_metrics({"accuracy/train": 0.2}, 2)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *args, **options: None)
        logger.go_on_from(epoch=1, step=10, batch=1)
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in shown.Scalars("accuracy/train")] == [1]
    TensorBoardLogger(tmp_path).go_on_from(epoch=1, step=10, batch=1)
    assert steps(tmp_path, "accuracy/train") == [1]
