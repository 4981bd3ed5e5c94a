import numpy as np
import pytest
from photo_files import BAD, GARMENT, LOSSLESS, as_in_the_data_set, as_photographed, of_two_frames, png
from PIL import Image, ImageDraw, features

from fmnist_lit.data.photos import PhotoError, find_photos, read_photo
from fmnist_lit.data.pixels import convert, to_pixels
from fmnist_lit.data.synthetic import draw_split


@pytest.mark.parametrize("name", LOSSLESS)
def test_photo_saved_without_loss_in_any_way_gives_the_same_pixels(tmp_path, name):
    LOSSLESS[name](tmp_path / name)
    assert np.array_equal(read_photo(tmp_path / name), GARMENT)


LOSSY = {
    "grey.jpg": lambda path: png(path, GARMENT, quality=95),
    "cmyk.jpg": lambda path: Image.fromarray(np.dstack([GARMENT] * 3)).convert("CMYK").save(path, quality=95),
    "of_a_phone.mpo": lambda path: of_two_frames(path, quality=95),
    "quantized.png": lambda path: as_photographed().quantize(255, Image.Quantize.FASTOCTREE).save(path),
    "grey.avif": lambda path: Image.fromarray(np.dstack([GARMENT] * 3)).save(path, quality=95),
    "cut_out.avif": lambda path: as_photographed().save(path, quality=95),
}


@pytest.mark.parametrize("name", LOSSY)
def test_photo_saved_with_some_loss_gives_about_the_same_pixels(tmp_path, name):
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    LOSSY[name](tmp_path / name)
    assert np.abs(read_photo(tmp_path / name).astype(int) - GARMENT).mean() < 3


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_cut_out_in_memory_of_any_mode_gives_the_same_pixels(mode):
    through = "LA" if mode == "La" else "RGBA"
    cut_out = as_photographed().convert(through)
    assert np.abs(to_pixels(cut_out.convert(mode)).astype(int) - GARMENT).mean() < 3


@pytest.mark.parametrize("levels", [GARMENT.astype(np.int32), GARMENT.astype(np.float32), GARMENT / np.float32(255)])
def test_grey_numbers_of_any_type_keep_their_range(levels):
    assert np.array_equal(to_pixels(Image.fromarray(levels)), GARMENT)


def test_cut_outs_of_every_kind_of_garment_are_put_where_they_belong():
    garments = draw_split(500, 0, "test")[0]
    told = {255: 0, 0: 0}
    for garment in garments:
        alpha = np.where(garment > 0, 255, 0).astype(np.uint8)
        for background in told:
            shown = np.where(garment > 0, np.abs(background - garment.astype(int)), 0).astype(np.uint8)
            told[background] += np.array_equal(to_pixels(Image.fromarray(np.dstack([shown] * 3 + [alpha]))), garment)
    assert min(told.values()) > 0.98 * len(garments)


def test_cut_out_is_put_over_the_background_that_is_said():
    for cut_out, background in ((as_photographed(), "white"), (as_in_the_data_set(), "black")):
        assert np.array_equal(to_pixels(cut_out, background), GARMENT)


@pytest.mark.parametrize(("tone", "seen"), [(20, 235), (240, 240)])
def test_cut_out_of_one_tone_is_never_put_over_the_same_tone(tone, seen):
    image = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(image).rectangle((50, 20, 149, 179), fill=(tone, tone, tone, 255))
    pixels = to_pixels(image)
    assert (pixels[14, 14], pixels[0, 0]) == (seen, 0)


def test_black_shirt_with_a_white_print_is_seen():
    image = Image.new("RGBA", (200, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 10, 169, 189), fill=(15, 15, 15, 255))
    draw.rectangle((60, 50, 139, 129), fill=(250, 250, 250, 255))
    assert to_pixels(image)[5, 10] > 200


def test_round_corners_do_not_make_a_photo_a_cut_out():
    white = np.pad(255 - GARMENT, 6, constant_values=255)
    alpha = np.full_like(white, 255)
    alpha[0, 0] = alpha[0, -1] = alpha[-1, 0] = alpha[-1, -1] = 0
    pixels = to_pixels(Image.fromarray(np.dstack([white] * 3 + [alpha])))
    assert np.array_equal(pixels, to_pixels(Image.fromarray(white)))


def scene(backdrop, noise=0):
    """The garment as photographed, ten times as large, on paper of a colour, somewhere in a wide frame."""
    large = np.asarray(Image.fromarray(GARMENT).resize((280, 280), Image.Resampling.BICUBIC), np.float64)[..., None]
    paper = np.ones((500, 900, 3)) * backdrop
    covered = np.clip(large / 16, 0, 1)
    paper[100:380, 500:780] = (255 - large) * covered + paper[100:380, 500:780] * (1 - covered)
    paper += np.random.default_rng(0).normal(0, noise, paper.shape)
    return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("backdrop", [255, 230, 160, 130, (60, 180, 90)], ids=str)
@pytest.mark.parametrize("noise", [0, 5])
def test_trimming_finds_the_garment_on_any_plain_backdrop(backdrop, noise):
    expected = to_pixels(scene(255).crop((500, 100, 780, 380)))
    converted = convert(scene(backdrop, noise), trim=True)
    assert converted.warning is None
    assert np.abs(converted.pixels.astype(int) - expected).mean() < 20
    assert np.abs(to_pixels(scene(255)).astype(int) - expected).mean() > 35  # untrimmed


def test_trimming_leaves_what_fills_its_frame():
    for garment in draw_split(100, 0, "test")[0]:
        if max(np.ptp(np.nonzero(garment > 12), axis=1)) >= 26:
            assert np.array_equal(to_pixels(Image.fromarray(255 - garment), trim=True), garment)


def test_trimming_cuts_the_margins_of_a_cut_out():
    wide = Image.new("RGBA", (200, 220))
    wide.paste(as_photographed(), (150, 20))
    cropped = as_photographed().crop(as_photographed().getchannel("A").getbbox())
    assert np.array_equal(to_pixels(wide, trim=True), to_pixels(cropped))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P", "I;16", "F", "CMYK", "LAB"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 200)])
@pytest.mark.parametrize("trim", [False, True])
def test_picture_of_one_colour_is_converted_in_any_mode_and_size(mode, size, trim):
    assert convert(Image.new(mode, size), trim=trim).pixels.shape == (28, 28)


def test_trimming_what_is_all_margin_says_so():
    for level in (0, 128, 255):
        assert convert(Image.new("L", (300, 200), level), trim=True).warning == "nothing stands out from its background"


def test_trimming_what_has_no_plain_background_says_so():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    warning = convert(noise.resize((400, 400), Image.Resampling.NEAREST), trim=True).warning
    assert warning in ("its background is not plain; nothing was trimmed", "nothing stands out from its background")


def test_edge_that_is_neither_light_nor_dark_is_doubtful_unless_it_is_said():
    assert "neither light nor dark" in convert(scene(130)).warning
    assert convert(scene(130), "white").warning is None
    for garment in draw_split(100, 0, "test")[0]:
        assert convert(Image.fromarray(garment)).warning is None
        assert convert(Image.fromarray(255 - garment)).warning is None


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
    others = []
    found = [str(path.relative_to(tmp_path)) for path in find_photos([tmp_path], others)]
    assert found == ["a.JPG", "b.png", "deep/c.webp"]
    assert [str(path.relative_to(tmp_path)) for path in others] == ["notes.txt", "deep/up"]


def test_folder_without_photos_is_an_error(tmp_path):
    ((path, error),) = find_photos([tmp_path])
    assert path == tmp_path
    assert "no picture" in str(error)
