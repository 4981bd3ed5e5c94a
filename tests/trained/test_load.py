import os
import subprocess
import sys

import pytest
import torch

import fmnist_lit
from fmnist_lit import predict
from fmnist_lit.data.images import Scaling
from fmnist_lit.evaluate import __main__ as evaluate
from fmnist_lit.export import __main__ as export
from fmnist_lit.run.checkpoint import CheckpointError


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, fmnist_lit as f; f.load_classifier, f.NoSuchRunError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_can_be_caught_by_the_names_of_the_package(altered, tmp_path):
    with pytest.raises(fmnist_lit.NoSuchRunError):
        fmnist_lit.load_classifier(tmp_path / "nowhere")
    with pytest.raises(fmnist_lit.CheckpointError):
        fmnist_lit.load_classifier(altered(lambda content: content["hyper_parameters"].clear()))
    with pytest.raises(AttributeError, match="no attribute 'CheckpointErr'"):
        _ = fmnist_lit.CheckpointErr


def test_loading_draws_nothing_from_the_global_generator(trained_run):
    before = torch.get_rng_state()
    fmnist_lit.load_classifier(trained_run)
    assert torch.equal(torch.get_rng_state(), before)


def test_scaling_is_that_of_the_training_images(trained_run):
    assert fmnist_lit.load_classifier(trained_run).scaling != Scaling()


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
