import csv
import json
from pathlib import Path

import hydra
import pytest
import torch
from conftest import QUIET, SMALL, chosen, options, pairs
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

import fmnist_lit.train
from fmnist_lit.classifier import Classifier
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.job import run_job
from fmnist_lit.data.images import load_images
from fmnist_lit.losses import l1_penalty
from fmnist_lit.train import train


def metrics(run_dir: Path) -> list[dict[str, float | None]]:
    with open(run_dir / "metrics.csv", newline="") as file:
        return [{key: float(text) if text else None for key, text in row.items()} for row in csv.DictReader(file)]


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def fit(configure, monkeypatch):
    """Train, and return the classifier as the run left it."""
    made = []
    make = fmnist_lit.train.make_classifier
    monkeypatch.setattr(fmnist_lit.train, "make_classifier", lambda *args: made.append(make(*args)) or made[-1])

    def fit(*overrides: str, run_dir: str = "run") -> Classifier:
        train(configure(*overrides, run_dir=run_dir))
        return made[-1]

    return fit


# The matrix


@pytest.fixture(scope="module")
def small_cfg() -> DictConfig:
    overrides = [*SMALL, *QUIET, "~callbacks.checkpoint", "data.batch_size=32", "run_dir=''"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


# Plain SGD at the tutorial's learning rate gets nowhere in two short epochs
FASTER = {"sgd": {"lr": 0.3}, "sgd_momentum": {"lr": 0.1}, "sgd_nesterov": {"lr": 0.1}}


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "loss"), pairs(options("optimizer"), options("scheduler"), options("loss"))
)
def test_every_choice_trains(small_cfg, tmp_path, loss, optimizer, scheduler):
    cfg = small_cfg.copy()
    cfg.run_dir = str(tmp_path)
    cfg.loss, cfg.scheduler = chosen("loss", loss), chosen("scheduler", scheduler)
    cfg.optimizer = {**chosen("optimizer", optimizer), **FASTER.get(optimizer, {})}
    results = train(cfg)
    first, last = metrics(tmp_path)
    assert last["train_loss"] < first["train_loss"]
    assert results["epochs"] == 2
    assert results["test_loss"] > 0


# What is reported

STILL = ("optimizer.lr=1e-30", "data.shuffle=false")  # too small to move a weight


@pytest.mark.parametrize("overrides", [[], ["loss=mse"], ["trainer.steps_per_batch=1"], ["data.batch_size=512"]])
def test_accuracy_and_loss_are_averages_over_samples(configure, tmp_path, overrides):
    uneven = ("data.train_size=150", "data.val_size=90", "data.eval_batch_size=37")
    cfg = configure(*STILL, *uneven, "logger=default", "trainer.max_epochs=1", *overrides)
    results = train(cfg)
    module = fmnist_lit.train.make_datamodule(cfg, fmnist_lit.train.make_trainer(cfg))
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    loss = instantiate(cfg.loss)
    for split in ("train", "val", "test"):
        images = getattr(module, f"{split}_images")
        logits = model(module.scale(images.pixels))
        correct = (logits.argmax(dim=1) == images.labels).double().mean().item()
        assert results[f"{split}_accuracy"] == pytest.approx(correct, rel=1e-12)
        assert results[f"{split}_loss"] == pytest.approx(loss(logits, images.labels).item(), rel=1e-6)


def test_l1_penalty_is_reported_apart_from_the_loss(fit):
    plain = fit(*STILL, run_dir="plain")
    penalised = fit(*STILL, "regularization.l1=0.01", run_dir="penalised")
    assert penalised.figures["loss/train"] == plain.figures["loss/train"]
    assert penalised.figures["loss/val"] == plain.figures["loss/val"]
    expected = 0.01 * l1_penalty(penalised.model.parameters()).item()
    assert penalised.figures["regularization/l1"] == pytest.approx(expected, rel=1e-6)
    assert "regularization/l1" not in plain.figures


def test_l1_penalty_shrinks_the_weights_that_are_minimised(fit):
    plain = fit("optimizer.lr=0.1", run_dir="plain")
    penalised = fit("optimizer.lr=0.1", "regularization.l1=0.01", run_dir="penalised")
    assert l1_penalty(penalised.model.parameters()) < 0.8 * l1_penalty(plain.model.parameters())


