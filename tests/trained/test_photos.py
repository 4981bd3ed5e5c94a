import os

import numpy as np
import pytest
from PIL import Image

from fmnist_lit.data.synthetic import draw_split
from fmnist_lit.trained.photos import PictureError, find_pictures, read_picture, to_pixels

GARMENT = draw_split(1, 0, "test")[0][0]


def png(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    Image.fromarray(GARMENT).rotate(90).save(path, exif=exif)


LOSSLESS = {
    "grey.png": lambda path: png(path, GARMENT),
    "rgb.png": lambda path: png(path, np.dstack([GARMENT] * 3)),
    "transparent.png": lambda path: png(path, np.dstack([np.full((28, 28, 3), 255, np.uint8), GARMENT])),
    "grey_alpha.png": lambda path: png(path, np.dstack([np.full((28, 28), 255, np.uint8), GARMENT])),
    "palette.png": lambda path: Image.fromarray(GARMENT).quantize(256).save(path),
    "16_bit.png": lambda path: png(path, GARMENT.astype(np.uint16) * 257),
    "white.png": lambda path: png(path, 255 - GARMENT),
    "turned.png": turned,
    "ten_times.png": lambda path: png(path, GARMENT.repeat(10, 0).repeat(10, 1)),
    "grey.bmp": lambda path: png(path, GARMENT),
    "rgb.webp": lambda path: png(path, np.dstack([GARMENT] * 3), lossless=True),
    "a_png_by_content.jpg": lambda path: png(path, GARMENT, format="PNG"),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_picture_saved_without_loss_in_any_way_gives_the_same_pixels(tmp_path, name):
    LOSSLESS[name](tmp_path / name)
    assert np.array_equal(read_picture(tmp_path / name), GARMENT)


def test_jpeg_gives_about_the_same_pixels(tmp_path):
    png(tmp_path / "a.jpg", GARMENT, quality=95)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - GARMENT).mean() < 3


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


def truncated(path):
    png(path, np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "nothing.png": (lambda path: None, "No such file"),
    "empty.png": (lambda path: path.touch(), "0 bytes"),
    "text.png": (lambda path: path.write_text("hello"), "not a PNG, JPEG, BMP or WebP"),
    "a_gif.png": (lambda path: png(path, GARMENT, format="GIF"), "not a PNG, JPEG, BMP or WebP"),
    "truncated.png": (truncated, "truncated"),
    "loop.png": (lambda path: path.symlink_to(path), "symbolic links"),
    "pipe.png": (os.mkfifo, "not a file"),
    "large.png": (lambda path: Image.new("1", (8000, 8000)).save(path), "50 million pixels"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "50 million pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_cannot_be_used_says_why(tmp_path, name):
    make, why = BAD[name]
    make(tmp_path / name)
    with pytest.raises(PictureError, match=why) as caught:
        read_picture(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_means_the_pictures_under_it_and_no_link_leads_out_of_it(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in find_pictures([tmp_path])] == ["a.JPG", "b.png", "deep/c.webp"]


def test_folder_without_pictures_is_an_error(tmp_path):
    ((path, error),) = find_pictures([tmp_path])
    assert path == tmp_path
    assert "no picture" in str(error)
