import copy
import functools
import io
import itertools
import math
import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from interruptions import HARDEST, RUN, is_right
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import REQUIRED_KEYS, TOP_LEVEL_KEYS, check_configuration
from fmnist_lit.config.rules import RULES
from fmnist_lit.config.tree import flatten
from fmnist_lit.config.trust import TRUSTED_TARGETS
from fmnist_lit.data import FashionMNISTDataModule, fashion_mnist
from fmnist_lit.data import datamodule as data
from fmnist_lit.data.batches import epoch_order
from fmnist_lit.data.images import CLASSES, DataSet, Images
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.run.resume import GROUPS_THAT_MAY_CHANGE, LIMITS, MAY_CHANGE, require_same

# The same examples each time; the fixtures used hold nothing that one example could leave to the next
settings.register_profile(
    "fmnist_lit",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fmnist_lit")

SEEDS = st.integers(0, 2**32 - 1)


class Held(SimpleNamespace):
    """What a fixture hands to many examples; hypothesis would print all of it for each that fails."""

    def __repr__(self) -> str:
        return "…"


def error_of(work: Callable[[], Any], *expected: type[Exception]) -> tuple[Any, str | None]:
    """What ``work`` returns, or the message of the error it may raise."""
    try:
        return work(), None
    except expected as error:
        return None, str(error)


# Orders, splits and chunks


@given(num_samples=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 10_000))
def test_order_is_a_permutation_that_seed_and_epoch_decide(num_samples, seed, epoch):
    state = torch.get_rng_state()
    order = epoch_order(num_samples, seed, epoch)
    assert order.sort().values.equal(torch.arange(num_samples))
    assert torch.equal(order, epoch_order(num_samples, seed, epoch))
    assert torch.equal(state, torch.get_rng_state())
    if num_samples >= 100:
        assert not torch.equal(order, epoch_order(num_samples, seed, epoch + 1))
        assert not torch.equal(order, epoch_order(num_samples, (seed + 1) % 2**32, epoch))


def datamodule(
    num_images: int, rank: int = 0, world_size: int = 1, epoch: int = 0, **options
) -> FashionMNISTDataModule:
    """Images whose labels are their numbers, and whose first two pixels are too."""

    def images(count: int) -> Images:
        pixels = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
        numbers = torch.arange(count)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = numbers % 256, numbers // 256
        return Images(pixels, numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_images", lambda *_: DataSet("synthetic", CLASSES, images(num_images), images(40)))
        module = FashionMNISTDataModule(source="synthetic", **options)
        device = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, current_epoch=epoch, strategy=device)
        module.setup()
    return module


@given(drawn=st.data(), num_images=st.integers(2, 400), seed=SEEDS)
def test_splits_are_disjoint_and_complete_and_no_seed_moves_them(drawn, num_images, seed):
    val_size = drawn.draw(st.integers(0, num_images - 1), "val_size")
    train_size = drawn.draw(st.none() | st.integers(1, num_images - val_size), "train_size")
    module = datamodule(num_images, val_size=val_size, train_size=train_size, seed=seed)
    train, val = module.train_images.labels.tolist(), module.val_images.labels.tolist()
    assert len(val) == val_size
    assert len(train) == (num_images - val_size if train_size is None else train_size)
    assert len({*train, *val}) == len(train) + len(val)
    assert {*train, *val} <= set(range(num_images))
    for images in (module.train_images, module.val_images):
        pixels = images.pixels[:, 0, 0, 0].long() + 256 * images.pixels[:, 0, 0, 1].long()
        assert torch.equal(pixels, images.labels)
    other = datamodule(num_images, val_size=val_size, train_size=train_size, seed=seed ^ 1)
    assert other.val_images.labels.tolist() == val
    assert other.train_images.labels.tolist() == train


def joined(parts: list[torch.Tensor]) -> list[int]:
    return [row for part in parts for row in part.tolist()]


