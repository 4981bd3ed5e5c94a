"""What a run's figures were made with: versions, processor, commit."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fmnist_lit.config.trust import trusted_packages


def provenance() -> dict[str, Any]:
    """Versions of the software that decides a run's bits, the processor, and the packages that the person trusted."""
    return {**software(), "trusted": trusted_packages()}


@cache
def software() -> dict[str, str | None]:
    """Versions and the processor; asked for once a process."""
    return {
        "fmnist_lit": own_version(),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "processor": processor(),
    }


def own_version() -> str | None:
    """The version of this package; None where it is found on the path without being installed."""
    try:
        return version("fmnist_lit")
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that the package is imported from, ``-dirty`` if it was changed; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    tracked = [
        *git,
        "ls-files",
        "--error-unmatch",
        __file__,
    ]  # fails where the package is merely installed inside another repository
    describe = [*git, "describe", "--always", "--dirty", "--exclude=*"]
    try:
        for command in (tracked, describe):
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def processor() -> str:
    """The GPU's name where there is one, else the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
