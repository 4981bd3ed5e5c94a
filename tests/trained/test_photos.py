import numpy as np
import pytest
from photo_files import BAD, GARMENT, LOSSLESS, png
from PIL import Image

from fmnist_lit.data.synthetic import draw_split
from fmnist_lit.trained.photos import PhotoError, find_photos, read_photo, to_pixels


@pytest.mark.parametrize("name", LOSSLESS)
def test_photo_saved_without_loss_in_any_way_gives_the_same_pixels(tmp_path, name):
    LOSSLESS[name](tmp_path / name)
    assert np.array_equal(read_photo(tmp_path / name), GARMENT)


def test_jpeg_gives_about_the_same_pixels(tmp_path):
    png(tmp_path / "a.jpg", GARMENT, quality=95)
    assert np.abs(read_photo(tmp_path / "a.jpg").astype(int) - GARMENT).mean() < 3


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [((200, 100), 14, 28), ((10, 30), 28, 9), ((4000, 1), 1, 28), ((7, 7), 28, 28)]
)
def test_any_size_is_fitted_keeping_its_aspect(size, rows, columns):
    pixels = to_pixels(Image.new("L", size, 200), "black")
    assert (pixels.any(axis=1).sum(), pixels.any(axis=0).sum()) == (rows, columns)
    assert abs(int(np.flatnonzero(pixels.any(axis=1))[0]) - (28 - rows) // 2) == 0


@pytest.mark.parametrize("background", ["black", "white"])
def test_background_that_is_said_is_not_guessed(background):
    pixels = to_pixels(Image.new("L", (28, 28), 255), background)
    assert (pixels == (255 if background == "black" else 0)).all()


def test_background_is_told_right_for_every_kind_of_garment():
    for garment in draw_split(250, 0, "test")[0]:
        assert np.array_equal(to_pixels(Image.fromarray(garment)), garment)
        assert np.array_equal(to_pixels(Image.fromarray(255 - garment)), garment)


@pytest.mark.parametrize("name", BAD)
def test_file_that_cannot_be_used_says_why(tmp_path, name):
    make, why = BAD[name]
    make(tmp_path / name)
    with pytest.raises(PhotoError, match=why) as caught:
        read_photo(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_means_the_photos_under_it_and_no_link_leads_out_of_it(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in find_photos([tmp_path])] == ["a.JPG", "b.png", "deep/c.webp"]


def test_folder_without_photos_is_an_error(tmp_path):
    ((path, error),) = find_photos([tmp_path])
    assert path == tmp_path
    assert "no picture" in str(error)
