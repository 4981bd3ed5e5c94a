import math
from collections.abc import Iterable
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms import ToTensor

from fmnist_lit import data
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.batches import epoch_order
from fmnist_lit.data.images import Images, Scaling

TRAIN, TEST = 1000, 100


def trainer(rank: int, world_size: int, epoch: int) -> SimpleNamespace:
    """What a datamodule asks of a Trainer."""
    return SimpleNamespace(
        world_size=world_size,
        global_rank=rank,
        current_epoch=epoch,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )


@pytest.fixture
def numbered(monkeypatch):
    """A datamodule whose labels are the samples' numbers, so that each can be told from all others."""

    def images(count: int) -> Images:
        return Images(torch.zeros(count, 1, 28, 28, dtype=torch.uint8), torch.arange(count))

    monkeypatch.setattr(data, "load_images", lambda *_: ("synthetic", images(TRAIN), images(TEST)))

    def make(rank: int = 0, world_size: int = 1, epoch: int = 0, **options) -> FashionMNISTDataModule:
        module = FashionMNISTDataModule(**{"source": "synthetic", "val_size": 100, "batch_size": 16, **options})
        module.trainer = trainer(rank, world_size, epoch)
        module.setup()
        return module

    return make


def samples(batches) -> list[int]:
    return torch.cat([labels for _, labels in batches]).tolist()


