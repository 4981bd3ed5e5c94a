import json
from pathlib import Path

import pytest

from fmnist_lit.run.files import link_durably, write_durably, write_json


def listing(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def write_half_and_fail(file) -> None:
    file.write(b"half")
    raise OSError(28, "No space left on device")


def test_file_holds_what_was_written_and_nothing_is_left_beside_it(tmp_path):
    write_durably(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"
    assert listing(tmp_path) == ["a"]


def test_folder_of_the_file_is_made(tmp_path):
    write_durably(tmp_path / "b" / "c" / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "b" / "c" / "a").read_bytes() == b"new"


def test_failing_writer_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        write_durably(tmp_path / "a", write_half_and_fail)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


def test_failing_writer_of_a_new_file_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        write_durably(tmp_path / "a", write_half_and_fail)
    assert listing(tmp_path) == []


def test_interrupted_writer_leaves_nothing(tmp_path):
    def interrupt(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_durably(tmp_path / "a", interrupt)
    assert listing(tmp_path) == []


def test_old_file_stays_until_the_new_one_is_synced(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    seen = []
    monkeypatch.setattr("fmnist_lit.run.files.os.fsync", lambda _: seen.append((tmp_path / "a").read_bytes()))
    write_durably(tmp_path / "a", lambda file: file.write(b"new"))
    assert seen == [b"old", b"new"]  # the file, then its folder


def test_linked_file_keeps_its_content_when_the_source_is_replaced(tmp_path):
    source, target = tmp_path / "last", tmp_path / "best"
    write_durably(source, lambda file: file.write(b"1"))
    link_durably(source, target)
    write_durably(source, lambda file: file.write(b"2"))
    assert target.read_bytes() == b"1"
    link_durably(source, target)
    assert target.read_bytes() == b"2"
    assert listing(tmp_path) == ["best", "last"]


def test_linking_the_same_file_again_changes_nothing(tmp_path):
    source, target = tmp_path / "last", tmp_path / "best"
    source.write_bytes(b"1")
    link_durably(source, target)
    link_durably(source, target)
    assert target.read_bytes() == b"1"
    assert listing(tmp_path) == ["best", "last"]


def test_json_is_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"accuracy": 0.5, "loss": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"accuracy": 0.5, "loss": None}


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert listing(tmp_path) == []
