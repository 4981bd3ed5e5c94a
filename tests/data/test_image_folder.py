import numpy as np
import pytest
from PIL import Image

from fmnist_lit.config import ConfigError
from fmnist_lit.data.image_folder import ImageFolder
from fmnist_lit.trained.load import load_trained


def draw(folder, count, height):
    """Pictures of a bar of some height, which tells the classes apart, as files in a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.zeros((60, 50, 3), np.uint8)
        pixels[10 : 10 + height, 10:40] = 120 + number
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")


@pytest.fixture
def pictures(tmp_path):
    draw(tmp_path / "pictures" / "flat", 10, 8)
    draw(tmp_path / "pictures" / "tall", 15, 40)
    return tmp_path / "pictures"


def test_a_share_of_each_class_tests_always_the_same(pictures):
    train, test = (ImageFolder(str(pictures), train=split, background="black") for split in (True, False))
    assert train.classes == ["flat", "tall"]
    assert [train.labels.count(label) for label in (0, 1)] == [8, 12]
    assert [test.labels.count(label) for label in (0, 1)] == [2, 3]
    assert {image.shape for image in train.images} == {(28, 28)}
    bytes_of = [{image.tobytes() for image in part.images} for part in (train, test)]
    assert not bytes_of[0] & bytes_of[1]
    assert len(bytes_of[0] | bytes_of[1]) == 25
    again = ImageFolder(str(pictures), train=False, background="black")
    assert all(np.array_equal(a, b) for a, b in zip(test.images, again.images, strict=True))


def test_folders_train_and_test_are_the_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        draw(tmp_path / split / "flat", count, 8)
        draw(tmp_path / split / "tall", count, 40)
    assert [len(ImageFolder(str(tmp_path), train=split)) for split in (True, False)] == [6, 4]
    draw(tmp_path / "test" / "round", 1, 20)
    with pytest.raises(ConfigError, match="test/round has no counterpart in train"):
        ImageFolder(str(tmp_path), train=True)


def test_what_is_no_picture_is_passed_over_and_named(pictures, caplog):
    (pictures / "flat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (pictures / "tall" / "notes.txt").write_text("all from the attic")
    assert len(ImageFolder(str(pictures), train=True)) == 20
    assert "2 files are no pictures that can be read" in caplog.text
    assert "broken.png" in caplog.text
    assert "notes.txt" in caplog.text


def test_run_on_pictures_names_the_folder_and_its_classes(pictures, launch_here, capsys):
    words = ("data=image_folder", "data.data_dir=pictures", "data.source.background=black", "data.batch_size=4")
    quick = ("num_threads=1", "trainer.max_epochs=4", "optimizer=adam", "trainer.accelerator=cpu", "hydra.run.dir=run")
    assert launch_here(*words, *quick) == 0
    told = capsys.readouterr().out
    assert "pictures: 18 training, 2 validation, 5 test images" in told
    assert "test accuracy 100.0 %" in told
    assert load_trained("run").predict(str(pictures / "tall" / "00.png"), "black").labels == ["tall"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "there is no such folder"),
        (lambda root: draw(root / "one", 3, 8), "has 1 folders, must have one for each class, at least two"),
        (lambda root: [draw(root / "one", 3, 8), draw(root / "two", 0, 8)], "there is no picture in .*two"),
    ],
)
def test_folders_that_are_none_are_refused(make, message, tmp_path):
    make(tmp_path / "root")
    with pytest.raises(ConfigError, match=message):
        ImageFolder(str(tmp_path / "root"), train=True)