def test_one_step_with_l1_moves_each_weight_by_the_gradient_and_its_sign(fit):
    one_step = ("model=linear", "model.hidden_sizes=[]", "optimizer.lr=0.1", "trainer.max_steps=1")
    plain = fit(*one_step, run_dir="plain").model.state_dict()
    penalised = fit(*one_step, "regularization.l1=0.01", run_dir="penalised").model.state_dict()
    torch.manual_seed(0)
    before = nn.Linear(784, 10).weight.detach()
    torch.testing.assert_close(penalised["1.weight"], plain["1.weight"] - 0.1 * 0.01 * before.sign())
    assert torch.equal(penalised["1.bias"], plain["1.bias"])


# What happens at a step


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_momentum", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("decay_biases", [True, False])
def test_weight_decay_acts_on_biases_only_if_it_should(fit, optimizer, decay_biases):
    """Against a run without any decay: what differs was decayed."""
    one_step = (f"optimizer={optimizer}", "trainer.max_steps=1", "data.batch_size=256", "trainer.max_epochs=1")
    decays = f"regularization.decay_biases={str(decay_biases).lower()}"
    plain = dict(fit(*one_step, "optimizer.weight_decay=0").model.named_parameters())
    decayed = dict(fit(*one_step, "optimizer.weight_decay=0.5", decays).model.named_parameters())
    for name, weight in plain.items():
        assert torch.equal(weight, decayed[name]) is (name.endswith("bias") and not decay_biases), name


def test_flip_average_is_of_the_logits_of_an_image_and_its_mirror_image(fit):
    classifier = fit("flip_average=true", "optimizer=adam", "~callbacks.checkpoint")  # tested as it was at the end
    images, labels = next(iter(classifier.trainer.datamodule.test_dataloader()))
    with torch.no_grad():
        logits = (classifier.model(images) + classifier.model(images.flip(3))) / 2
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert classifier.figures["accuracy/test_flip_average"] == pytest.approx(accuracy)
    assert classifier.figures["loss/test_flip_average"] == pytest.approx(F.cross_entropy(logits, labels).item())


def test_flip_average_leaves_the_plain_figures_alone(configure):
    plain = train(configure(run_dir="plain"))
    flipped = train(configure("flip_average=true", run_dir="flipped"))
    assert flipped.keys() - plain.keys() == {
        f"{split}_{kind}_flip_average" for split in ("val", "test") for kind in ("accuracy", "loss")
    }
    del plain["seconds"], plain["fit_cpu_seconds"]
    assert {key: flipped[key] for key in plain} == plain


def distance_of_one_step(fit, *overrides: str) -> float:
    """How far one step of SGD with lr 1 moves all parameters: the norm of the gradient."""
    model = fit("optimizer.lr=1", "trainer.max_steps=1", *overrides).model
    torch.manual_seed(0)
    initial = instantiate({"_target_": "fmnist_lit.model.MLP", "hidden_sizes": [32]})
    moves = [after - before for after, before in zip(model.parameters(), initial.parameters(), strict=True)]
    return torch.cat([move.flatten() for move in moves]).norm().item()


def test_gradient_clipping_bounds_the_norm_of_the_whole_gradient(fit):
    assert distance_of_one_step(fit) > 0.1
    assert distance_of_one_step(fit, "trainer.gradient_clip_val=0.05") == pytest.approx(0.05, rel=1e-3)


def test_gradient_below_the_bound_is_left_as_it_is(fit):
    assert distance_of_one_step(fit, "trainer.gradient_clip_val=100") == distance_of_one_step(fit)


