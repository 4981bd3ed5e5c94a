import errno
import json
import os
from pathlib import Path

import pytest

from fmnist_lit.run import files
from fmnist_lit.run.files import link_durably, remove_orphans, write_durably, write_json


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


# What not every system and file system can


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF])
def test_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch, number):
    """As of SMB, sshfs and some FUSE file systems."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_durably(tmp_path / "a", lambda file: file.write(b"new"))
    link_durably(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_disk_that_breaks_when_its_folder_is_synced_is_one(tmp_path, monkeypatch):
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        write_durably(tmp_path / "a", lambda file: file.write(b"new"))


def test_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", link)
    write_durably(tmp_path / "a", lambda file: file.write(b"1"))
    link_durably(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"1"
    assert listing(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("refusals", [0, 2])
def test_file_that_somebody_reads_is_replaced_once_they_are_done(tmp_path, monkeypatch, refusals):
    """On Windows, where a virus scanner or a spreadsheet reads it."""
    original, left = os.replace, [None] * refusals

    def replace(source: Path, target: Path) -> None:
        if left:
            left.pop()
            raise PermissionError(errno.EACCES, "Access is denied")
        original(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files, "REPLACE_AGAIN", 2)
    monkeypatch.setattr(files, "SECONDS_BETWEEN", 0.0)
    (tmp_path / "a").write_bytes(b"old")
    write_durably(tmp_path / "a", lambda file: file.write(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"


def test_file_that_is_never_let_go_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def replace(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files, "REPLACE_AGAIN", 2)
    monkeypatch.setattr(files, "SECONDS_BETWEEN", 0.0)
    with pytest.raises(PermissionError):
        write_durably(tmp_path / "a", lambda file: file.write(b"new"))
    assert listing(tmp_path) == []


def test_orphan_that_cannot_be_deleted_stays(tmp_path, monkeypatch):
    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Access is denied")

    (tmp_path / ".a.1.tmp").touch()
    monkeypatch.setattr(Path, "unlink", unlink)
    remove_orphans(tmp_path)
