import pytest
import torch

from fmnist_lit.data.augmentation import Augmentation, Draws
from fmnist_lit.data.batches import epoch_generator

CPU = torch.device("cpu")


def numbered_images(count: int) -> torch.Tensor:
    """No two pixels of an image alike, none of them black."""
    return torch.randperm(count * 784, generator=torch.Generator().manual_seed(0)).view(count, 1, 28, 28) + 1


def draws(flipped: list[bool], offsets: list[list[int]]) -> Draws:
    return Draws(torch.tensor(flipped), torch.tensor(offsets))


def test_flip_mirrors_left_and_right_where_it_was_drawn():
    images = numbered_images(3)
    flipped = Augmentation(flip=True).apply(images, draws([True, False, True], [[0, 0]] * 3))
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flipped[0, 0], images[0, 0].fliplr())
    assert torch.equal(flipped[2, 0], images[2, 0].fliplr())


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-2, 2), (1, 0)])
def test_shift_moves_an_image_and_black_moves_in(down, right):
    image = numbered_images(1)
    shifted = Augmentation(shift=2).apply(image, draws([False], [[2 - down, 2 - right]]))[0, 0]
    for row in range(28):
        for column in range(28):
            inside = 0 <= row - down < 28 and 0 <= column - right < 28
            assert shifted[row, column] == (image[0, 0, row - down, column - right] if inside else 0)


def test_images_are_left_as_they_are():
    images = numbered_images(8)
    before = images.clone()
    augmentation = Augmentation(flip=True, shift=1)
    augmented = augmentation.apply(images, augmentation.draw(8, epoch_generator(0, 0, 1), CPU))
    assert torch.equal(images, before)
    assert not torch.equal(augmented, before)


def test_every_shift_and_half_of_the_flips_are_drawn():
    drawn = Augmentation(flip=True, shift=1).draw(9000, epoch_generator(0, 0, 1), CPU)
    assert drawn.flipped.float().mean() == pytest.approx(0.5, abs=0.02)
    counts = torch.bincount(drawn.offsets[:, 0] * 3 + drawn.offsets[:, 1], minlength=9)
    assert counts.tolist() == pytest.approx([1000] * 9, rel=0.12)


@pytest.mark.parametrize(("options", "anything"), [({}, False), ({"flip": True}, True), ({"shift": 1}, True)])
def test_augmentation_is_true_if_it_does_anything(options, anything):
    assert bool(Augmentation(**options)) is anything
