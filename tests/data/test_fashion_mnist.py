import contextlib
import functools
import http.server
import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from fmnist_lit.data import fashion_mnist
from fmnist_lit.data.fashion_mnist import DataDamagedError, DataMissingError, raw_folder
from fmnist_lit.train import train

IMAGES = "train-images-idx3-ubyte"


def assert_is(loaded, splits):
    for split, (images, labels) in splits.items():
        assert torch.equal(loaded[split][0], images)
        assert torch.equal(loaded[split][1], labels)
        assert loaded[split][1].dtype == torch.int64


def listing(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.name != ".fashion_mnist.lock")


@contextlib.contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """An HTTP server of the files in ``folder``."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("unpacked", [True, False], ids=["unpacked", "packed"])
def test_files_load_through_torchvision(tiny_idx, tmp_path, unpacked):
    tiny_idx.write(tmp_path, unpacked)
    assert_is(fashion_mnist.load_fashion_mnist(tmp_path), tiny_idx.splits)


def test_packed_files_are_unpacked_once_and_nothing_else_is_left(tiny_idx, tmp_path):
    raw = tiny_idx.write(tmp_path)
    fashion_mnist.load_fashion_mnist(tmp_path)
    assert listing(raw) == sorted([*tiny_idx.archives, *tiny_idx.files])
    assert listing(tmp_path) == sorted(
        ["FashionMNIST", "FashionMNIST/raw", *(f"FashionMNIST/raw/{n}" for n in listing(raw))]
    )


def test_good_files_are_not_written_to(tiny_idx, tmp_path):
    raw = tiny_idx.write(tmp_path, unpacked=True)
    before = {file: file.stat().st_mtime_ns for file in raw.iterdir()}
    fashion_mnist.load_fashion_mnist(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in raw.iterdir()} == before


@pytest.mark.parametrize("unpacked", [True, False], ids=["unpacked", "packed"])
def test_read_only_folder_is_read_and_left_alone(tiny_idx, tmp_path, monkeypatch, unpacked):
    tiny_idx.write(tmp_path, unpacked)
    before = listing(tmp_path)
    access = os.access
    # the superuser may write anywhere, so the mode of a folder would prove nothing
    monkeypatch.setattr(
        fashion_mnist.os, "access", lambda path, mode, **kw: not mode & os.W_OK and access(path, mode, **kw)
    )
    assert_is(fashion_mnist.load_fashion_mnist(tmp_path), tiny_idx.splits)
    assert listing(tmp_path) == before
    assert not (tmp_path / ".fashion_mnist.lock").exists()


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


HARM = pytest.mark.parametrize("harm", [shorten, flip_a_bit, empty])


# Where the files are


OFF = pytest.mark.parametrize(
    "given",
    ["datasets/FashionMNIST", "datasets/FashionMNIST/raw", ".", "datasets/FashionMNIST/", "datasets/../datasets"],
)


@OFF
@pytest.mark.parametrize("unpacked", [True, False], ids=["unpacked", "packed"])
def test_folder_a_level_or_two_off_is_found(tiny_idx, tmp_path, given, unpacked, caplog):
    caplog.set_level(logging.INFO)
    raw = tiny_idx.write(tmp_path / "datasets", unpacked)
    assert_is(fashion_mnist.load_fashion_mnist(tmp_path / given), tiny_idx.splits)
    assert sorted(path.name for path in tmp_path.rglob("*FashionMNIST*")) == ["FashionMNIST"]
    assert {*listing(raw)} - {*tiny_idx.archives} - {*tiny_idx.files} == set()
    assert (str(raw) in caplog.text) == (given != "datasets/../datasets")


@pytest.mark.parametrize("place", ["fashion", "work/data/FashionMNIST/raw"])
def test_files_in_a_folder_of_another_name_or_two_levels_below_are_found(tiny_idx, tmp_path, place):
    written = tiny_idx.write(tmp_path / "elsewhere")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    written.rename(tmp_path / place)
    given = tmp_path / ("fashion" if place == "fashion" else ".")
    assert_is(fashion_mnist.load_fashion_mnist(given), tiny_idx.splits)


@OFF
def test_damaged_file_in_a_folder_a_level_or_two_off_is_named_or_left_alone(tiny_idx, tmp_path, given):
    raw = tiny_idx.write(tmp_path / "datasets", unpacked=True)
    flip_a_bit(raw / IMAGES)
    before = (raw / IMAGES).read_bytes()
    with pytest.raises((DataDamagedError, DataMissingError)):
        fashion_mnist.load_fashion_mnist(tmp_path / given)
    assert (raw / IMAGES).read_bytes() == before


def test_files_of_another_data_set_under_the_same_names_are_left_alone(tiny_idx, tmp_path, monkeypatch):
    raw = tiny_idx.write(tmp_path / "elsewhere", unpacked=True).rename(tmp_path / "MNIST")
    flip_a_bit(raw / IMAGES)
    before = (raw / IMAGES).read_bytes()
    served = tiny_idx.write(tmp_path / "mirror")
    with mirror(served) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [url])
        assert_is(fashion_mnist.load_fashion_mnist(tmp_path / "MNIST"), tiny_idx.splits)
    assert (raw / IMAGES).read_bytes() == before


def test_folder_named_like_the_data_set_is_where_the_files_are_asked_for(tiny_idx, tmp_path):
    (tmp_path / "FashionMNIST").mkdir()
    with pytest.raises(DataMissingError) as caught:
        fashion_mnist.load_fashion_mnist(tmp_path / "FashionMNIST")
    assert f"into {tmp_path / 'FashionMNIST' / 'raw'} " in str(caught.value)


@HARM
def test_damaged_file_is_repaired_from_its_archive(tiny_idx, tmp_path, caplog, harm):
    tiny_idx.write(tmp_path)
    raw = tiny_idx.write(tmp_path, unpacked=True)
    harm(raw / IMAGES)
    assert_is(fashion_mnist.load_fashion_mnist(tmp_path), tiny_idx.splits)
    assert (raw / IMAGES).read_bytes() == tiny_idx.files[IMAGES]
    assert f"{raw / IMAGES} is damaged" in caplog.text
    assert f"{raw / IMAGES} is repaired" in caplog.text


@HARM
def test_damaged_file_without_an_archive_is_named(tiny_idx, tmp_path, harm):
    raw = tiny_idx.write(tmp_path, unpacked=True)
    harm(raw / IMAGES)
    with pytest.raises(DataDamagedError) as caught:
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert str(raw / IMAGES) in str(caught.value)
    assert "no mirror answered" in str(caught.value)
    assert f"put {IMAGES}.gz" in str(caught.value)


@HARM
def test_damaged_archive_is_named(tiny_idx, tmp_path, harm):
    raw = tiny_idx.write(tmp_path)
    harm(raw / f"{IMAGES}.gz")
    with pytest.raises(DataDamagedError) as caught:
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert str(raw / f"{IMAGES}.gz") in str(caught.value)


def test_damaged_archive_beside_good_files_does_not_matter(tiny_idx, tmp_path):
    raw = tiny_idx.write(tmp_path)
    tiny_idx.write(tmp_path, unpacked=True)
    shorten(raw / f"{IMAGES}.gz")
    assert_is(fashion_mnist.load_fashion_mnist(tmp_path), tiny_idx.splits)


def test_damaged_data_is_an_error_even_for_auto(tiny_idx, configure, tmp_path):
    raw = tiny_idx.write(tmp_path / "data", unpacked=True)
    flip_a_bit(raw / IMAGES)
    with pytest.raises(DataDamagedError, match=IMAGES):
        train(configure("data=auto", f"data.data_dir='{tmp_path / 'data'}'"))


def test_full_disk_is_not_taken_for_missing_data(tiny_idx, tmp_path, monkeypatch):
    """Else ``auto`` would train on the stand-in although the archives are there."""

    def unpack(*_: object) -> None:
        raise OSError(28, "No space left on device")

    tiny_idx.write(tmp_path)
    monkeypatch.setattr(fashion_mnist, "extract_archive", unpack)
    with pytest.raises(Exception, match="No space left") as caught:
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert not isinstance(caught.value, DataMissingError)


@pytest.mark.parametrize("exists", [True, False])
def test_missing_data_says_what_to_put_where(tiny_idx, tmp_path, exists):
    root = tmp_path / "data"
    if exists:
        root.mkdir()
    with pytest.raises(DataMissingError) as caught:
        fashion_mnist.load_fashion_mnist(root)
    message = str(caught.value)
    assert all(name in message for name in tiny_idx.archives)
    assert f"into {raw_folder(root)}" in message
    assert "data=synthetic" in message


def test_one_missing_archive_is_the_only_one_asked_for(tiny_idx, tmp_path):
    raw = tiny_idx.write(tmp_path)
    (raw / f"{IMAGES}.gz").unlink()
    with pytest.raises(DataMissingError) as caught:
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert f"put {IMAGES}.gz into {raw}" in str(caught.value)


def test_data_dir_that_is_a_file_is_an_error_that_names_it(tiny_idx, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DataMissingError, match="data"):
        fashion_mnist.load_fashion_mnist(tmp_path / "data")


def test_auto_falls_back_to_the_stand_in_with_a_warning(tiny_idx, configure, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    results = train(configure("data=auto", f"data.data_dir='{tmp_path / 'data'}'"))
    assert results["dataset"] == "synthetic"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("SYNTHETIC stand-in" in text and str(tmp_path / "data") in text for text in warnings)


def test_strict_source_does_not_fall_back(tiny_idx, configure, tmp_path):
    with pytest.raises(DataMissingError):
        train(configure("data=fashion_mnist", f"data.data_dir='{tmp_path / 'data'}'"))


def test_run_on_real_files_says_so(tiny_idx, configure, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    tiny_idx.write(tmp_path / "data")
    options = ("data.val_size=10", "data.train_size=null", "data.test_size=null")
    results = train(configure("data=auto", f"data.data_dir='{tmp_path / 'data'}'", *options))
    assert results["dataset"] == "fashion_mnist"
    assert "Fashion-MNIST: 50 training, 10 validation, 20 test images" in caplog.text
    assert "SYNTHETIC" not in caplog.text


def test_data_is_downloaded_from_a_mirror(tiny_idx, tmp_path, monkeypatch):
    served = tiny_idx.write(tmp_path / "mirror")
    with mirror(served) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [url])
        assert_is(fashion_mnist.load_fashion_mnist(tmp_path / "data"), tiny_idx.splits)
    assert (raw_folder(tmp_path / "data") / IMAGES).read_bytes() == tiny_idx.files[IMAGES]
    assert [name for name in os.listdir(tmp_path / "data") if name.startswith(".fashion_mnist-")] == []


def test_second_mirror_is_used_when_the_first_is_down(tiny_idx, tmp_path, monkeypatch, closed_port):
    served = tiny_idx.write(tmp_path / "mirror")
    with mirror(served) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{closed_port}/", url])
        assert_is(fashion_mnist.load_fashion_mnist(tmp_path / "data"), tiny_idx.splits)


def test_damaged_file_is_repaired_from_a_mirror(tiny_idx, tmp_path, monkeypatch):
    served = tiny_idx.write(tmp_path / "mirror")
    raw = tiny_idx.write(tmp_path / "data", unpacked=True)
    flip_a_bit(raw / IMAGES)
    with mirror(served) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [url])
        assert_is(fashion_mnist.load_fashion_mnist(tmp_path / "data"), tiny_idx.splits)


def test_download_of_something_else_is_refused_and_leaves_nothing(tiny_idx, tmp_path, monkeypatch):
    served = tiny_idx.write(tmp_path / "mirror")
    flip_a_bit(served / f"{IMAGES}.gz")
    with mirror(served) as url:
        monkeypatch.setattr(FashionMNIST, "mirrors", [url])
        with pytest.raises((DataMissingError, DataDamagedError)):
            fashion_mnist.load_fashion_mnist(tmp_path / "data")
    assert listing(tmp_path / "data") == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_mirror_that_refuses_is_given_up_at_once(tiny_idx, tmp_path, monkeypatch, closed_port):
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{closed_port}/"] * 2)
    start = time.monotonic()
    with pytest.raises(DataMissingError, match="no mirror answered"):
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert time.monotonic() - start < 5


def test_mirror_that_never_answers_is_given_up_in_time(tiny_idx, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SECONDS_TO_REACH_A_MIRROR", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"] * 2)
        start = time.monotonic()
        with pytest.raises(DataMissingError, match="no mirror answered"):
            fashion_mnist.load_fashion_mnist(tmp_path)
        assert time.monotonic() - start < 5
        time.sleep(0.6)  # the threads left behind have given up too


@contextlib.contextmanager
def answering(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that answers every request with ``answer``."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    with contextlib.suppress(OSError):
                        if context is not None:
                            connection = context.wrap_socket(connection, server_side=True)
                        connection.recv(65536)
                        connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def message_of_missing(root: Path) -> str:
    with pytest.raises(DataMissingError, match="no mirror answered with it") as caught:
        fashion_mnist.load_fashion_mnist(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Log in</html>", "text/html where an archive"),
        (b"I am no web server\r\n", "I am no web server"),
    ],
    ids=["403", "404", "log-in page", "nonsense"],
)
def test_what_a_mirror_answered_is_in_the_message(tiny_idx, tmp_path, monkeypatch, answer, told):
    with answering(answer) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://{address}/"])
        assert f"{address}: {told}" in message_of_missing(tmp_path)


@pytest.fixture
def proxies_allowed(tiny_idx, monkeypatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies that there were when it was made


@pytest.mark.usefixtures("proxies_allowed")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_a_proxy_answered_is_in_the_message_and_its_password_is_not(tmp_path, monkeypatch, scheme):
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as address:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@{address}")
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"{scheme}://mirror.invalid/"])
        message = message_of_missing(tmp_path)
    assert f"mirror.invalid through the proxy {address}: " in message
    assert "407 Proxy Authentication Required" in message
    assert "secret" not in message


def test_what_is_wrong_with_a_certificate_is_in_the_message(tiny_idx, tmp_path, monkeypatch):
    files = [str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    subprocess.run([*command, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    with answering(b"", context) as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"https://{address}/"])
        assert "certificate verify failed: self-signed certificate" in message_of_missing(tmp_path / "data")


@pytest.mark.usefixtures("proxies_allowed")
def test_proxy_address_that_is_none_is_in_the_message(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:port")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://mirror.invalid/"])
    assert "through the proxy 127.0.0.1:port: nonnumeric port" in message_of_missing(tmp_path)


def test_warning_of_auto_says_what_came_instead(tiny_idx, configure, tmp_path, caplog, monkeypatch):
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as address:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://{address}/"])
        train(configure("data=auto", f"data.data_dir='{tmp_path / 'data'}'"))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "407 Proxy Authentication Required" in warning


def test_name_look_up_that_never_ends_is_given_up_in_time(tiny_idx, tmp_path, monkeypatch):
    """No socket's time limit covers it."""
    ended = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        ended.wait(30)
        raise OSError("no such host")

    monkeypatch.setattr(fashion_mnist, "SECONDS_TO_REACH_A_MIRROR", 0.5)
    monkeypatch.setattr(fashion_mnist.urllib.request, "urlopen", look_up)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://one/", "http://two/"])
    start = time.monotonic()
    with pytest.raises(DataMissingError, match="no mirror answered"):
        fashion_mnist.load_fashion_mnist(tmp_path)
    assert time.monotonic() - start < 5
    ended.set()


def test_shipped_limit_keeps_auto_under_15_seconds():
    assert fashion_mnist.SECONDS_TO_REACH_A_MIRROR < 15


def test_download_sets_the_time_limit_of_sockets_back():
    before = socket.getdefaulttimeout()
    with fashion_mnist.default_socket_timeout(3):
        assert socket.getdefaulttimeout() == 3
    assert socket.getdefaulttimeout() == before
