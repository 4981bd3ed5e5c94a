"""The fixtures that carry the suite: the real configuration on a small data set, a tiny IDX data set, command lines."""

import copy
import gzip
import hashlib
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.launch import launch
from fmnist_lit.config.overrides import parse, split_values

SMALL = (
    "data=synthetic",
    "data.train_size=256",
    "data.val_size=64",
    "data.test_size=128",
    "model.hidden_sizes=[32]",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "num_threads=1",
)
QUIET = ("logger=csv", "~callbacks.progress_bar")  # what an in-process run needs least
ROOT = Path(__file__).parents[1]
REAL_DATA = os.environ.get("FMNIST_DATA_DIR")
HAS_REAL_DATA = bool(REAL_DATA) and any(Path(REAL_DATA, "FashionMNIST", "raw").glob("train-images-idx3-ubyte*"))


def options(group: str) -> list[str]:
    """The shipped options of a group, by name."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def pairs(first: Sequence[str], second: Sequence[str], third: Sequence[str]) -> list[tuple[str, str, str]]:
    """Choices in which any two options come together, as in a Latin square; ``third`` has the fewest options."""
    assert len(third) <= min(len(first), len(second))
    return [(a, b, third[(i + j) % len(third)]) for i, a in enumerate(first) for j, b in enumerate(second)]


@cache
def chosen(group: str, option: str) -> DictConfig:
    """The shipped option; composing all combinations would take longer than training them."""
    return composed(f"{group}={option}")[group]


@pytest.fixture(autouse=True, scope="session")
def same_everywhere() -> Iterator[None]:
    """One thread, because two give other bits and cost more than they gain at this size; no data from outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("FMNIST_DATA_DIR", raising=False)
        environment.delenv("HYDRA_FULL_ERROR", raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose the shipped configuration for a small in-process run; overrides come last, ``run_dir`` names a folder."""

    def compose(*overrides: str, run_dir: str = "run") -> DictConfig:
        files, values = split_values(parse([*SMALL, *QUIET, f"run_dir='{tmp_path / run_dir}'", *overrides]))
        cfg = copy.deepcopy(composed(*files))
        for override in values:  # which is what Hydra does, in the same order
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        return cfg

    return compose


@cache
def composed(*overrides: str) -> DictConfig:
    """The shipped configuration with these choices, never written to."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


@pytest.fixture
def launch_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Run a command line in this process and in ``tmp_path``; Hydra's and logging's globals are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "fmnist-lit")])
    Plugins.instance()  # their configurations are stored when they are imported, which happens once
    hydra_state = copy.deepcopy(Singleton.get_state())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda *arguments: launch(arguments)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    Singleton.set_state(hydra_state)


@pytest.fixture
def tiny_idx(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Archives of 60 and 20 images as torchvision lays them out, known to it and to us by their hashes.

    The only mirror refuses. ``write(root, unpacked=False)`` puts the archives, or the unpacked files, where
    torchvision looks for them under ``root``.
    """
    from torchvision.datasets import FashionMNIST

    from fmnist_lit.data import fashion_mnist

    rng = np.random.default_rng(0)
    files, splits = {}, {}
    for split, prefix, count in (("train", "train", 60), ("test", "t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4i", 2051, count, 28, 28) + images.tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count) + labels.tobytes()
        splits[split] = (torch.from_numpy(images), torch.from_numpy(labels).long())
    archives = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    hashes = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    monkeypatch.setattr(fashion_mnist, "RAW_FILES", hashes)
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def write(root: Path, unpacked: bool = False) -> Path:
        raw = fashion_mnist.raw_folder(root)
        raw.mkdir(parents=True, exist_ok=True)
        for name, content in (files if unpacked else archives).items():
            (raw / name).write_bytes(content)
        return raw

    return SimpleNamespace(files=files, archives=archives, splits=splits, write=write)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m fmnist_lit`` with arguments, in ``tmp_path``."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fmnist_lit", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def real_data() -> str:
    """The folder of the real Fashion-MNIST, for the few tests that want it."""
    if not HAS_REAL_DATA:
        pytest.skip("the real Fashion-MNIST is not in $FMNIST_DATA_DIR")
    return str(Path(REAL_DATA).absolute())


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a completed small run on standardised images, never written to; copy it to write beside it."""
    from fmnist_lit.command_line.job import run_job

    folder = tmp_path_factory.mktemp("trained") / "run"
    overrides = ("optimizer=adam", "model.batch_norm=true", "model.dropout=0.2", "data.normalize=true")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run_job(hydra.compose("config", [*SMALL, *QUIET, f"run_dir='{folder}'", *overrides]))
    return folder


@pytest.fixture
def copied(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the run to write beside."""
    return shutil.copytree(trained_run, tmp_path / "copy")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this project builds, on a machine with settings of its own."""
    if not shutil.which("uv") or not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs uv and the source tree")
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "conf" / "local").mkdir()
    (checkout / "conf" / "local" / "default.yaml").write_text("# @package _global_\nnum_threads: 1\n")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "--wheel", "--quiet", "-o", folder, checkout], check=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return file
