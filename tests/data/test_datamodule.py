import pytest
import torch
from torchvision.transforms import ToTensor

from fmnist_lit.config import ConfigError
from fmnist_lit.data import FashionMNISTDataModule


def test_split_has_no_overlap_and_loses_nothing(numbered):
    module = numbered()
    train, val = module.train_images.labels.tolist(), module.val_images.labels.tolist()
    assert len(val) == 100
    assert sorted(train + val) == list(range(1000))


def test_split_does_not_depend_on_the_seed(numbered):
    first, second = numbered(seed=0), numbered(seed=1)
    assert torch.equal(first.val_images.labels, second.val_images.labels)
    assert torch.equal(first.train_images.labels, second.train_images.labels)


def test_smaller_train_set_validates_on_the_same_images(numbered):
    whole, part = numbered(), numbered(train_size=50)
    assert torch.equal(part.val_images.labels, whole.val_images.labels)
    assert set(part.train_images.labels.tolist()) < set(whole.train_images.labels.tolist())
    assert len(part.train_images) == 50


def test_smaller_test_set_is_the_first_images(numbered):
    assert numbered(test_size=7).test_images.labels.tolist() == list(range(7))


def test_without_validation_all_images_train(numbered):
    module = numbered(val_size=0)
    assert len(module.train_images) == 1000
    assert module.watched == []


def test_data_folder_may_be_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert FashionMNISTDataModule(data_dir="~/d").data_dir == str(tmp_path / "d")
    with pytest.raises(ConfigError, match=r"data\.data_dir=~nobody-at-all/d: "):
        FashionMNISTDataModule(data_dir="~nobody-at-all/d")


def test_images_are_the_float_bits_of_totensor(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path)
    module = FashionMNISTDataModule("fashion_mnist", tmp_path, shuffle=False, val_size=0)
    module.setup()
    images, labels = next(iter(module.train_dataloader()))
    pixels, expected_labels = tiny_idx.splits["train"]
    expected = torch.stack([ToTensor()(image.numpy()) for image in pixels])
    assert images.dtype == torch.float32
    assert torch.equal(images, expected)
    assert torch.equal(labels, expected_labels)


def test_normalize_gives_the_training_images_mean_0_and_standard_deviation_1(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path)
    module = FashionMNISTDataModule("fashion_mnist", tmp_path, val_size=20, normalize=True)
    module.setup()
    images = torch.cat([images for images, _ in module.train_dataloader()]).double()
    assert images.mean().item() == pytest.approx(0, abs=1e-6)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalize_scales_the_test_images_by_the_training_images(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path)
    module = FashionMNISTDataModule("fashion_mnist", tmp_path, val_size=0, normalize=True)
    module.setup()
    train = tiny_idx.splits["train"][0].double() / 255
    expected = (tiny_idx.splits["test"][0].double() / 255 - train.mean()) / train.std(correction=0)
    images, _ = next(iter(module.test_dataloader()))
    torch.testing.assert_close(images[:, 0].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "watched"),
    [
        ({}, ["val"]),
        ({"evaluate_each_epoch": ["test"]}, ["test"]),
        ({"evaluate_each_epoch": ["val", "test"]}, ["val", "test"]),
        ({"evaluate_each_epoch": ["val", "test"], "val_size": 0}, ["test"]),
        ({"evaluate_each_epoch": []}, []),
    ],
)
def test_evaluated_splits_are_the_asked_for_ones_that_have_images(numbered, options, watched):
    module = numbered(**options)
    assert module.watched == watched
    sizes = {"val": 100, "test": 100}
    loaders = module.val_dataloader()
    assert [sum(len(labels) for _, labels in loader) for loader in loaders] == [sizes[name] for name in watched]


def test_auto_takes_the_real_data_where_it_is_on_disk(tiny_idx, tmp_path):
    tiny_idx.write(tmp_path)
    module = FashionMNISTDataModule("auto", tmp_path, val_size=10)
    module.setup()
    assert module.dataset == "fashion_mnist"
    assert len(module.train_images) == 50


def test_real_data_has_its_published_sizes_and_balance(real_data):
    module = FashionMNISTDataModule("fashion_mnist", real_data)
    module.setup()
    assert [len(x) for x in (module.train_images, module.val_images, module.test_images)] == [55_000, 5_000, 10_000]
    labels = torch.cat([module.train_images.labels, module.val_images.labels])
    assert labels.bincount().tolist() == [6000] * 10
