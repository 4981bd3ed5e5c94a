import json

import numpy as np
import pytest
from photo_files import BAD, GARMENT, LOSSLESS, png

import fmnist_lit
from fmnist_lit.data.photos import KNOWN
from fmnist_lit.predict import main


@pytest.fixture
def photos(tmp_path):
    """A folder with every kind of good photo and of bad file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, make in LOSSLESS.items():
        make(folder / name)
    for name, (make, _) in BAD.items():
        make(folder / name)
    return folder


def test_one_image_saved_in_every_way_gives_the_same_probabilities(trained_run, photos, capsys):
    assert main([str(trained_run), str(photos), "--json", "--top", "10"]) == 1
    entries = {entry["file"].split("/")[-1]: entry for entry in json.loads(capsys.readouterr().out)}
    expected = fmnist_lit.load_classifier(trained_run).predict(GARMENT)
    for name in LOSSLESS:
        entry = entries.pop(name)
        assert entry["label"] == expected.labels[0]
        assert entry["class_index"] == expected.class_indices[0]
        assert entry["probability"] == entry["top"][0]["probability"]
        by_class = {choice["class_index"]: choice["probability"] for choice in entry["top"]}
        assert [by_class[index] for index in range(10)] == pytest.approx(expected.probabilities[0].tolist(), abs=1e-3)
    assert {name for name, entry in entries.items() if entry.keys() == {"file", "error"}} == BAD.keys() - {
        "nothing.png"
    }


def test_bad_files_are_listed_beside_the_others(trained_run, photos, capsys):
    assert main([str(trained_run), str(photos / "text.png"), str(photos / "grey.png"), "nowhere.png"]) == 1
    screen = capsys.readouterr()
    lines = screen.out.splitlines()
    assert lines[0].endswith(f"text.png: cannot be used: not a {KNOWN} picture, or its first bytes are damaged")
    assert lines[1].count(" %") == 3
    assert lines[2] == "nowhere.png: cannot be used: No such file or directory"
    assert screen.err == "2 of 3 could not be used\n"


def test_photos_that_are_all_good_exit_with_0(trained_run, tmp_path, capsys):
    for number in range(300):  # more than are decoded at a time
        png(tmp_path / f"{number:03}.png", GARMENT)
    assert main([str(trained_run), str(tmp_path), "--top", "1", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in entries] == [str(tmp_path / f"{number:03}.png") for number in range(300)]
    assert {len(entry["top"]) for entry in entries} == {1}


@pytest.mark.parametrize("options", [["--top", "0"], ["--top", "two"], ["--background", "grey"]])
def test_bad_option_exits_with_2(trained_run, options):
    with pytest.raises(SystemExit) as ended:
        main([str(trained_run), "a.png", *options])
    assert ended.value.code == 2


def on_grey(path):
    png(path, np.pad(255 - GARMENT, 30, constant_values=130))


def test_grey_edge_is_warned_of_and_what_helps_is_silent(trained_run, tmp_path, capsys):
    on_grey(tmp_path / "a.png")
    arguments = [str(trained_run), str(tmp_path / "a.png"), "--json"]
    assert main(arguments) == 0
    screen = capsys.readouterr()
    (entry,) = json.loads(screen.out)
    assert entry["warning"] == "its edge is neither light nor dark; taken for white"
    assert screen.err == (
        f"warning: {tmp_path / 'a.png'}: {entry['warning']}; --background black|white says it, "
        "--trim cuts a plain one away\n"
    )
    for settled in (["--background", "white"], ["--trim"]):
        assert main([*arguments, *settled]) == 0
        screen = capsys.readouterr()
        assert screen.err == ""
        assert "warning" not in json.loads(screen.out)[0]


def test_folder_names_what_it_passes_over_once(trained_run, tmp_path, capsys):
    for name in ("notes.txt", "drawing.svg", "phone.HEIC", *(f"{number}.csv" for number in range(9))):
        (tmp_path / name).touch()
    png(tmp_path / "a.png", GARMENT)
    assert main([str(trained_run), str(tmp_path), "--json"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("12 files passed over: ")
    assert f"{tmp_path / 'drawing.svg'} (SVG, a drawing without pixels: save it as PNG)" in line
    assert f"{tmp_path / 'phone.HEIC'} (HEIC, which Pillow does not read: save it as JPEG)" in line
    assert line.endswith(" and 7 more")
