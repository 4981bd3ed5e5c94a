import functools
import struct
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import KMNIST, MNIST

from fmnist_lit.config import ConfigError
from fmnist_lit.data.datasets import read_dataset
from fmnist_lit.trained.load import load_trained

Item = namedtuple("Item", "image label")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 28, 28), np.uint8)


@pytest.fixture
def digits(tmp_path):
    """MNIST's and KMNIST's files as torchvision unpacks them, with 60 and 20 images."""
    for kind in ("MNIST", "KMNIST"):
        raw = tmp_path / kind / "raw"
        raw.mkdir(parents=True)
        for prefix, count in (("train", 60), ("t10k", 20)):
            images, labels = RNG.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
                struct.pack(">4i", 2051, count, 28, 28) + images.tobytes()
            )
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return tmp_path


@pytest.mark.parametrize("kind", [MNIST, KMNIST])
def test_torchvisions_classes_are_taken_as_they_are(kind, digits):
    found = read_dataset(functools.partial(kind), str(digits))
    there = kind(str(digits), train=False)
    assert torch.equal(found.test.pixels[:, 0], there.data)
    assert torch.equal(found.test.labels, there.targets)
    assert (found.name, found.classes) == (kind.__name__, tuple(kind.classes))
    one_by_one = read_dataset(functools.partial(kind, transform=lambda image: image), str(digits))  # no shortcut
    assert torch.equal(one_by_one.train.pixels, found.train.pixels)
    assert torch.equal(one_by_one.train.labels, found.train.labels)


@pytest.mark.parametrize("option", ["mnist", "kmnist"])
def test_run_on_them_says_so_everywhere(option, digits, launch_here, capsys):
    small = ("num_threads=1", "trainer.accelerator=cpu", "~callbacks.progress_bar", "data.val_size=10")
    words = (f"data={option}", f"data.data_dir='{digits}'", *small, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert launch_here(*words) == 0
    told = capsys.readouterr().out
    assert f"{option.upper()}: 50 training, 10 validation, 20 test images" in told
    assert f"{option.upper()}, weights of epoch 1" in told
    kind = {"mnist": MNIST, "kmnist": KMNIST}[option]
    assert load_trained("run").classes == tuple(kind.classes)


def test_what_is_not_there_and_cannot_be_downloaded_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConfigError, match=r"MNIST cannot be had from data\.data_dir=.*Error downloading train-images"):
        read_dataset(MNIST, str(tmp_path))


class Listed(Dataset):
    """Six images, three of each of two labels, in whatever form."""

    def __init__(self, split, form):
        self.form = form

    def __len__(self):
        return 6

    def __getitem__(self, number):
        if number >= 6:
            raise IndexError(number)
        return self.form(PIXELS[number], number % 2)


FORMS = {
    "pillow": lambda pixels, label: (Image.fromarray(pixels), label),
    "colour": lambda pixels, label: [Image.fromarray(pixels).convert("RGB"), np.int64(label)],
    "array": lambda pixels, label: (pixels, torch.tensor(label)),
    "channel first": lambda pixels, label: (torch.from_numpy(pixels)[None], label),
    "channel last": lambda pixels, label: (pixels[..., None], label),
    "floats": lambda pixels, label: Item(torch.from_numpy(pixels) / 255, label),
    "doubles": lambda pixels, label: (pixels / 255, np.uint8(label)),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_and_labels_in_any_form_are_the_same(form):
    found = read_dataset(functools.partial(Listed, form=FORMS[form]), "unused")
    assert torch.equal(found.train.pixels[:, 0], torch.from_numpy(PIXELS))
    assert found.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (found.name, found.classes) == ("Listed", ("0", "1"))


def test_it_is_decoded_once_and_again_when_its_class_is_another():
    make = functools.partial(Listed, form=FORMS["array"])
    assert read_dataset(make, "a") is read_dataset(functools.partial(Listed, form=FORMS["array"]), "a")
    other = type("Listed", (Listed,), {"classes": ["cat", "dog"]})
    assert read_dataset(functools.partial(other, form=FORMS["array"]), "a").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda pixels, label: (pixels, float(label)), r"the label of Listed\[0\] is 0\.0, must be a whole number"),
        (lambda pixels, label: (pixels, True), r"the label of Listed\[0\] is True"),
        (lambda pixels, label: (pixels, -1), r"the label of Listed\[0\] is -1"),
        (lambda pixels, label: ("boot.png", label), r"the image of Listed\[0\] is str"),
        (lambda pixels, label: (pixels.astype("int64"), label), r"is torch\.int64 from 0 to 255, must be uint8"),
        (lambda pixels, label: (pixels / np.float32("nan"), label), "must be uint8 or floats from 0 to 1"),
        (lambda pixels, label: {"image": pixels, "label": label}, r"is dict, must be \(image, label\)"),
    ],
)
def test_other_things_are_refused_by_name(form, message):
    with pytest.raises(ConfigError, match=message):
        read_dataset(functools.partial(Listed, form=form), "unused")