def joined(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def batches_of(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def test_order_of_an_epoch_is_a_permutation():
    order = epoch_order(1000, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != list(range(1000))


def test_order_of_an_epoch_depends_on_nothing_but_seed_and_epoch():
    torch.manual_seed(1)
    first = epoch_order(1000, seed=7, epoch=3)
    torch.manual_seed(2)
    torch.rand(5)
    assert torch.equal(epoch_order(1000, seed=7, epoch=3), first)


@pytest.mark.parametrize(("seed", "epoch"), [(7, 4), (8, 3), (3, 7)])
def test_order_differs_between_seeds_and_between_epochs(seed, epoch):
    assert not torch.equal(epoch_order(1000, 7, 3), epoch_order(1000, seed, epoch))


def test_first_places_of_the_orders_are_spread_over_the_samples():
    firsts = {int(epoch_order(60_000, 0, epoch)[0]) // 6000 for epoch in range(60)}
    assert len(firsts) >= 8


def test_order_is_the_same_on_every_machine():
    assert epoch_order(10, seed=0, epoch=0).tolist() == [7, 0, 9, 2, 1, 3, 8, 4, 6, 5]


def test_shuffling_leaves_the_global_generator_alone(numbered):
    module = numbered(shuffle=True)
    before = torch.get_rng_state()
    samples(module.train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_split_has_no_overlap_and_loses_nothing(numbered):
    module = numbered()
    train, val = module.train_images.labels.tolist(), module.val_images.labels.tolist()
    assert len(val) == 100
    assert sorted(train + val) == list(range(TRAIN))


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
    assert len(module.train_images) == TRAIN
    assert module.watched == []


def test_without_shuffling_training_goes_in_file_order(numbered):
    assert samples(numbered(shuffle=False, val_size=0).train_dataloader()) == list(range(TRAIN))
    held_out = numbered(shuffle=False)
    assert samples(held_out.train_dataloader()) == held_out.train_images.labels.tolist()
    assert sorted(held_out.train_images.labels.tolist()) == held_out.train_images.labels.tolist()


def test_with_shuffling_training_follows_the_order_of_the_epoch(numbered):
    module = numbered(val_size=0, seed=5, epoch=2)
    assert samples(module.train_dataloader()) == epoch_order(TRAIN, 5, 2).tolist()


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


def test_every_pixel_value_is_the_float_bits_of_totensor():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(Scaling()(values)[0], ToTensor()(values[0, 0].numpy()))


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


def test_serving_batches_leaves_the_images_as_they_are(numbered):
    module = numbered(normalize=False, shuffle=False)
    for images, _ in module.train_dataloader():
        images += 1
    assert not module.train_images.pixels.any()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("steps_per_batch", [2, 7, 1000])
def test_chunks_hold_the_rows_of_the_batches_on_end(numbered, shuffle, steps_per_batch):
    single = samples(numbered(shuffle=shuffle, steps_per_batch=1).train_dataloader())
    loader = numbered(shuffle=shuffle, steps_per_batch=steps_per_batch).train_dataloader()
    chunks = [labels.tolist() for _, labels in loader]
    assert joined(chunks) == single
    assert len(chunks) == len(loader) == math.ceil(math.ceil(900 / 16) / steps_per_batch)
    assert {len(chunk) for chunk in chunks[:-1]} <= {16 * steps_per_batch}


def test_chunk_also_ends_after_every_break(numbered):
    module = numbered(train_size=320, steps_per_batch=8, break_every=5)  # 20 batches
    lengths = [len(labels) // 16 for _, labels in module.train_dataloader()]
    assert lengths == [5, 3, 2, 5, 1, 4]


def test_short_last_batch_is_kept(numbered):
    module = numbered(train_size=50)
    assert module.batches_per_epoch == 4
    assert [len(labels) for _, labels in module.train_dataloader()] == [16, 16, 16, 2]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("steps_per_batch", [1, 4])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_each_batch_so_that_every_sample_is_seen_once(numbered, world_size, steps_per_batch, shuffle):
    options = {"world_size": world_size, "steps_per_batch": steps_per_batch, "shuffle": shuffle, "val_size": 0}
    loaders = [numbered(rank=rank, **options).train_dataloader() for rank in range(world_size)]
    shares = [samples(loader) for loader in loaders]
    assert sorted(joined(shares)) == list(range(TRAIN))
    assert len({len(loader) for loader in loaders}) == 1
    order = epoch_order(TRAIN, 0, 0).tolist() if shuffle else list(range(TRAIN))
    whole_batches = TRAIN // (16 * world_size)
    seen = [batches_of(share, 16)[:whole_batches] for share in shares]
    for batch, *parts in zip(batches_of(order, 16 * world_size), *seen, strict=False):
        assert joined(parts) == batch


def test_ranks_take_equally_many_batches_when_the_last_is_too_short_to_share(numbered):
    loaders = [numbered(rank, 3, train_size=16 * 3 * 4 + 2).train_dataloader() for rank in range(3)]
    assert [[len(labels) for _, labels in loader] for loader in loaders] == [[16] * 4] * 3


@pytest.mark.parametrize(("test_size", "world_size"), [(10_000, 3), (10_000, 1), (100, 7), (2, 3)])
def test_evaluation_sees_each_image_once_and_pads_none(monkeypatch, numbered, test_size, world_size):
    monkeypatch.setattr(f"{__name__}.TEST", test_size)
    loaders = [numbered(rank, world_size, eval_batch_size=700).test_dataloader() for rank in range(world_size)]
    batches = [list(loader) for loader in loaders]
    assert sorted(joined(samples(rank) for rank in batches)) == list(range(test_size))
    assert {len(rank) for rank in batches} == {len(loaders[0])}
    assert max(len(labels) for rank in batches for _, labels in rank) <= 700


@pytest.mark.parametrize("steps_per_batch", [1, 3, 50])
@pytest.mark.parametrize("batches_done", [1, 5, 6, 57])
def test_resumed_epoch_yields_the_rest_only_in_as_many_chunks(numbered, steps_per_batch, batches_done):
    module = numbered(steps_per_batch=steps_per_batch)
    whole = [labels.tolist() for _, labels in module.train_dataloader()]
    module.batches_done = batches_done
    rest = [labels.tolist() for _, labels in module.train_dataloader()]
    assert joined(rest) == joined(whole)[batches_done * 16 :]
    assert len(rest) == len(whole)


def test_epoch_after_the_resumed_one_is_whole(numbered):
    module = numbered()
    module.batches_done = 5
    samples(module.train_dataloader())
    assert len(samples(module.train_dataloader())) == 900


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
    sizes = {"val": 100, "test": TEST}
    loaders = module.val_dataloader()
    assert [len(samples(loader)) for loader in loaders] == [sizes[name] for name in watched]


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


@pytest.fixture
def augmented(monkeypatch):
    """A datamodule whose images are noise, labelled by their numbers; and what it serves, by number."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(1, 256, (TRAIN, 1, 28, 28), dtype=torch.uint8, generator=generator)
    images = Images(noise, torch.arange(TRAIN))
    monkeypatch.setattr(data, "load_images", lambda *_: ("synthetic", images, images[:TEST]))

    def serve(epoch: int = 0, rank: int = 0, world_size: int = 1, batches_done: int = 0, **options) -> dict:
        module = FashionMNISTDataModule(
            **{"source": "synthetic", "val_size": 0, "augmentation": {"flip": True, "shift": 1}, **options}
        )
        module.trainer = trainer(rank, world_size, epoch)
        module.setup()
        module.batches_done = batches_done
        batches = list(module.train_dataloader())
        return {int(y): x for chunk in batches for x, y in zip(*chunk, strict=True)}

    return serve


def test_augmentation_of_an_image_depends_on_seed_epoch_and_image_alone(augmented):
    served = augmented(epoch=3, seed=5)
    assert len(served) == TRAIN
    for other in (
        augmented(epoch=3, seed=5, batch_size=7),
        augmented(epoch=3, seed=5, steps_per_batch=9, break_every=4),
        augmented(epoch=3, seed=5, shuffle=False),
        augmented(epoch=3, seed=5, batches_done=5),
        augmented(epoch=3, seed=5, rank=1, world_size=3),
    ):
        assert len(other) > TRAIN // 4
        assert all(torch.equal(image, served[number]) for number, image in other.items())


@pytest.mark.parametrize(("epoch", "seed"), [(4, 5), (3, 6)])
def test_augmentation_differs_between_epochs_and_between_seeds(augmented, epoch, seed):
    first, second = augmented(epoch=3, seed=5), augmented(epoch=epoch, seed=seed)
    assert sum(torch.equal(image, second[number]) for number, image in first.items()) < TRAIN / 8
