"""Fashion-MNIST with Lightning and Hydra: the PyTorch optimisation tutorial as real software."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fmnist_lit.run.checkpoint import CheckpointError
    from fmnist_lit.run.find import NoSuchRunError
    from fmnist_lit.trained.classifier import TrainedClassifier

__all__ = ["CheckpointError", "NoSuchRunError", "__version__", "load_classifier"]
__version__ = "0.1.0"

# Imported when first asked for, because importing torch takes seconds
ERRORS = {"CheckpointError": "fmnist_lit.run.checkpoint", "NoSuchRunError": "fmnist_lit.run.find"}


def load_classifier(path: "str | Path", trust: "Iterable[str]" = ()) -> "TrainedClassifier":
    """What a run has trained, ready to predict; torch is imported only now.

    Args:
        path: a run folder, which means its best checkpoint, or the last where none was selected; a checkpoint; or a
            .safetensors file that ``python -m fmnist_lit.export`` wrote.
        trust: packages of which the checkpoint may name classes, for a model of your own.

    Returns:
        A classifier whose ``predict(images)`` takes arrays or tensors (N, 28, 28), or photos of any size.

    Raises:
        fmnist_lit.NoSuchRunError: if there is nothing at ``path``.
        fmnist_lit.CheckpointError: if what is there is damaged, or cannot be trusted.
    """
    from fmnist_lit.config.trust import trusting
    from fmnist_lit.trained.load import load_trained

    with trusting(trust):
        return load_trained(path)


if not TYPE_CHECKING:  # a type checker would take any name for one of the package's

    def __getattr__(name: str) -> type[Exception]:
        if name not in ERRORS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(ERRORS[name]), name)
