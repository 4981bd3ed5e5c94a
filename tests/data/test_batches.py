import math
from collections.abc import Iterable
from itertools import chain

import pytest
import torch

from fmnist_lit.data.batches import epoch_order
from fmnist_lit.data.images import Images

TRAIN = 1000  # samples of numbered


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


def test_without_shuffling_training_goes_in_file_order(numbered):
    assert samples(numbered(shuffle=False, val_size=0).train_dataloader()) == list(range(TRAIN))
    held_out = numbered(shuffle=False)
    assert samples(held_out.train_dataloader()) == held_out.train_images.labels.tolist()
    assert sorted(held_out.train_images.labels.tolist()) == held_out.train_images.labels.tolist()


def test_with_shuffling_training_follows_the_order_of_the_epoch(numbered):
    module = numbered(val_size=0, seed=5, epoch=2)
    assert samples(module.train_dataloader()) == epoch_order(TRAIN, 5, 2).tolist()


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
def test_evaluation_sees_each_image_once_and_pads_none(numbered, test_size, world_size):
    options = {"num_test": test_size, "eval_batch_size": 700}
    loaders = [numbered(rank, world_size, **options).test_dataloader() for rank in range(world_size)]
    batches = [list(loader) for loader in loaders]
    assert sorted(joined(samples(rank) for rank in batches)) == list(range(test_size))
    assert {len(rank) for rank in batches} == {len(loaders[0])}
    assert max(len(labels) for rank in batches for _, labels in rank) <= 700


@pytest.mark.parametrize("steps_per_batch", [1, 3, 50])
@pytest.mark.parametrize("batches_done", [1, 5, 6, 57])
def test_resumed_epoch_yields_the_rest_only(numbered, steps_per_batch, batches_done):
    module = numbered(steps_per_batch=steps_per_batch)
    whole = [labels.tolist() for _, labels in module.train_dataloader()]
    loader = module.train_dataloader()
    loader.load_state_dict({"batches": batches_done})
    rest = [labels.tolist() for _, labels in loader]
    assert joined(rest) == joined(whole)[batches_done * 16 :]
    assert len(rest) == len(whole) - loader.chunks_before(batches_done)


def test_epoch_after_the_resumed_one_is_whole(numbered):
    loader = numbered().train_dataloader()
    loader.load_state_dict({"batches": 5})
    assert len(samples(loader)) == 900 - 5 * 16
    assert len(samples(loader)) == 900


@pytest.fixture
def augmented(serving):
    """What an augmenting datamodule serves of images of noise, by the samples' numbers."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(1, 256, (TRAIN, 1, 28, 28), dtype=torch.uint8, generator=generator)
    images = Images(noise, torch.arange(TRAIN))

    def serve(batches_done: int = 0, **options) -> dict[int, torch.Tensor]:
        options = {"val_size": 0, "augmentation": {"flip": True, "shift": 1}, **options}
        loader = serving(images, images[:100], **options).train_dataloader()
        loader.load_state_dict({"batches": batches_done})
        return {int(y): x for chunk in loader for x, y in zip(*chunk, strict=True)}

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
