"""What only a GPU can show: runs on one, resumed, evaluated elsewhere, in bf16, under DDP, and from a CUDA graph."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from conftest import SMALL, chosen
from interruptions import signal_at
from torch import Tensor, nn

from fmnist_lit import load_classifier
from fmnist_lit.build import make_datamodule, make_trainer
from fmnist_lit.captured import REHEARSALS, CapturedStep, CUDAGraphRecorder
from fmnist_lit.command_line.job import run_job
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_GPU = "trainer.accelerator=gpu"
SIZES = (ON_GPU, "trainer.devices=1", "data.batch_size=32", "data.train_size=1000", "trainer.max_epochs=2")  # 32 steps
LEARNS = ("optimizer=adam", "optimizer.lr=0.003")


@pytest.fixture(autouse=True)
def as_it_was():
    """Lightning leaves torch's switch where ``trainer.deterministic`` has put it."""
    yield
    torch.use_deterministic_algorithms(False)


def weights(run_dir) -> dict[str, Tensor]:
    return load_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]


def assert_same_bits(first, second) -> None:
    a, b = weights(first), weights(second)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def assert_close(first, second) -> None:
    a, b = weights(first), weights(second)
    for name in a:
        torch.testing.assert_close(
            b[name], a[name], rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


# Runs


def test_default_run_trains_on_the_gpu(configure):
    results = train(configure("trainer.accelerator=auto", *LEARNS, "data.train_size=1000", "trainer.max_epochs=3"))
    assert results["device"] == "cuda:0"
    assert results["test_accuracy"] > 0.3


def test_resumed_run_ends_in_the_same_bits_with_deterministic_algorithms(configure, tmp_path):
    overrides = (*SIZES, *LEARNS, "+trainer.deterministic=true", "model.dropout=0.2", "scheduler=one_cycle")
    run_job(configure(*overrides, run_dir="whole"))
    with signal_at(40), pytest.raises(SystemExit, match="143"):  # in the second epoch
        run_job(configure(*overrides))
    run_job(configure(*overrides, f"ckpt_path='{tmp_path / 'run'}/checkpoints/last.ckpt'"))
    assert_same_bits(tmp_path / "whole", tmp_path / "run")


def test_both_classes_end_in_the_same_bits(configure, tmp_path):
    for steps in (1, 50):
        train(configure(*SIZES, *LEARNS, f"trainer.steps_per_batch={steps}", run_dir=f"{steps}"))
    assert_same_bits(tmp_path / "1", tmp_path / "50")


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_checkpoint_of_the_gpu_is_of_use_on_the_cpu(configure, tmp_path, model):
    cfg = configure(*SIZES, *LEARNS, "trainer.max_epochs=1")
    if model == "cnn":
        cfg.model = chosen("model", "cnn")
    results = train(cfg)
    cfg.trainer.accelerator = "cpu"
    data = make_datamodule(cfg, make_trainer(cfg)).test_images
    predictions = load_classifier(tmp_path / "run" / results["checkpoint"]).predict(data.pixels)
    accuracy = (predictions.class_indices == data.labels).double().mean().item()
    assert accuracy == pytest.approx(results["test_accuracy"], abs=1.5 / len(data.labels))


def test_data_parallel_run_with_one_card(tmp_path):
    words = (*SMALL, ON_GPU, "trainer=ddp", "trainer.devices=1", "trainer.max_epochs=1", f"hydra.run.dir='{tmp_path}'")
    command = [sys.executable, "-m", "fmnist_lit", *(word for word in words if word != "trainer.accelerator=cpu")]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (results["device"], results["num_processes"], results["status"]) == ("cuda:0", 1, "completed")


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "64-true"])
def test_precision_learns(configure, precision):
    results = train(configure(*SIZES, *LEARNS, f"trainer.precision={precision}"))
    assert results["test_accuracy"] > 0.3


# The captured step


