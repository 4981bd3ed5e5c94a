"""What learning looks like inside: measured beside torch, without a trace in the run, and said when it is wrong."""

import logging
import math

import pytest
import torch
from documents import ROOT, anchors
from event_contents import contents, read_all, steps
from torch import nn
from torch.nn import functional as F

from fmnist_lit.chunked import what_needs_single_steps
from fmnist_lit.command_line.job import run_job
from fmnist_lit.dashboard.inside import Inside, gradient_norms, look_inside
from fmnist_lit.dashboard.symptoms import PAGE, Symptoms
from fmnist_lit.run.checkpoint import load_checkpoint

DASHBOARD = ("logger=default", "callbacks=[default,dashboard]", "~callbacks.pictures")


def some(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 1, 28, 28, generator=generator), torch.arange(num) % 10


def test_look_is_what_torch_computes_and_leaves_no_trace():
    layers = [
        nn.Flatten(),
        nn.Linear(784, 20),
        nn.BatchNorm1d(20),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(20, 10),
    ]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        layers[2].bias[:5], layers[2].bias[5:] = -100, 100  # dead, alive
    images, labels = some(30)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    view = look_inside(model, F.cross_entropy, labels, images, images)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())

    model.eval()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    assert view.loss == pytest.approx(loss.item())
    assert torch.equal(view.gradients["1_Linear.weight"], layers[1].weight.grad)
    whole = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert gradient_norms(view.gradients)["all"] == pytest.approx(float(whole))
    assert list(view.activations) == ["1_Linear", "2_BatchNorm1d", "3_ReLU", "5_Linear"]
    assert (view.activations["1_Linear"] < 0).any()  # before the ReLU worked in its place
    assert view.dead == {"3_ReLU": 0.25}


def test_channel_is_dead_where_it_is_zero_everywhere_in_all_images():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    with torch.no_grad():
        model[0].weight.fill_(0)
        model[0].bias.copy_(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    images, labels = some(10)
    assert look_inside(model, F.cross_entropy, labels, images, images).dead == {"1_ReLU": 0.5}


@pytest.mark.parametrize("steps_per_batch", ["auto", "1"])
def test_each_epoch_shows_what_is_inside(configure, tmp_path, steps_per_batch):
    run_job(configure(*DASHBOARD, f"trainer.steps_per_batch={steps_per_batch}", "optimizer.lr=0.1"))
    shown = contents(tmp_path / "run")
    histograms = read_all(tmp_path / "run").Tags()["histograms"]
    assert {"weights/1_Linear.weight", "gradients/3_Linear.bias", "activations/2_ReLU"} <= set(histograms)
    scalars = ("dead_units/2_ReLU", "gradient_norm/all", "gradient_norm/1_Linear.weight")
    assert all([step for step, _ in shown[tag]] == [0, 1, 2] for tag in (*histograms, *scalars))
    assert steps(tmp_path / "run", "update_ratio/1_Linear.weight") == [1, 2]
    last = read_all(tmp_path / "run").Histograms("weights/3_Linear.weight")[-1].histogram_value
    weight = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]["model.3.weight"]
    assert (last.num, last.min, last.max) == (weight.numel(), pytest.approx(weight.min()), pytest.approx(weight.max()))
    assert sum(last.bucket) == weight.numel()


def test_ratio_of_update_to_weight_is_of_the_last_step(configure, tmp_path):
    """One step an epoch: then the weights before and after it are in checkpoints."""
    one_step = ("data.batch_size=256", "trainer.checkpoint_every_n_steps=1", "optimizer.lr=0.5")
    run_job(configure(*DASHBOARD, *one_step, "trainer.max_epochs=1", run_dir="one"))
    run_job(configure(*DASHBOARD, *one_step, run_dir="two"))
    name = "model.1.weight"
    before, after = (
        load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"][name] for run in ("one", "two")
    )
    ratio = float((after - before).norm() / before.norm())
    assert contents(tmp_path / "two")["update_ratio/1_Linear.weight"][-1] == (2, pytest.approx(ratio, rel=1e-5))


def test_options_leave_out_what_they_name(configure, tmp_path):
    off = [f"callbacks.inside.{key}=false" for key in ("histograms", "dead_units", "gradients", "updates", "warnings")]
    run_job(configure(*DASHBOARD, *off, "callbacks.overview.graph=false"))
    assert not read_all(tmp_path / "run").Tags()["graph"]
    assert {tag.split("/")[0] for tag in contents(tmp_path / "run")} == {
        *("accuracy", "loss", "lr", "custom_scalars__config__", "run", "configuration"),
    }


def test_it_leaves_the_fast_class_alone():
    assert what_needs_single_steps({}, [Inside()]) is None


HEALTHY = {"images": 1000, "loss": 1.0, "norms": {"all": 1.0, "a": 0.5, "b": 0.5}, "dead": {"relu": 0.1}}


@pytest.mark.parametrize(
    ("epoch", "seen", "section"),
    [
        (3, {}, None),
        (0, {"loss": 1.0}, None),
        (2, {"loss": 0.995}, "a-loss-that-stands-still"),
        (1, {"dead": {"relu": 0.6}}, "dying-units"),
        (1, {"dead": {"relu": 0.4}}, None),
        (1, {"norms": {"all": 1.0, "a": 1e-4, "b": 0.5}}, "vanishing-gradients"),
        (1, {"norms": {"all": 0.0, "a": 0.0, "b": 0.0}}, None),
        (1, {"norms": {"all": 101.0, "a": 50.0, "b": 50.0}}, "exploding-gradients"),
        (1, {"norms": {"all": math.nan, "a": 50.0, "b": 50.0}}, "exploding-gradients"),
        (1, {"norms": {"all": 101.0, "a": 50.0}, "dead": {}}, "exploding-gradients"),
    ],
)
def test_symptom_is_said_once_with_its_page(caplog, epoch, seen, section):
    symptoms = Symptoms()
    symptoms.notice(0, **HEALTHY)
    for later in (epoch, epoch + 1):
        symptoms.notice(later, **{**HEALTHY, "loss": 0.5, **seen})
    assert len(caplog.messages) == (section is not None)
    if section:
        assert caplog.messages[0].startswith(f"WARNING: after epoch {epoch} ")
        assert caplog.messages[0].endswith(f"{PAGE}#{section}")
        assert "\n" not in caplog.messages[0]
        assert section in anchors(ROOT / PAGE)


def test_units_that_were_never_alive_have_not_died(caplog):
    symptoms = Symptoms()
    symptoms.notice(0, **{**HEALTHY, "dead": {"relu": 0.55}})
    symptoms.notice(1, **{**HEALTHY, "loss": 0.5, "dead": {"relu": 0.6}})
    assert not caplog.messages


def test_run_whose_units_die_says_so(configure, caplog):
    caplog.set_level(logging.INFO)
    run_job(configure("logger=csv", "callbacks=[default,dashboard]", "optimizer.lr=30"))
    (line,) = [message for message in caplog.messages if "dying-units" in message]
    assert "% of the units of 2_ReLU are dead: 0 for each of 64 images. docs/guide/" in line