@given(
    num_images=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    steps_per_batch=st.integers(1, 12),
    break_every=st.none() | st.integers(1, 12),
    shuffle=st.booleans(),
    epoch=st.integers(0, 5),
    drawn=st.data(),
)
def test_chunks_partition_the_epoch_however_it_is_cut(
    num_images, batch_size, world_size, steps_per_batch, break_every, shuffle, epoch, drawn
):
    """Each rank takes as many batches; together they see each image once, but for a last few that cannot be shared."""
    options = {
        "batch_size": batch_size,
        "val_size": 0,
        "shuffle": shuffle,
        "steps_per_batch": steps_per_batch,
        "break_every": break_every,
        "seed": 7,
    }
    modules = [datamodule(num_images, rank, world_size, epoch, **options) for rank in range(world_size)]
    num_batches = modules[0].batches_per_epoch
    done = drawn.draw(st.integers(0, num_batches), "batches done before")
    chunk_lengths, seen = set(), []
    for module in modules:
        whole = [labels for _, labels in module.train_dataloader()]
        assert len(whole) == len(module.train_dataloader())
        batches = [batch for chunk in whole for batch in chunk.split(batch_size)]
        assert len(batches) == num_batches
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(len(batch) > 0 for batch in batches)
        ends = torch.tensor([len(chunk.split(batch_size)) for chunk in whole]).cumsum(0).tolist()
        assert all(stop - start <= steps_per_batch for start, stop in pairwise([0, *ends]))
        if break_every is not None:
            assert set(range(break_every, num_batches, break_every)) <= set(ends)
        loader = module.train_dataloader()
        loader.load_state_dict({"batches": done})
        rest = [labels for _, labels in loader]
        assert len(rest) == len(whole) - loader.chunks_before(done)
        assert joined([*batches[:done], *rest]) == joined(whole)
        chunk_lengths.add(len(whole))
        seen += joined(whole)
    assert len(chunk_lengths) == 1
    assert len(set(seen)) == len(seen)
    assert num_images - len(seen) < world_size


# Configurations


@pytest.fixture(scope="module")
def shipped() -> DictConfig:
    import hydra

    from fmnist_lit.command_line.compose import CONF

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", ["data=synthetic", "run_dir=run", "optimizer=muon", "scheduler=one_cycle"])


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["${seed}", "${nothing}", "${oc.env:HOME}", "${", "???", "${oc.decode:'[1'}", "1e400", "nan"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = st.sampled_from(sorted({*RULES, *TOP_LEVEL_KEYS, *REQUIRED_KEYS, "optimizer.x", "x.y"}))


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
def test_no_value_of_any_key_makes_the_check_do_anything_but_accept_or_explain(shipped, changes):
    cfg = OmegaConf.create(OmegaConf.to_container(shipped, resolve=False))
    try:
        for key, value in changes:
            OmegaConf.update(cfg, key, value, force_add=True)
    except Exception:  # not a configuration that could be composed
        return
    _, message = error_of(lambda: check_configuration(cfg), ConfigError)
    if message is not None:
        assert message.strip()
        return
    for key, value in flatten(OmegaConf.to_container(cfg, resolve=True)).items():
        if isinstance(value, float):
            assert math.isfinite(value), key
        if key in RULES:
            assert RULES[key].check(value), key
        assert not key.endswith("_target_") or TRUSTED_TARGETS.fullmatch(value)


def may_change(key: str) -> bool:
    """Whether a resumed run of ``shipped``, whose schedule is laid out for its length, may have another value."""
    group = key.split(".")[0]
    return group in GROUPS_THAT_MAY_CHANGE or (key in MAY_CHANGE and key not in LIMITS)


@given(key=KEYS, value=LEAVES)
def test_resuming_refuses_every_change_but_of_the_keys_that_may(shipped, key, value):
    earlier = OmegaConf.to_container(shipped, resolve=False)
    before = flatten(earlier)
    assume(key in before)
    now = copy.deepcopy(earlier)
    parent = functools.reduce(dict.__getitem__, key.split(".")[:-1], now)
    parent[key.split(".")[-1]] = value
    _, message = error_of(lambda: require_same(earlier, now, "there"), ConfigError)
    if before[key] == value or may_change(key):
        assert message is None
    else:
        assert f"{key}={value}: " in message
        assert str(before[key]) in message


# Damage


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Held:
    """A checkpoint of a run, small, in mid-epoch."""
    import hydra

    from fmnist_lit.command_line.compose import CONF

    folder = tmp_path_factory.mktemp("run")
    small = ("data=synthetic", "data.train_size=256", "data.val_size=64", "data.test_size=128", "num_threads=1")
    small += ("model.hidden_sizes=[2]", "trainer.accelerator=cpu", "logger=csv", "~callbacks.progress_bar")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*small, *RUN, *HARDEST, "trainer.max_steps=5", f"run_dir='{folder}'"]
        run_job(hydra.compose("config", overrides))
    path = folder / "checkpoints" / "last.ckpt"
    return Held(content=path.read_bytes(), value=load_checkpoint(path), scratch=folder / "damaged.ckpt")


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def assert_refused_or_harmless(checkpoint: Held, content: bytes) -> None:
    checkpoint.scratch.write_bytes(content)
    loaded, message = error_of(lambda: load_checkpoint(checkpoint.scratch), CheckpointError)
    if message is None:
        good = same(loaded, checkpoint.value)
        assert good, "damage was loaded as if it were good"
    else:
        assert "damaged.ckpt" in message
        assert len(message.splitlines()) == 1


@settings(max_examples=400)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_flipped_bits_in_a_checkpoint_are_noticed_or_change_nothing(checkpoint, place, mask):
    content = bytearray(checkpoint.content)
    content[int(place * len(content))] ^= mask
    assert_refused_or_harmless(checkpoint, content)


