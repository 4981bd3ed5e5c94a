import torch
from torchvision.transforms import ToTensor

from fmnist_lit.data.images import Scaling, load_images


def test_every_pixel_value_is_the_float_bits_of_totensor():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(Scaling()(values)[0], ToTensor()(values[0, 0].numpy()))


def test_real_data_is_taken_where_it_is_on_disk_and_the_stand_in_elsewhere(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path / "data")
    name, train, test = load_images("auto", str(tmp_path / "data"), 0)
    assert (name, len(train), len(test)) == ("fashion_mnist", 60, 20)
    name, train, test = load_images("auto", str(tmp_path / "elsewhere"), 0)
    assert (name, len(train), len(test)) == ("synthetic", 60_000, 10_000)


def test_images_are_decoded_once_a_process(tmp_path):
    _, first, _ = load_images("synthetic", "data", 0)
    _, second, _ = load_images("synthetic", str(tmp_path), 0)
    assert first is second