@pytest.mark.parametrize("steps_per_batch", [1, 3, 50])
def test_accumulating_two_batches_is_a_batch_twice_as_large(fit, steps_per_batch):
    linear = ("model=linear", "model.hidden_sizes=[]", "optimizer=sgd_momentum", "regularization.l1=1e-4")
    halves = ("data.batch_size=16", "trainer.accumulate_grad_batches=2")
    whole = fit(*linear, "data.batch_size=32", run_dir="whole")
    accumulated = fit(*linear, *halves, f"trainer.steps_per_batch={steps_per_batch}", run_dir="halves")
    assert accumulated.trainer.global_step == whole.trainer.global_step == 16
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(accumulated.model.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def test_batches_left_over_at_the_end_of_an_epoch_make_a_step(configure):
    results = train(configure("data.train_size=160", "data.batch_size=32", "trainer.accumulate_grad_batches=2"))
    assert results["steps"] == 2 * 3


@pytest.mark.parametrize("max_steps", [1, 5, 8, 11])
@pytest.mark.parametrize("steps_per_batch", [1, 3, 50])
def test_training_stops_at_max_steps(configure, max_steps, steps_per_batch):
    limits = (f"trainer.max_steps={max_steps}", f"trainer.steps_per_batch={steps_per_batch}")
    results = train(configure(*limits, "data.batch_size=32"))  # 8 steps an epoch
    assert results["steps"] == max_steps


@pytest.mark.parametrize("max_steps", [5, 8, 11])
def test_weights_at_max_steps_do_not_depend_on_the_chunk(configure, tmp_path, max_steps):
    for size in (1, 50):
        limits = (f"trainer.max_steps={max_steps}", f"trainer.steps_per_batch={size}")
        train(configure(*limits, "data.batch_size=32", run_dir=f"{size}"))
    assert same_bits(weights(tmp_path / "1"), weights(tmp_path / "50"))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer=adam", "model.dropout=0.3", "scheduler=one_cycle"],
        ["optimizer=muon", "model.batch_norm=true", "trainer.gradient_clip_val=0.1"],
        ["optimizer=adam", "trainer.accumulate_grad_batches=3", "regularization.l1=1e-4"],
        ["optimizer=adam", "trainer.precision=bf16-mixed"],
        ["optimizer=adam", "trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2"],
    ],
    ids=" ".join,
)
def test_chunk_of_50_batches_ends_in_the_bits_of_single_batches(configure, tmp_path, overrides):
    for size in (1, 50):
        train(configure("data.batch_size=30", f"trainer.steps_per_batch={size}", *overrides, run_dir=f"{size}"))
    assert same_bits(weights(tmp_path / "1"), weights(tmp_path / "50"))
    single, chunked = metrics(tmp_path / "1"), metrics(tmp_path / "50")
    for kind in ("train_accuracy", "val_accuracy", "val_loss", "lr"):
        assert [row[kind] for row in single] == [row[kind] for row in chunked]
    assert [row["train_loss"] for row in single] == pytest.approx([row["train_loss"] for row in chunked], rel=1e-6)


def test_bf16_mixed_sees_the_weights_of_each_step(configure, tmp_path):
    """A stale cache of bf16 weights would give every batch of a chunk the loss of the initial weights."""
    fast = ("optimizer=adam", "optimizer.lr=1e-2", "data.batch_size=16", "trainer.max_epochs=1")
    train(configure(*fast, run_dir="full"))
    train(configure(*fast, "trainer.precision=bf16-mixed", run_dir="mixed"))
    full, mixed = metrics(tmp_path / "full")[0], metrics(tmp_path / "mixed")[0]
    assert mixed["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)
    assert full["train_loss"] < 2.15  # 2.3 without any training


# Divergence


@pytest.mark.parametrize("steps_per_batch", [1, 4, 50])
def test_divergence_is_a_status_with_its_step_and_no_accuracies(configure, tmp_path, steps_per_batch):
    cfg = configure("loss=mse", "optimizer.lr=1e6", "data.batch_size=16", f"trainer.steps_per_batch={steps_per_batch}")
    run_job(cfg)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["status"] == "diverged"
    assert results["diverged_step"] == first_infinite_step(cfg)
    assert {results[f"{split}_accuracy"] for split in ("train", "val", "test")} == {None}
    assert results["best_epoch"] is None


def first_infinite_step(cfg) -> int:
    """The step, from 1, of a plain loop over the same batches."""
    module = fmnist_lit.train.make_datamodule(cfg, fmnist_lit.train.make_trainer(cfg))
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.optimizer.lr)
    images, labels = map(torch.cat, zip(*module.train_dataloader(), strict=True))
    for step, (x, y) in enumerate(zip(images.split(16), labels.split(16), strict=True), start=1):
        loss = F.mse_loss(model(x), F.one_hot(y, 10).float())
        if not loss.isfinite():
            return step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError("the plain loop did not diverge")


