"""A recorded step does what eager steps do; what it cannot hold is left to them and named. On a tape: tape.py."""

import csv
import importlib
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from interruptions import signal_at
from lightning.pytorch import Callback
from omegaconf import OmegaConf
from tape import TapeRecorder
from torch import Tensor, nn

from fmnist_lit import captured
from fmnist_lit.captured import REHEARSALS, CapturedStep, CUDAGraphRecorder, held_by_a_recording, rates_on_the_device
from fmnist_lit.chunked import ChunkedClassifier
from fmnist_lit.command_line.job import run_job
from fmnist_lit.train import train

SIZES = ("data.batch_size=30", "data.train_size=250")  # eight batches and a smaller one
ON = "trainer.cuda_graph=true"


@pytest.fixture(autouse=True)
def on_tape(monkeypatch, caplog):
    monkeypatch.setitem(captured.RECORDERS, "cpu", TapeRecorder)
    caplog.set_level(logging.INFO)


@pytest.fixture
def replays(monkeypatch) -> list[int]:
    """How many images each replayed step took."""
    seen = []
    fill_in = CapturedStep.fill_in
    monkeypatch.setattr(
        CapturedStep, "fill_in", lambda self, *batch: seen.append(len(batch[1])) or fill_in(self, *batch)
    )
    return seen