GRAPH = "trainer.cuda_graph=true"
SETTINGS = {
    "sgd": ["optimizer.lr=0.1"],
    "sgd_nesterov": ["optimizer=sgd_nesterov"],
    "adam": ["optimizer=adam"],
    "adamw": ["optimizer=adamw", "regularization.decay_biases=false"],
    "rmsprop": ["optimizer=rmsprop"],
    "schedule": ["optimizer=adam", "scheduler=one_cycle"],
    "clipping": ["optimizer=sgd_momentum", "trainer.gradient_clip_val=0.5"],
    "L1": ["optimizer.lr=0.1", "regularization.l1=1e-4"],
    "mse": ["loss=mse", "optimizer=sgd_momentum"],
    "label smoothing": ["loss=label_smoothing", "optimizer=sgd_momentum"],
    "batch norm": ["optimizer.lr=0.1", "model.batch_norm=true"],
    "dropout": ["optimizer.lr=0.1", "model.dropout=0.2"],
    "cnn": ["optimizer=sgd_momentum"],
    "bf16": ["optimizer=sgd_momentum", "trainer.precision=bf16-mixed"],
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_replayed_steps_begin_as_eager_ones_and_end_as_they_do_to_rounding(configure, tmp_path, caplog, setting):
    caplog.set_level(logging.INFO)
    overrides = (*SIZES, *SETTINGS[setting], "+trainer.deterministic=true")
    for name, switch in (("eager", "false"), ("graphed", "true")):
        for part, limit in (("first_", f"trainer.max_steps={REHEARSALS}"), ("", "trainer.max_steps=-1")):
            cfg = configure(*overrides, f"trainer.cuda_graph={switch}", limit, run_dir=part + name)
            if setting == "cnn":
                cfg.model = chosen("model", "cnn")
            train(cfg)
    assert "trainer.cuda_graph: steps of 32 images are replayed" in [r.getMessage() for r in caplog.records]
    assert_same_bits(tmp_path / "first_eager", tmp_path / "first_graphed")
    if setting != "bf16":  # where roundings are large
        assert_close(tmp_path / "eager", tmp_path / "graphed")


def test_replayed_stack_ends_as_its_jobs_do_alone_to_rounding(launch_here, tmp_path):
    words = ("-m", *SMALL, *SIZES, "optimizer=sgd_momentum,adam", "optimizer.lr=0.01,0.003", "scheduler=one_cycle")
    words = [word for word in words if word != "trainer.accelerator=cpu"]
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0
    assert launch_here(*words, GRAPH, "hydra/launcher=stacked", "hydra.sweep.dir=together") == 0
    for file in (tmp_path / "alone").glob("*/results.json"):
        together = tmp_path / "together" / file.parent.name
        assert "steps of 4 × 32 images are replayed" in (together / "train.log").read_text(encoding="utf-8")
        assert_close(file.parent, together)


def test_run_from_a_graph_repeats_its_bits(configure, tmp_path):
    overrides = (*SIZES, *LEARNS, GRAPH, "+trainer.deterministic=true", "model.dropout=0.2", "scheduler=cosine")
    for name in ("once", "again"):
        train(configure(*overrides, run_dir=name))
    assert_same_bits(tmp_path / "once", tmp_path / "again")


def test_run_from_a_graph_goes_on_without_one_and_on_the_cpu(configure, tmp_path):
    run_job(configure(*SIZES, *LEARNS, GRAPH))
    last = f"ckpt_path='{tmp_path / 'run'}/checkpoints/last.ckpt'"
    longer = (*SIZES, *LEARNS, "trainer.max_epochs=3", last)
    run_job(configure(*longer, "trainer.cuda_graph=false"))
    run_job(configure(*longer, "trainer.max_epochs=4", "trainer.accelerator=cpu", GRAPH))
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 4 * 32


def test_step_that_waits_for_the_device_is_eager_and_named(caplog):
    """Last, as a failed recording might leave the process in a state of its own."""
    caplog.set_level(logging.INFO)
    layer = nn.Linear(2, 2, device="cuda")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, fused=True)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = layer(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if loss.item() > 0:
            optimizer.step()
        optimizer.zero_grad()
        return loss.detach(), logits.detach()

    captured = CapturedStep(step, 2, layer, None, [optimizer], CUDAGraphRecorder())
    batch = torch.ones(2, 2, device="cuda"), torch.tensor([0, 1], device="cuda")
    for _ in range(2 * REHEARSALS):
        captured(*batch)
    assert not captured.is_allowed()
    assert "test_gpu.py" in caplog.text
    assert "waits for the device" in caplog.text
