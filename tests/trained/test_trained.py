import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_checkpoint import Bomb

import fmnist_lit
from fmnist_lit import predict
from fmnist_lit.data.images import Scaling, load_images
from fmnist_lit.evaluate import __main__ as evaluate
from fmnist_lit.export import __main__ as export
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.trained.find import NoSuchRunError, find_trained

PIXELS = load_images("synthetic", "", 0)[2].pixels[:50]


@pytest.fixture
def copied(trained_run, tmp_path):
    """A copy of the run to write beside."""
    return shutil.copytree(trained_run, tmp_path / "copy")


@pytest.fixture
def altered(copied):
    """A checkpoint with something put in another's place."""

    def alter(change):
        content = load_checkpoint(copied / "checkpoints" / "best.ckpt")
        change(content)
        torch.save(content, copied.parent / "altered.ckpt")
        return copied.parent / "altered.ckpt"

    return alter


def test_importing_the_package_does_not_import_torch():
    code = "import sys, fmnist_lit; fmnist_lit.load_classifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Which file a path means


def test_run_means_the_checkpoint_its_results_are_of(trained_run):
    results = json.loads((trained_run / "results.json").read_text())
    found = find_trained(trained_run)
    assert (found.file, found.results) == (trained_run / results["checkpoint"], results)


def test_checkpoint_that_the_results_are_not_of_has_none(trained_run):
    found = find_trained(trained_run / "checkpoints" / "last.ckpt")
    assert (found.run_dir, found.results) == (trained_run, {})


def test_run_without_results_means_its_last_checkpoint(copied):
    (copied / "results.json").unlink()
    (copied / "checkpoints" / "best.ckpt").unlink()
    assert find_trained(copied).file.name == "last.ckpt"


def test_sweep_folder_is_refused_with_the_name_of_a_run_in_it(copied):
    with pytest.raises(NoSuchRunError, match=r"name one of the runs in it, such as .*copy"):
        find_trained(copied.parent)


@pytest.mark.parametrize("main", [evaluate.main, predict.main, export.main])
def test_run_that_does_not_exist_is_a_bad_argument(main, tmp_path, capsys):
    rest = {predict.main: ["a.png"], export.main: ["--format", "onnx"]}.get(main, [])
    assert main([str(tmp_path / "nowhere"), *rest]) == 2
    assert "nowhere: no such run folder or checkpoint" in capsys.readouterr().err


# What is loaded


def test_predictions_are_those_of_the_network_on_standardised_images(trained_run):
    content = load_checkpoint(trained_run / "checkpoints" / "best.ckpt")
    mean, std = content["hyper_parameters"]["scaling"].values()
    assert (mean, std) != (0, 1)
    state = {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}
    x = ((PIXELS.double() / 255 - mean) / std).flatten(1)
    x = x @ state["1.weight"].double().T + state["1.bias"]
    norm = torch.nn.functional.batch_norm  # with what training saw, as in evaluation
    x = norm(x, *(state[f"2.{name}"].double() for name in ("running_mean", "running_var", "weight", "bias")))
    x = x.relu() @ state["5.weight"].double().T + state["5.bias"]
    predictions = fmnist_lit.load_classifier(trained_run).predict(PIXELS)
    assert torch.allclose(predictions.probabilities.double(), x.softmax(1), atol=1e-5)
    assert predictions.class_indices.tolist() == x.argmax(1).tolist()
    assert predictions.labels[0] == fmnist_lit.load_classifier(trained_run).classes[x[0].argmax()]


@pytest.mark.parametrize(
    "form",
    [
        lambda pixels: pixels,
        lambda pixels: pixels[:, 0],
        lambda pixels: pixels.numpy(),
        lambda pixels: pixels.float() / 255,
        lambda pixels: [Image.fromarray(image.numpy()) for image in pixels[:, 0]],
    ],
    ids=["tensor", "without channel", "array", "floats", "pictures"],
)
def test_images_may_come_in_any_form(trained_run, form):
    classifier = fmnist_lit.load_classifier(trained_run)
    expected = classifier.predict(PIXELS).probabilities
    assert torch.allclose(classifier.predict(form(PIXELS)).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize(
    "images",
    [np.zeros((3, 32, 32), np.uint8), np.zeros((2, 3, 28, 28)), np.full((28, 28), 255.0), np.zeros((28, 28), int)],
)
def test_images_of_another_shape_or_range_are_refused(trained_run, images):
    with pytest.raises(ValueError, match="must be"):
        fmnist_lit.load_classifier(trained_run).predict(images)


def test_no_images_give_no_predictions(trained_run):
    assert len(fmnist_lit.load_classifier(trained_run).predict([])) == 0


def test_loading_draws_nothing_from_the_global_generator(trained_run):
    before = torch.get_rng_state()
    fmnist_lit.load_classifier(trained_run)
    assert torch.equal(torch.get_rng_state(), before)


def test_scaling_is_that_of_the_training_images(trained_run):
    assert fmnist_lit.load_classifier(trained_run).scaling != Scaling()


# What is not


def set_key(group, key, value):
    return lambda content: content["hyper_parameters"][group].update({key: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (set_key("model", "_target_", "os.system"), "model._target_=os.system"),
        (set_key("model", "_target_", "torch.optim.SGD"), "not what a checkpoint may name"),
        (set_key("model", "activation", "${oc.env:HOME}"), "must hold values"),
        (set_key("model", "hidden_sizes", [65536]), "size mismatch"),
        (lambda content: content["state_dict"].popitem(), "Missing key"),
        (lambda content: content["state_dict"]["model.1.weight"].fill_(torch.nan), "not finite"),
        (lambda content: content["hyper_parameters"].pop("scaling"), "mean and standard deviation are not in it"),
        (lambda content: content["hyper_parameters"].pop("dataset"), "dataset=None"),
    ],
)
def test_checkpoint_that_is_not_as_a_run_leaves_it_is_refused(altered, change, why):
    path = altered(change)
    with pytest.raises(CheckpointError, match=why) as caught:
        fmnist_lit.load_classifier(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("main", [evaluate.main, predict.main, export.main])
def test_code_in_a_checkpoint_is_refused_by_every_command(main, altered, tmp_path, capsys):
    path = altered(lambda content: content.update(more=Bomb(tmp_path / "ran")))
    rest = {predict.main: ["a.png"], export.main: ["--format", "onnx"]}.get(main, [])
    assert main([str(path), *rest]) == 1
    assert f"{path}: not a checkpoint that can be trusted" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_loss_that_a_checkpoint_may_not_name_is_not_built(altered, capsys):
    path = altered(set_key("loss", "_target_", "lightning.pytorch.loggers.CSVLogger"))
    assert evaluate.main([str(path)]) == 1
    assert "loss._target_=lightning.pytorch.loggers.CSVLogger" in capsys.readouterr().err