def checkpoint(run_dir: Path) -> dict:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def figures(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = (record.getMessage() for record in caplog.records)
    return [text.removeprefix("trainer.cuda_graph: ") for text in texts if text.startswith("trainer.cuda_graph: ")]


# The same as eager steps


EXACT = "optimizer.lr=0.0078125"  # a rate that float32, as the device has it, does not round
SAME = {
    "plain": ["optimizer.lr=0.125"],
    "momentum": ["optimizer=sgd_nesterov", EXACT, "optimizer.weight_decay=0.125"],
    "dropout": ["optimizer=adam", EXACT, "model.dropout=0.3"],
    "schedule by step": ["optimizer=sgd_momentum", EXACT, "scheduler=step", "scheduler.interval=step"],
    "schedule by epoch": ["optimizer=adamw", EXACT, "scheduler=step", "scheduler.step_size=1"],
    "no decay of biases": ["optimizer=adamw", EXACT, "regularization.decay_biases=false"],
    "bf16": ["optimizer=adam", EXACT, "trainer.precision=bf16-mixed"],
    "64 bits": ["optimizer=adam", EXACT, "trainer.precision=64-true", "loss=nll"],
    "augmentation": ["data.augmentation.flip=true", "data.augmentation.shift=2", EXACT],
    "all together": [
        *("optimizer=sgd_momentum", EXACT, "scheduler=step", "scheduler.interval=step", "loss=label_smoothing"),
        *("model.dropout=0.2", "model.batch_norm=true", "trainer.gradient_clip_val=0.5", "regularization.l1=1e-4"),
    ],
}


@pytest.mark.parametrize("overrides", SAME.values(), ids=SAME)
def test_replayed_steps_end_in_the_bits_of_eager_ones(configure, tmp_path, replays, overrides):
    train(configure(*SIZES, *overrides, run_dir="eager"))
    train(configure(*SIZES, *overrides, ON, run_dir="replayed"))
    assert replays == [30] * (2 * 8 - REHEARSALS - 1)
    eager, replayed = (checkpoint(tmp_path / name) for name in ("eager", "replayed"))
    assert all(torch.equal(eager["state_dict"][key], replayed["state_dict"][key]) for key in eager["state_dict"])
    assert figures(tmp_path / "eager") == figures(tmp_path / "replayed")
    assert eager["global_step"] == replayed["global_step"] == 18


def test_schedule_is_followed_to_rounding(configure, tmp_path, replays):
    overrides = (*SIZES, "optimizer=adam", "scheduler=one_cycle", "trainer.max_epochs=3")
    train(configure(*overrides, run_dir="eager"))
    train(configure(*overrides, ON, run_dir="replayed"))
    assert replays
    eager, replayed = (checkpoint(tmp_path / name)["state_dict"] for name in ("eager", "replayed"))
    for key in eager:
        torch.testing.assert_close(replayed[key], eager[key], rtol=1e-4, atol=1e-6)
    assert [row["lr"] for row in figures(tmp_path / "eager")] == [row["lr"] for row in figures(tmp_path / "replayed")]


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta"])
def test_capturable_optimizers_of_torch_are_replayed(configure, tmp_path, monkeypatch, replays, name):
    """As on a GPU: torch would refuse ``capturable`` on a CPU."""
    module = importlib.import_module({"AdamW": "torch.optim.adam"}.get(name, f"torch.optim.{name.lower()}"))
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_, **__: ["cpu"])
    optimizer = {"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 0.0078125, "foreach": True}
    optimizer["capturable"] = True  # torch computes in float32 then, and RAdam's first steps are others
    runs = {}
    for switch in ("true", "false"):
        cfg = configure(*SIZES, f"trainer.cuda_graph={switch}", run_dir=switch)
        cfg.optimizer = OmegaConf.create(optimizer)
        train(cfg)
        runs[switch] = checkpoint(tmp_path / switch)["state_dict"]
    assert len(replays) == 2 * 8 - REHEARSALS - 1
    assert all(torch.equal(runs["true"][key], runs["false"][key]) for key in runs["true"])


def test_checkpoint_holds_what_an_eager_run_leaves_and_either_goes_on_with_it(configure, tmp_path):
    overrides = (*SIZES, "optimizer=adam", EXACT, "model.dropout=0.2", "trainer.max_epochs=3")
    run_job(configure(*overrides, run_dir="whole"))
    with signal_at(14), pytest.raises(SystemExit, match="143"):
        run_job(configure(*overrides, ON))
    left = checkpoint(tmp_path / "run")
    (group,) = left["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["capturable"]) == (0.0078125, False)
    for switch in ("true", "false"):
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        torch.save(left, last)
        run_job(configure(*overrides, f"trainer.cuda_graph={switch}", f"ckpt_path='{last}'"))
        ended, whole = (checkpoint(tmp_path / name)["state_dict"] for name in ("run", "whole"))
        assert all(torch.equal(ended[key], whole[key]) for key in whole)


def test_divergence_in_a_replay_is_found_at_its_step(configure, tmp_path):
    steps = []
    for switch in ("true", "false"):
        cfg = configure(*SIZES, "loss=label_smoothing", "optimizer.lr=1e18", f"trainer.cuda_graph={switch}")
        with pytest.raises(Exception, match="step") as caught:
            train(cfg)
        steps.append(str(caught.value))
    assert steps[0] == steps[1]


def test_off_is_the_default_and_says_nothing(configure, caplog, replays):
    cfg = configure("trainer.max_epochs=1")
    assert cfg.trainer.cuda_graph is False
    train(cfg)
    assert (said(caplog), replays) == ([], [])


def test_graph_is_let_go_when_training_ends(configure, monkeypatch):
    kept = []
    end = ChunkedClassifier.on_train_end
    monkeypatch.setattr(ChunkedClassifier, "on_train_end", lambda self: kept.append(self) or end(self))
    train(configure("trainer.max_epochs=1", ON))
    assert kept[0].captured is None


# Eager steps, and why


class WithinAStep(Callback):
    copes_with_chunks = True

    def on_after_backward(self, *_: object) -> None: ...


CYCLE = ("scheduler=one_cycle", "scheduler.cycle_momentum=true")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["trainer.steps_per_batch=1"], "the textbook class trains"),
        (["trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches"),
        (["+trainer.detect_anomaly=true"], "trainer.detect_anomaly"),
        (["optimizer=muon"], "MuonWithAdamW needs its learning rate in Python"),
        (["optimizer=adagrad"], "Adagrad needs"),
        (["optimizer.fused=false"], "SGD needs"),
        (["optimizer=rmsprop", "+optimizer.foreach=false"], "RMSprop needs"),
        (["callbacks=ema"], "hooks of the optimiser's step are Python"),
        (
            ["optimizer=sgd_momentum", "scheduler=one_cycle", "scheduler.cycle_momentum=true"],
            "until optimizer.momentum",
        ),
        (["loss=mse"], "cannot be recorded: RuntimeError: aten._local_scalar_dense"),  # a check of labels, on CPUs only
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_what_cannot_be_replayed_is_named_and_trains_eagerly(configure, tmp_path, caplog, replays, overrides, why):
    few = ("data.batch_size=30", "data.train_size=150")
    train(configure(*few, *overrides, run_dir="eager"))
    train(configure(*few, *overrides, ON, run_dir="asked"))
    (line,) = said(caplog)
    assert line.startswith("eager steps, ")
    assert why in line
    assert replays == []
    eager, asked = (checkpoint(tmp_path / name)["state_dict"] for name in ("eager", "asked"))
    assert all(torch.equal(eager[key], asked[key]) for key in eager)


def test_cpu_is_named(configure, monkeypatch, caplog):
    monkeypatch.delitem(captured.RECORDERS, "cpu")
    train(configure("trainer.max_epochs=1", ON))
    assert said(caplog) == ["eager steps, the device is cpu, and CUDA graphs are of CUDA"]


def test_callback_within_a_step_is_named(configure, caplog, monkeypatch, replays):
    monkeypatch.setattr("fmnist_lit.build.pruning_of", lambda cfg: [WithinAStep()])
    train(configure("trainer.max_epochs=1", ON))
    assert said(caplog) == ["eager steps, WithinAStep acts within each"]
    assert replays == []


# One step


def linear() -> tuple[nn.Linear, torch.optim.SGD]:
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    return layer, torch.optim.SGD(layer.parameters(), lr=0.5, fused=True)


def step_of(layer: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = layer(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach(), logits.detach()

    return step


class Objecting(TapeRecorder):
    """Finds fault with a step."""

    def rehearsing(self):
        return nullcontext(["loss.py, line 7, waits for the device"])


BATCH = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([0, 1])


def captured_step(layer: nn.Module, optimizer: torch.optim.Optimizer, recorder: type = TapeRecorder) -> CapturedStep:
    return CapturedStep(step_of(layer, optimizer), 2, layer, None, [optimizer], recorder())


def test_outcomes_are_left_alone_by_later_steps():
    step = captured_step(*linear())
    outcomes = [step(*BATCH) for _ in range(8)]
    assert step.replay is not None
    layer, optimizer = linear()
    eager = [step_of(layer, optimizer)(*BATCH) for _ in range(8)]
    assert [(loss.item(), logits.tolist()) for loss, logits in outcomes] == [(a.item(), b.tolist()) for a, b in eager]
    assert layer.weight.grad is None


def test_layer_that_changes_is_recorded_again(caplog):
    layer = nn.Sequential(nn.Dropout(0.0), nn.Linear(2, 2))
    step = captured_step(layer, torch.optim.SGD(layer.parameters(), lr=0.5, fused=True))
    for _ in range(5):
        assert step.is_allowed()
        step(*BATCH)
    assert step.replay is not None
    layer[0].p = 1.0
    assert step.is_allowed()
    assert step.replay is None
    for _ in range(5):
        _, logits = step(*BATCH)
    assert step.replay is not None
    assert torch.equal(logits[0], logits[1])  # all is dropped, the bias is left
    replayed = "steps of 2 images are replayed"
    assert said(caplog) == [replayed, "eager steps, until model.0.p stays as it is", replayed]


def test_several_jobs_are_watched_as_one(caplog):
    jobs = [linear(), linear()]
    steps = [step_of(*job) for job in jobs]

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outcomes = [step(*batch) for step, *batch in zip(steps, images, labels, strict=True)]
        losses, logits = zip(*outcomes, strict=True)
        return torch.stack(losses), torch.stack(logits)

    layers, optimizers = zip(*jobs, strict=True)
    of_both = CapturedStep(step, 2, nn.ModuleList(layers), nn.ModuleList(), optimizers, TapeRecorder())
    for rate in (0.5, 0.5, 0.5, 0.5, 0.25, 0.125):  # of the second
        optimizers[1].param_groups[0]["lr"] = rate
        assert of_both.is_allowed()
        of_both(*(torch.stack([both, both]) for both in BATCH))
    layer, optimizer = linear()
    for rate in (0.5, 0.5, 0.5, 0.5, 0.25, 0.125):
        optimizer.param_groups[0]["lr"] = rate
        step_of(layer, optimizer)(*BATCH)
    assert torch.equal(layers[1].weight, layer.weight)
    assert not torch.equal(layers[0].weight, layer.weight)
    optimizers[1].param_groups[0]["momentum"] = 0.9
    assert of_both.is_allowed()
    assert of_both.replay is None
    hook = optimizers[1].register_step_pre_hook(lambda *_: None)
    assert not of_both.is_allowed()
    hook.remove()
    reasons = ["until optimizer.momentum stays as it is", "hooks of the optimiser's step are Python"]
    assert said(caplog) == ["steps of 2 × 2 images are replayed", *(f"eager steps, {reason}" for reason in reasons)]


def test_hook_that_comes_and_goes_has_its_steps(caplog):
    layer, optimizer = linear()
    step = captured_step(layer, optimizer)
    for _ in range(5):
        step(*BATCH)
    hook = layer.register_forward_hook(lambda *_: None)
    assert not step.is_allowed()
    hook.remove()
    assert step.is_allowed()
    assert step.replay is not None
    assert said(caplog)[1:] == ["eager steps, hooks of the model are Python"]


def test_step_that_waits_for_the_device_is_not_recorded(caplog):
    step = captured_step(*linear(), recorder=Objecting)
    for _ in range(5):
        step(*BATCH)
    assert not step.is_allowed()
    assert said(caplog) == ["eager steps, they cannot be recorded: loss.py, line 7, waits for the device"]


def test_recording_holds_all_but_learning_rates_and_values():
    layer, optimizer = linear()
    held = held_by_a_recording({"model": layer}, [optimizer])
    optimizer.param_groups[0]["lr"] = 0.1
    with torch.no_grad():
        layer.weight.add_(1)
    assert held_by_a_recording({"model": layer}, [optimizer]) == held
    layer.weight.requires_grad = False
    optimizer.param_groups[0]["momentum"] = 0.9
    layer.eval()
    now = held_by_a_recording({"model": layer}, [optimizer])
    assert {key for key in now if now[key] != held[key]} == {"model.weight", "optimizer.momentum", "model.training"}


def test_optimizer_computes_on_the_device_in_a_recording_only():
    layer, _ = linear()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.25)
    step_of(layer, optimizer)(*BATCH)
    group, rate = optimizer.param_groups[0], torch.tensor(0.25)
    with rates_on_the_device([optimizer], [rate]):
        assert group["lr"] is rate
        assert group["capturable"] is True
    assert (group["lr"], group["capturable"]) == (0.25, False)


def test_recorder_on_cuda_notes_where_the_host_waits_and_passes_on_other_warnings(monkeypatch):
    """With torch.cuda played; what it says is what torch 2.15 says."""
    modes = []

    def set_mode(mode: object) -> None:
        modes.append(mode)
        said = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
        warnings.warn(said, stacklevel=2)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda of: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    recorder = CUDAGraphRecorder()
    with recorder.rehearsing() as objections:
        pass
    assert objections == []
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with recorder.rehearsing() as objections:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            warnings.warn("of the loss", stacklevel=1)
    assert [str(warning.message) for warning in others] == ["of the loss"]
    (objection,) = objections
    assert re.fullmatch(r"test_captured\.py, line \d+, waits for the device", objection)
    assert modes == ["warn", 0] * 2