def test_flipped_bit_in_the_directory_of_a_checkpoint_is_noticed_or_changes_nothing(checkpoint):
    """The archive's directory says how to read what has a checksum, and has none itself."""
    entries = [match.start() for match in re.finditer(rb"PK\x01\x02", checkpoint.content)]
    assert len(entries) > 6
    for place, bit in itertools.product(range(46), range(8)):  # of what each entry begins with
        for entry in entries[::6]:
            content = bytearray(checkpoint.content)
            content[entry + place] ^= 1 << bit
            assert_refused_or_harmless(checkpoint, content)


@settings(max_examples=100)
@given(seed=SEEDS, size=st.integers(1, 600))
def test_garbage_within_a_checkpoint_is_noticed(checkpoint, seed, size):
    """A block of the disk that was never written, or is another file's."""
    content = bytearray(checkpoint.content)
    start = random.Random(seed).randrange(len(content) - size)
    content[start : start + size] = bytes(size) if seed % 2 else random.Random(seed).randbytes(size)
    assert_refused_or_harmless(checkpoint, content)


@settings(max_examples=100)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_truncated_checkpoint_is_noticed(checkpoint, kept):
    checkpoint.scratch.write_bytes(checkpoint.content[: int(kept * len(checkpoint.content))])
    with pytest.raises(CheckpointError, match=r"damaged\.ckpt"):
        load_checkpoint(checkpoint.scratch)


def test_flipped_bit_in_each_tensor_is_noticed(checkpoint):
    """Torch alone takes it for good, whatever the checksum in the file says."""
    passed = []
    for name, weight in checkpoint.value["state_dict"].items():
        at = checkpoint.content.find(weight.numpy().tobytes())
        content = bytearray(checkpoint.content)
        content[at] ^= 1
        checkpoint.scratch.write_bytes(content)
        try:
            load_checkpoint(checkpoint.scratch)
            passed.append(name)
        except CheckpointError:
            pass
    assert passed == []


@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_checkpoint(checkpoint, content):
    checkpoint.scratch.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint.scratch)


@given(value=st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=6))
def test_value_that_is_no_checkpoint_is_not_taken_for_one(checkpoint, value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    checkpoint.scratch.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint.scratch)


@pytest.fixture
def tiny(tiny_idx, tmp_path) -> Held:
    """The tiny data, and fresh roots of it, one for each example."""
    count = itertools.count()
    return Held(**vars(tiny_idx), root=lambda: tmp_path / f"data{next(count)}")


@settings(max_examples=60)
@given(drawn=st.data(), unpacked=st.booleans(), both=st.booleans(), how=st.sampled_from(["flip", "cut", "grow"]))
def test_damaged_data_is_repaired_or_refused_and_never_loaded(tiny, drawn, unpacked, both, how):
    root = tiny.root()
    raw = tiny.write(root, unpacked)
    if both:
        tiny.write(root, not unpacked)
    names = sorted(tiny.files if unpacked else tiny.archives)
    for name in drawn.draw(st.sets(st.sampled_from(names), min_size=1), "damaged"):
        content = bytearray((raw / name).read_bytes())
        place = drawn.draw(st.integers(0, len(content) - 1), "place")
        if how == "flip":
            content[place] ^= drawn.draw(st.integers(1, 255), "mask")
        elif how == "cut":
            del content[place:]
        else:
            content += os.urandom(1 + place % 50)
        (raw / name).write_bytes(content)
    loaded, message = error_of(
        lambda: fashion_mnist.load_fashion_mnist(root), fashion_mnist.DataDamagedError, fashion_mnist.DataMissingError
    )
    if message is None:
        assert both  # there was a good copy
        assert is_right(loaded, tiny.splits)
        assert fashion_mnist.find_damage(raw) == {}
    else:
        assert not both
        assert "put " in message
        assert str(raw) in message
    assert not [name for name in os.listdir(root) if name.startswith(".fashion_mnist-")]


@settings(max_examples=30)
@given(missing=st.sets(st.integers(0, 3)), kept_unpacked=st.sets(st.integers(0, 3)))
def test_missing_files_are_made_from_what_there_is_or_asked_for(tiny, missing, kept_unpacked):
    root = tiny.root()
    raw = tiny.write(root)
    tiny.write(root, True)
    names = sorted(tiny.archives)
    for index, name in enumerate(names):
        if index in missing:
            (raw / name).unlink()
        if index not in kept_unpacked:
            (raw / name.removesuffix(".gz")).unlink()
    loaded, message = error_of(lambda: fashion_mnist.load_fashion_mnist(root), fashion_mnist.DataMissingError)
    needed = [names[index] for index in missing - kept_unpacked]
    if message is None:
        assert not needed
        assert is_right(loaded, tiny.splits)
    else:
        assert needed
        assert all(name in message for name in needed)
