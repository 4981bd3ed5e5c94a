"""What a network answered to all images of a split, and the pictures of that."""

import re
from dataclasses import dataclass

import numpy as np

from fmnist_lit.data.images import Images
from fmnist_lit.loggers.tensorboard import TensorBoardLogger
from fmnist_lit.report.sheets import confusion_sheet, image_sheet

NUM_MISTAKES = 24
SPLIT_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class EvaluatedSplit:
    """The answers to N images.

    Attributes:
        split: ``val`` or ``test``.
        images: of the split, in their order.
        classes: what each of the C labels is called.
        probabilities: (N, C), the softmax of the logits, whatever loss is minimised.
    """

    split: str
    images: Images
    classes: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        labels: np.ndarray = self.images.labels.cpu().numpy()
        return labels

    @property
    def predicted(self) -> np.ndarray:
        predicted: np.ndarray = self.probabilities.argmax(axis=1)
        return predicted


def show_confusion(logger: TensorBoardLogger, answers: EvaluatedSplit, epoch: int) -> None:
    """Which class is taken for which."""
    labels, num = answers.labels, len(answers.classes)
    counts = np.bincount(labels * num + answers.predicted, minlength=num * num).reshape(num, num)
    right = 100 * counts.trace() / counts.sum()
    title = f"{len(labels)} {SPLIT_NAMES[answers.split]} images, {right:.2f} % right"
    sheet = confusion_sheet(counts, answers.classes, title)
    description = "The darker, the larger the share of its true class."
    logger.log_image(f"confusion_matrix/{answers.split}", sheet, epoch, description)


def show_mistakes(logger: TensorBoardLogger, answers: EvaluatedSplit, epoch: int) -> None:
    """The wrong predictions of the highest probability."""
    confidence = answers.probabilities.max(axis=1)
    wrong = np.flatnonzero(answers.predicted != answers.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]
    if not len(worst):
        return
    names = answers.classes
    captions = [
        f"is {names[answers.labels[i]]}\n{names[answers.predicted[i]]} {100 * confidence[i]:.1f} %\n#{i}" for i in worst
    ]
    sheet = image_sheet(answers.images.pixels[worst, 0].cpu().numpy(), captions)
    description = "What each is, what it was taken for and with which probability, and its number among the images."
    logger.log_image(f"mistakes/{answers.split}", sheet, epoch, description)


def show_precision_recall(logger: TensorBoardLogger, answers: EvaluatedSplit, epoch: int) -> None:
    """A curve a class, of it against the rest."""
    for index, name in enumerate(answers.classes):
        tag = f"precision_recall_{answers.split}/{index}_" + re.sub(r"[^\w.-]", "_", name)
        is_it = (answers.labels == index).astype(np.uint8)
        logger.experiment.add_pr_curve(tag, is_it, answers.probabilities[:, index], epoch)