def test_diverged_first_epoch_leaves_no_checkpoint_to_be_taken_for_a_good_one(configure, tmp_path):
    run_job(configure("loss=mse", "optimizer.lr=1e6"))
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_best_checkpoint_survives_a_later_divergence(configure, tmp_path):
    exploding = ("loss=mse", "optimizer.lr=0.01", "scheduler=exponential", "scheduler.gamma=1e4")
    run_job(configure(*exploding, "trainer.max_epochs=6", "data.batch_size=16"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["status"] == "diverged"
    assert results["diverged_step"] > 16
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert all(weight.isfinite().all() for weight in best["state_dict"].values())


def test_infinite_validation_loss_is_divergence_too(configure, tmp_path):
    """One step, whose own loss is still finite, leaves weights that no image survives."""
    run_job(configure("loss=mse", "optimizer.lr=1e30", "trainer.max_steps=1"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["status"], results["diverged_step"]) == ("diverged", 1)
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


# The plain loop


def plain_loop(dataset, steps: int) -> dict[str, torch.Tensor]:
    """The tutorial's training, without the package."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    done = 0
    while done < steps:
        for images, labels in DataLoader(dataset, batch_size=64):
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
    return {f"model.{name}": weight for name, weight in model.state_dict().items()}


TUTORIAL = ("experiment=tutorial", "data.val_size=0", "data.shuffle=false", "model.hidden_sizes=[512,512]", "seed=0")


class Drawn(TensorDataset):
    """The first images of the stand-in, turned to floats one by one."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return ToTensor()(image.numpy()), label


@pytest.mark.parametrize("steps_per_batch", [1, 50])
def test_tutorial_ends_in_the_bits_of_a_plain_loop(configure, tmp_path, steps_per_batch):
    sizes = ("data.train_size=null", "data.test_size=100", f"trainer.steps_per_batch={steps_per_batch}")
    cfg = configure(*TUTORIAL, *sizes, "trainer.max_steps=200")
    train(cfg)
    drawn = load_images("synthetic", cfg.data.data_dir, 0).train
    plain = plain_loop(Drawn(drawn.pixels[:, 0], drawn.labels), steps=200)
    assert same_bits(weights(tmp_path / "run"), plain)


def test_tutorial_ends_in_the_bits_of_a_plain_loop_over_two_epochs(configure, tmp_path):
    """With a last batch that is short, and an evaluation between the epochs."""
    sizes = ("data.train_size=1000", "data.test_size=100", "trainer.max_epochs=2")
    train(configure(*TUTORIAL, *sizes))
    module_cfg = configure(*TUTORIAL, *sizes)
    module = fmnist_lit.train.make_datamodule(module_cfg, fmnist_lit.train.make_trainer(module_cfg))
    images = module.train_images
    plain = plain_loop(Drawn(images.pixels[:, 0], images.labels), steps=32)
    assert same_bits(weights(tmp_path / "run"), plain)


def test_tutorial_on_the_real_data_ends_in_the_bits_of_a_plain_loop(configure, tmp_path, real_data):
    real = ("data.source=fashion_mnist", f"data.data_dir='{real_data}'", "data.train_size=null")
    train(configure(*TUTORIAL, *real, "trainer.max_steps=300", "data.test_size=100"))
    plain = plain_loop(FashionMNIST(real_data, train=True, transform=ToTensor()), steps=300)
    assert same_bits(weights(tmp_path / "run"), plain)


# Golden losses: a change that claims to be neutral must reproduce them

GOLDEN = {
    "": [2.300725, 2.321085, 2.296856, 2.317795],
    "optimizer=adam loss=label_smoothing scheduler=one_cycle": [2.260326, 2.197449, 2.135385, 2.164007],
    "optimizer=muon optimizer.adamw_weight_decay=0 model.batch_norm=true scheduler=warmup_linear": [
        2.101341,
        2.18731,
        1.708079,
        2.0595,
    ],
    "optimizer=sgd_nesterov loss=mse model.dropout=0.2 model.activation=gelu data.normalize=true": [
        0.1127381,
        0.09731223,
        0.08775371,
        0.08803983,
    ],
}


@pytest.mark.parametrize(("overrides", "golden"), GOLDEN.items())
def test_losses_are_the_golden_ones(configure, tmp_path, overrides, golden):
    train(configure("data.batch_size=32", *overrides.split()))
    losses = [row[f"{split}_loss"] for row in metrics(tmp_path / "run") for split in ("train", "val")]
    assert losses == pytest.approx(golden, rel=1e-5)
