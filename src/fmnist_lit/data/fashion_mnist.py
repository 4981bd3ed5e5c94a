"""The real Fashion-MNIST: downloaded by torchvision, and every file checked against its published hash."""

import contextlib
import hashlib
import logging
import os
import shutil
import socket
import ssl
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock
from torch import Tensor
from torchvision.datasets import FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import extract_archive

from fmnist_lit.errors import in_one_line

log = logging.getLogger(__name__)

SECONDS_TO_REACH_A_MIRROR = 8.0  # for all mirrors together; with the imports, an offline user waits under 15 s
SECONDS_OF_SILENCE = 15.0  # a download that stalls this long has failed
GZIP = b"\x1f\x8b"  # how an archive begins; a log-in page of a network does not

# Bytes and SHA-256 of the unpacked files; torchvision has the MD5 sums of the archives.
RAW_FILES = {
    "train-images-idx3-ubyte": (47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}

Split = tuple[Tensor, Tensor]


class DataMissingError(RuntimeError):
    """Fashion-MNIST is not on disk and no mirror answered."""


class DataDamagedError(RuntimeError):
    """A file differs from the published one and cannot be replaced."""


def load_fashion_mnist(data_dir: Path) -> dict[str, Split]:
    """Images and labels of both splits, from disk or, where a file is missing or damaged, from a mirror.

    Args:
        data_dir: torchvision's root; the files are in ``data_dir/FashionMNIST/raw``, packed or unpacked, or where
            ``find_files`` finds them. It may be read-only if they are all there.

    Returns:
        ``{"train": (images, labels), "test": (images, labels)}`` with images (N, 28, 28) uint8 and labels (N,) int64
        in 0..9.

    Raises:
        DataMissingError: if there is nothing on disk and nothing to be downloaded.
        DataDamagedError: if a file on disk is damaged and cannot be replaced.
    """
    raw = find_files(data_dir)
    if raw != raw_folder(data_dir):
        log.info("Fashion-MNIST is taken from %s", raw)
    if not find_damage(raw):
        return decode(raw)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        writable = os.access(data_dir, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        with tempfile.TemporaryDirectory(prefix="fashion_mnist-") as stage:
            obtain(raw, Path(stage))
            return decode(raw_folder(Path(stage)))
    with FileLock(data_dir / ".fashion_mnist.lock"):
        if find_damage(raw):  # else another process has just obtained it
            for left_over in data_dir.glob(".fashion_mnist-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".fashion_mnist-", dir=data_dir) as stage:
                obtain(raw, Path(stage))
                raw.mkdir(parents=True, exist_ok=True)
                for file in raw_folder(Path(stage)).iterdir():
                    os.replace(file, raw / file.name)
    return decode(raw)


def raw_folder(data_dir: Path) -> Path:
    """The folder under its root in which torchvision keeps the files."""
    return data_dir / "FashionMNIST" / "raw"


def find_files(data_dir: Path) -> Path:
    """The folder of the files where ``data_dir`` is torchvision's root, or a level or two above or below it."""
    standard, real = raw_folder(data_dir), data_dir.resolve()
    if holds_any(standard):
        return standard
    if real.name == "FashionMNIST":
        standard = data_dir / "raw"
    elif real.name == "raw" and real.parent.name == "FashionMNIST":
        standard = data_dir
    if holds_any(standard):
        return standard
    # files of these names may be of another data set, such as MNIST, and are then not ours to repair
    above = (sorted(data_dir.glob(f"{levels}/FashionMNIST/raw")) for levels in ("*", "*/*"))
    for folder in (data_dir, data_dir / "raw", data_dir / "FashionMNIST", *(raw for found in above for raw in found)):
        if is_whole(folder):
            return folder
    return standard


def holds_any(raw: Path) -> bool:
    """Whether any of the files is in a folder, packed or unpacked."""
    return any((raw / f"{name}{suffix}").is_file() for name in RAW_FILES for suffix in ("", ".gz"))


def is_whole(raw: Path) -> bool:
    """Whether all of the files are in a folder, intact, packed or unpacked."""
    try:
        unusable = find_damage(raw) if holds_any(raw) else RAW_FILES
        return all(
            name.removesuffix(".gz") not in unusable or ((raw / name).is_file() and digest(raw / name, "md5") == md5)
            for name, md5 in FashionMNIST.resources
        )
    except OSError:  # a folder or file that this user may not read
        return False


def decode(raw: Path) -> dict[str, Split]:
    """Both splits, from unpacked files that have been checked."""
    return {
        split: (
            read_image_file(str(raw / f"{prefix}-images-idx3-ubyte")),
            read_label_file(str(raw / f"{prefix}-labels-idx1-ubyte")),
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }


def find_damage(raw: Path) -> dict[str, str]:
    """Why each unpacked file cannot be used: missing, or not the published one. Empty if all can be."""
    damage = {}
    for name, (size, sha256) in RAW_FILES.items():
        file = raw / name
        if not file.is_file():
            damage[name] = "missing"
        elif file.stat().st_size != size:
            damage[name] = f"{file.stat().st_size} bytes where the published file has {size}"
        elif digest(file, "sha256") != sha256:
            damage[name] = "its content differs from the published file"
    return damage


def obtain(raw: Path, stage: Path) -> None:
    """Put all files, unpacked, under ``stage``: from ``raw`` where they are intact there, else from a mirror."""
    unusable = find_damage(raw)
    damage = {name: reason for name, reason in unusable.items() if reason != "missing"}
    raw_folder(stage).mkdir(parents=True)
    missing = []
    for name, md5 in FashionMNIST.resources:
        archive, unpacked = raw / name, name.removesuffix(".gz")
        if unpacked not in unusable:
            shutil.copyfile(raw / unpacked, raw_folder(stage) / unpacked)
        elif archive.is_file() and digest(archive, "md5") == md5:
            shutil.copyfile(archive, raw_folder(stage) / name)
            extract_archive(str(raw_folder(stage) / name), str(raw_folder(stage)))
        else:
            missing.append(name)
            if archive.is_file():
                damage[name] = "its content differs from the published archive"
    for name, reason in damage.items():
        log.warning("%s is damaged: %s", raw / name, reason)
    try:
        if missing:
            require_mirror(missing[-1])
            with default_socket_timeout(SECONDS_OF_SILENCE):
                FashionMNIST(str(stage), download=True)
    except (ConnectionError, URLError, TimeoutError, RuntimeError) as error:
        reason = in_one_line(error)
        advice = f"put {', '.join(missing)} into {raw} or use data=synthetic"
        if damage:
            damaged = raw / next(iter(damage))
            raise DataDamagedError(f"{damaged} is damaged and {reason}; {advice}") from error
        raise DataMissingError(f"Fashion-MNIST is not in {raw} and {reason}; {advice}") from error
    for name, reason in find_damage(raw_folder(stage)).items():
        raise DataDamagedError(f"{name} from {', '.join(FashionMNIST.mirrors)}: {reason}")
    for name in damage:
        log.warning("%s is repaired", raw / name)


def require_mirror(name: str) -> None:
    """Return as soon as any mirror serves the file ``name``.

    Each mirror is tried in a daemon thread, which may outlive this call: a name look-up cannot be given a time limit.

    Raises:
        ConnectionError: if none has after ``SECONDS_TO_REACH_A_MIRROR``; it says what came instead.
    """
    answered = threading.Event()
    pending = threading.Semaphore(0)
    came = dict.fromkeys(FashionMNIST.mirrors, f"no answer in {SECONDS_TO_REACH_A_MIRROR:g} s")

    def reach(mirror: str) -> None:
        try:
            with urllib.request.urlopen(mirror + name, timeout=SECONDS_TO_REACH_A_MIRROR) as reply:
                if reply.read(len(GZIP)) == GZIP:
                    answered.set()
                else:
                    came[mirror] = f"{reply.headers.get_content_type()} where an archive should be"
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a proxy's address that is none
            came[mirror] = what_came(error)
        pending.release()

    threads = [threading.Thread(target=reach, args=(mirror,), daemon=True) for mirror in FashionMNIST.mirrors]
    for thread in threads:
        thread.start()
    for _ in threads:
        pending.acquire(timeout=SECONDS_TO_REACH_A_MIRROR / len(threads))
        if answered.is_set():
            return
    raise ConnectionError(
        f"no mirror answered with it ({'; '.join(f'{route(mirror)}: {what}' for mirror, what in came.items())})"
    )


def what_came(error: Exception) -> str:
    """What the network answered instead of a file, in a few words: a status, a bad certificate, the system's reason."""
    if isinstance(error, HTTPError):
        return f"{error.code} {error.reason}"
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        return what_came(error.reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer in {SECONDS_TO_REACH_A_MIRROR:g} s"
    return error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)


def route(mirror: str) -> str:
    """The host of a mirror, and the proxy on the way there; without the password that a proxy's address may hold."""
    parts = urlsplit(mirror)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.netloc):
        return parts.netloc
    return f"{parts.netloc} through the proxy {proxy.rpartition('//')[2].rpartition('@')[2]}"


def digest(file: Path, algorithm: str) -> str:
    """Hexadecimal hash of a file's content."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


@contextlib.contextmanager
def default_socket_timeout(seconds: float) -> Iterator[None]:
    """A time limit on connections that are opened without one, as torchvision's are."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
