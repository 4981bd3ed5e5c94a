"""What the projector shows: the last hidden layer, of the weights that were tested, also of a run that goes on."""

import csv

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from interruptions import signal_at
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import nn

from fmnist_lit import load_classifier
from fmnist_lit.command_line.job import run_job
from fmnist_lit.dashboard.projector import last_hidden
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.model import CNN

RUN = ("logger=tensorboard", "callbacks=[default,dashboard]", "callbacks.projector.num_images=50", "optimizer=adam")


@pytest.mark.parametrize("tutorial", [False, True])
def test_projector_has_what_the_last_layer_is_given_before_and_after_training(configure, tmp_path, tutorial):
    overrides = [*RUN, "experiment=tutorial", "data.val_size=0"] if tutorial else RUN
    with signal_at(3), pytest.raises(SystemExit):
        run_job(configure(*overrides))
    run, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = (run / "projector" / "before_training.tsv").read_bytes()
    run_job(configure(*overrides, f"ckpt_path='{last}'"))
    config = text_format.Parse((run / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [each.tensor_name for each in config.embeddings] == ["after_training", "before_training"]
    assert (run / config.embeddings[1].tensor_path).read_bytes() == before
    after = config.embeddings[0]
    points = np.loadtxt(run / after.tensor_path)
    assert points.shape == (50, 32)
    data = FashionMNISTDataModule("synthetic", test_size=50)
    data.setup()
    trained = load_classifier(run)
    with torch.no_grad():
        hidden = nn.Sequential(*list(trained.model)[:-1])(data.scale(data.test_images.pixels))
    assert points == pytest.approx(hidden.numpy(), rel=0.006, abs=1e-6)
    with open(run / after.metadata_path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["class"] for row in rows] == [data.classes[label] for label in data.test_images.labels]
    assert [row["taken for"] for row in rows] == trained.predict(data.test_images.pixels).labels
    image = np.asarray(Image.open(run / after.sprite.image_path))
    assert image.shape == (8 * 28, 8 * 28)
    assert np.array_equal(image[28:56, :28], data.test_images.pixels[8, 0].numpy())


def test_any_model_with_weights_has_a_last_layer():
    model, images = CNN(), torch.rand(3, 1, 28, 28)
    hidden, logits = last_hidden(model, images)
    assert (hidden.shape, logits.shape) == ((3, 128), (3, 10))
    assert model.training
    assert last_hidden(nn.Flatten(), images)[0] is None
