"""Which weights are tested: always those of a checkpoint that the results name."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Trainer

from fmnist_lit.classifier import Classifier
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.run.checkpoint import RunCheckpoint, load_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selected:
    """What is tested.

    Attributes:
        file: the checkpoint, whose weights the classifier has; None for a run without checkpoints.
        epoch: the best epoch (from 1); None where nothing was selected by validation.
        figures: of its epoch, by TensorBoard tag.
    """

    file: Path | None
    epoch: int | None
    figures: dict[str, float]

    @property
    def name(self) -> str | None:
        """The checkpoint's path within the run folder."""
        return None if self.file is None else f"checkpoints/{self.file.name}"


def select_weights(trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule) -> Selected:
    """Put the weights that are best on validation into ``classifier``, or the last where nothing validates.

    Weights that a callback left after the last step, such as an average, compete with those of the epochs.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, RunCheckpoint)]
    if not callbacks or not callbacks[0].last.exists():
        return Selected(None, None, dict(classifier.figures))
    (checkpoint, *_) = callbacks
    trainer.strategy.barrier()  # rank 0 may still be at it
    selected = Selected(checkpoint.last, None, dict(classifier.figures))
    if checkpoint.best_epoch is not None:
        selected = Selected(checkpoint.best, checkpoint.best_epoch, dict(checkpoint.best_metrics))
    if checkpoint.has_final:
        if datamodule.watched:
            trainer.validate(classifier, datamodule, verbose=False)
        final = Selected(checkpoint.final, None, dict(classifier.figures))
        best, reached = (one.figures.get("accuracy/val", -1.0) for one in (selected, final))
        if reached < best:
            shares = 100 * reached, selected.epoch, 100 * best
            log.info("checkpoints/final.ckpt has val %.2f %%; epoch %d has %.2f %% and is tested instead", *shares)
        else:
            selected = final
    assert selected.file is not None
    classifier.load_state_dict(load_checkpoint(selected.file)["state_dict"])
    return selected
