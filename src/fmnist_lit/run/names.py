"""What run folders are called, and how to type a command that names one."""

import hashlib
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fmnist_lit.config.overrides import quoted
from fmnist_lit.config.trust import trust_words

LONGEST_NAME = 160  # bytes; file systems stop at 255
DEVICES = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)"  # which Windows takes for no file, with any suffix


def slug(text: str) -> str:
    """Text as a folder name; what a file system or a shell would trip over becomes _."""
    name = re.sub(r"[^\w.=,+-]+", "_", text) or "defaults"
    name = re.sub(r"\.$", "_", name)  # Windows would drop it
    if re.match(DEVICES, name):
        name = f"_{name}"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return (
        f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


def unique(overrides: str = "") -> str:
    """The end of a new folder's name: what was overridden, for people to recognise it by, and a random part."""
    return "_".join(filter(None, [slug(overrides)[:80] if overrides else "", secrets.token_hex(3)]))


def place(debug: str | None, otherwise: str) -> str:
    """The folder in outputs: runs under a debug preset have one of their own."""
    return "debug" if debug else otherwise


def shell_command(words: Iterable[str]) -> str:
    """A command line for the shell that people here use."""
    return subprocess.list2cmdline(list(words)) if sys.platform == "win32" else shlex.join(words)


def config_words() -> list[str]:
    """The words of a command line that name the folders of configurations which this run was composed from."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    flags = [source.path for source in sources if source.provider == "command-line"]
    folders = [
        quoted(source.path if source.schema == "file" else f"{source.schema}://{source.path}")
        for source in sources
        if source.provider == "hydra.searchpath in command-line"
    ]
    words = [*trust_words(), *(word for path in flags for word in ("--config-dir", path))]
    return [*words, f"hydra.searchpath=[{','.join(folders)}]"] if folders else words


def relative(path: Path) -> Path:
    """A path as a person in the current folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# in every process that composes a run's configuration
OmegaConf.register_new_resolver("unique", unique)
OmegaConf.register_new_resolver("job_name", slug)
OmegaConf.register_new_resolver("place", place)
