import numpy as np
import pytest
import torch
from photo_files import GARMENT
from PIL import Image

import fmnist_lit
from fmnist_lit.data.images import load_images
from fmnist_lit.data.photos import PhotoError, PhotoWarning
from fmnist_lit.run.checkpoint import load_checkpoint

PIXELS = load_images("synthetic", "", 0).test.pixels[:50]


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
    ids=["tensor", "without channel", "array", "floats", "photos"],
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


def test_photo_that_cannot_be_used_is_named(trained_run, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(PhotoError, match=r"text\.png: not a PNG"):
        fmnist_lit.load_classifier(trained_run).predict([Image.fromarray(GARMENT), tmp_path / "text.png"])


def test_photo_on_grey_is_warned_of_unless_it_is_trimmed_or_its_background_said(trained_run):
    classifier = fmnist_lit.load_classifier(trained_run)
    photo = Image.fromarray(np.pad(255 - GARMENT, 30, constant_values=130))
    with pytest.warns(PhotoWarning, match="neither light nor dark.*trim=True"):
        classifier.predict(photo)
    trimmed, said = classifier.predict(photo, trim=True), classifier.predict(photo, background="white")
    assert len(trimmed) == len(said) == 1
