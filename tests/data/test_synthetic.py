import numpy as np
import pytest

from fmnist_lit.data.synthetic import BLOCK_SIZE, draw_samples, draw_split


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    return draw_split(3 * BLOCK_SIZE, 0, "train")


def test_images_are_28_by_28_bytes_with_class_indices(drawn):
    images, labels = drawn
    assert images.shape == (3 * BLOCK_SIZE, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (3 * BLOCK_SIZE,)
    assert labels.dtype == np.int64


def test_labels_are_balanced(drawn):
    assert np.bincount(drawn[1], minlength=10).tolist() == [3 * BLOCK_SIZE // 10] * 10


def test_labels_come_in_no_regular_order(drawn):
    assert not np.array_equal(drawn[1][:BLOCK_SIZE], drawn[1][BLOCK_SIZE : 2 * BLOCK_SIZE])
    assert np.count_nonzero(np.diff(drawn[1])) > BLOCK_SIZE


def test_drawing_is_deterministic(drawn):
    again = draw_split(3 * BLOCK_SIZE, 0, "train")
    assert np.array_equal(again[0], drawn[0])
    assert np.array_equal(again[1], drawn[1])


@pytest.mark.parametrize("num_samples", [1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1])
def test_fewer_samples_are_the_first_of_more(drawn, num_samples):
    images, labels = draw_split(num_samples, 0, "train")
    assert np.array_equal(images, drawn[0][:num_samples])
    assert np.array_equal(labels, drawn[1][:num_samples])


def test_each_sample_alone_is_the_bits_that_it_is_among_all(drawn):
    for number in range(0, 3 * BLOCK_SIZE, 7):
        images, labels = draw_samples(np.array([number]), 0, "train")
        assert np.array_equal(images[0], drawn[0][number])
        assert labels.tolist() == [drawn[1][number]]


@pytest.mark.parametrize("num_samples", [0, 2, 9, 100, 3 * BLOCK_SIZE - 1])
def test_chosen_samples_are_the_bits_that_they_are_among_all(drawn, num_samples):
    numbers = np.sort(np.random.default_rng(num_samples).permutation(3 * BLOCK_SIZE)[:num_samples])
    images, labels = draw_samples(numbers, 0, "train")
    assert np.array_equal(images, drawn[0][numbers])
    assert np.array_equal(labels, drawn[1][numbers])


@pytest.mark.parametrize(("seed", "split"), [(1, "train"), (0, "test")])
def test_other_seeds_and_splits_have_other_images(drawn, seed, split):
    images, _ = draw_split(BLOCK_SIZE, seed, split)
    assert (images != drawn[0][:BLOCK_SIZE]).any(axis=(1, 2)).all()


def test_no_image_is_drawn_twice(drawn):
    assert len(np.unique(drawn[0].reshape(len(drawn[0]), -1), axis=0)) == len(drawn[0])


@pytest.mark.parametrize("label", range(10))
def test_each_class_is_a_light_garment_on_black(drawn, label):
    images = drawn[0][drawn[1] == label]
    empty = (images == 0).mean(axis=(1, 2))
    assert ((empty > 0.05) & (empty < 0.95)).all()
    assert images.max(axis=(1, 2)).min() > 40


def test_global_generator_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw_split(10, 0, "train")
    assert np.array_equal(np.random.get_state()[1], before)
