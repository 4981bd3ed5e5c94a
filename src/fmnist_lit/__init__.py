"""Fashion-MNIST with Lightning and Hydra: the PyTorch optimisation tutorial as real software."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fmnist_lit.trained.classifier import TrainedClassifier

__version__ = "0.1.0"


def load_classifier(path: "str | Path") -> "TrainedClassifier":
    """What a run has trained, ready to predict; torch is imported only now.

    Args:
        path: a run folder, whose best checkpoint is meant, or the last where none was selected; a checkpoint; or a
            .safetensors file that ``python -m fmnist_lit.export`` wrote.

    Returns:
        A classifier whose ``predict(images)`` takes arrays or tensors (N, 28, 28), or pictures of any size.

    Raises:
        fmnist_lit.runs.NoSuchRunError: if there is nothing at ``path``.
        fmnist_lit.checkpoint.CheckpointError: if what is there is damaged, or cannot be trusted.
    """
    from fmnist_lit.trained.classifier import load

    return load(path)
