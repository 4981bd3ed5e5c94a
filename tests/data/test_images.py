import pytest
import torch
from torchvision.transforms import ToTensor

from fmnist_lit.data import FashionMNISTDataModule, synthetic
from fmnist_lit.data.datamodule import SPLIT_SEED
from fmnist_lit.data.images import Scaling, StandIn, load_images
from fmnist_lit.data.synthetic import draw_split


def test_every_pixel_value_is_the_float_bits_of_totensor():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(Scaling()(values)[0], ToTensor()(values[0, 0].numpy()))


def test_real_data_is_taken_where_it_is_on_disk_and_the_stand_in_elsewhere(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path / "data")
    found = load_images("auto", str(tmp_path / "data"), 0)
    name, train, test = found.name, found.train, found.test
    assert (name, len(train), len(test)) == ("fashion_mnist", 60, 20)
    found = load_images("auto", str(tmp_path / "elsewhere"), 0)
    name, train, test = found.name, found.train, found.test
    assert (name, len(train), len(test)) == ("synthetic", 60_000, 10_000)


def test_relative_folder_is_that_of_the_present_working_folder(tiny_idx, tmp_path, monkeypatch):
    tiny_idx.write(tmp_path / "one" / "data")
    (tmp_path / "two").mkdir()
    names = []
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        names.append(load_images("auto", "data", 0).name)
    assert names == ["fashion_mnist", "synthetic"]


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """How many images were drawn each time."""
    counts = []
    draw = synthetic.draw_samples

    def counting(numbers, *arguments):
        counts.append(len(numbers))
        return draw(numbers, *arguments)

    monkeypatch.setattr(synthetic, "draw_samples", counting)
    return counts


def test_stand_in_draws_what_is_asked_for_once(drawn):
    images = StandIn(1000, 5, "train")
    assert len(images) == 1000
    assert drawn == []
    rows = torch.tensor([700, 3, 3, 250])
    some, again, more = images[rows], images[rows], images[torch.tensor([3, 4])]
    assert sum(drawn) == 4 + 1
    whole = draw_split(1000, 5, "train")
    assert torch.equal(some.pixels[:, 0], torch.from_numpy(whole[0])[rows])
    assert torch.equal(some.labels, torch.from_numpy(whole[1])[rows])
    assert torch.equal(again.pixels, some.pixels)
    assert torch.equal(more.pixels[:, 0], torch.from_numpy(whole[0])[3:5])
    assert torch.equal(images.pixels[:, 0], torch.from_numpy(whole[0]))
    assert torch.equal(images.labels, torch.from_numpy(whole[1]))


def test_small_run_on_the_stand_in_draws_no_more_than_it_uses(drawn):
    module = FashionMNISTDataModule("synthetic", train_size=200, val_size=100, test_size=50, synthetic_seed=77)
    module.prepare_data()
    module.setup()
    assert sum(drawn) == 350
    module = FashionMNISTDataModule("synthetic", train_size=200, val_size=100, test_size=60, synthetic_seed=77)
    module.setup()
    assert sum(drawn) == 360


def test_images_of_a_small_run_are_those_of_a_whole_one():
    part = FashionMNISTDataModule("synthetic", train_size=200, val_size=100, test_size=50, synthetic_seed=78)
    part.setup()
    pixels, labels = map(torch.from_numpy, draw_split(10_000, 78, "train"))
    permutation = torch.randperm(60_000, generator=torch.Generator().manual_seed(SPLIT_SEED))
    for images, chosen in ((part.val_images, permutation[:100]), (part.train_images, permutation[100:300])):
        chosen = chosen.sort().values
        early = chosen < len(labels)
        assert early.any()
        assert torch.equal(images.pixels[early, 0], pixels[chosen[early]])
        assert torch.equal(images.labels[early], labels[chosen[early]])


def test_images_are_decoded_once_a_process(tmp_path):
    first = load_images("synthetic", "data", 0).train
    second = load_images("synthetic", str(tmp_path), 0).train
    assert first is second
