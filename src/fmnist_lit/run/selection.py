"""Which weights are tested: always those of a checkpoint that the results name."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Trainer

from fmnist_lit.classifier import Classifier
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.run.checkpoint import RunCheckpoint, load_checkpoint, take_figure

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


def select_weights(
    trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, criterion: Criterion
) -> Selected:
    """Put the best weights into ``classifier``, or the last where nothing can choose.

    Weights that a callback left after the last step, such as an average, compete with those of the epochs.
    """
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, RunCheckpoint)]
    if not callbacks or not callbacks[0].last.exists():
        take_figure(trainer, classifier, criterion.metric)
        return Selected(None, None, dict(classifier.figures))
    (checkpoint, *_) = callbacks
    trainer.strategy.barrier()  # rank 0 may still be at it
    selected = Selected(checkpoint.last, None, dict(classifier.figures))
    if checkpoint.best_epoch is not None:
        selected = Selected(checkpoint.best, checkpoint.best_epoch, dict(checkpoint.best_metrics))
    elif not criterion.is_default:
        log.warning("No epoch has a finite %s; the last weights are tested", criterion.words)
    if checkpoint.has_final:
        final = Selected(checkpoint.final, None, final_figures(trainer, classifier, datamodule, criterion.metric))
        best, reached = (one.figures.get(criterion.metric) for one in (selected, final))
        if best is not None and criterion.improves(best, reached):
            shown = "none" if reached is None else criterion.shown(reached)
            told = criterion.words, shown, selected.epoch, criterion.shown(best)
            log.info("%s: checkpoints/final.ckpt has %s; epoch %d has %s and is tested instead", *told)
        else:
            selected = final
    assert selected.file is not None
    classifier.load_state_dict(load_checkpoint(selected.file)["state_dict"])
    return selected


def final_figures(
    trainer: Trainer, classifier: Classifier, datamodule: FashionMNISTDataModule, metric: str
) -> dict[str, float]:
    """The figures of the weights that training ended with; ``metric`` only if it was found for them."""
    if datamodule.watched:
        classifier.figures.pop(metric, None)  # of the last step's weights
        trainer.validate(classifier, datamodule, verbose=False)
        take_figure(trainer, classifier, metric)
    return dict(classifier.figures)
