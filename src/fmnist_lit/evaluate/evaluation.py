"""An evaluation: what a checkpoint's predictions for a split come to, as figures, text and JSON."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fmnist_lit.config.rules import title_of
from fmnist_lit.report.tables import Cell, markdown_table
from fmnist_lit.run.find import Trained

NUM_BINS = 15  # of confidence, as in Guo et al., On Calibration of Modern Neural Networks, 2017
NUM_MISTAKES = 24
SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence, the probability of the predicted class, is over ``lower`` up to ``upper``."""

    lower: float
    upper: float
    samples: int
    confidence: float | None  # mean; None where there are no samples
    accuracy: float | None

    @property
    def gap(self) -> float:
        """How far confidence and accuracy lie apart; 0 where there are no samples."""
        return 0.0 if self.confidence is None or self.accuracy is None else abs(self.accuracy - self.confidence)


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction: the image's index in its split, both classes, and the probability of the predicted one."""

    index: int
    true: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint's predictions for a split come to; accuracies and probabilities are fractions.

    Attributes:
        trained: what was evaluated.
        as_in_results: whether accuracy and loss equal those in the run's ``results.json``, to the last digit; None
            where it has none for this checkpoint and split.
        difference: why they do not, or that it is not known.
        flip_average: accuracy and loss with logits averaged over each image and its mirror image, where the run's
            configuration asks for them.
        confusion: a row for each true class, a column for each predicted one.
        mistakes: the most confident ones first.
    """

    trained: Trained
    dataset: str
    split: str
    classes: tuple[str, ...]
    accuracy: float
    loss: float
    as_in_results: bool | None
    difference: str
    flip_average: tuple[float, float] | None
    confusion: list[list[int]]
    bins: list[Bin]
    mistakes: list[Mistake]

    @property
    def samples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def standard_error(self) -> float:
        """Of the accuracy p over N images: √(p(1 − p)/N)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.samples)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the sum over the bins of n/N · |accuracy − mean confidence|."""
        return sum(b.samples * b.gap for b in self.bins) / self.samples

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """Precision, recall, F1 (None where they are 0/0) and support of each class."""
        rows = []
        for index, name in enumerate(self.classes):
            hits, support = self.confusion[index][index], sum(self.confusion[index])
            predicted = sum(row[index] for row in self.confusion)
            figures = {
                "precision": hits / predicted if predicted else None,
                "recall": hits / support if support else None,
                "F1": 2 * hits / (predicted + support) if predicted + support else None,
            }
            rows.append({"class": name, **figures, "support": support})
        return rows

    @property
    def title(self) -> str:
        """The checkpoint, the data set and the split, in one line."""
        return f"{self.trained.name}: {title_of(self.dataset)}, {self.samples} {SPLIT_NAMES[self.split]} images"

    @property
    def summary(self) -> str:
        """Accuracy, loss and calibration in a few lines."""
        other = f", NOT as in results.json: {self.difference}"
        remark = {None: "", True: ", as in results.json", False: other}[self.as_in_results]
        figures = 100 * self.accuracy, 100 * self.standard_error, self.loss
        flipped = []
        if self.flip_average is not None:
            accuracy, loss = self.flip_average
            flipped = [f"  averaged over flips: accuracy {100 * accuracy:.2f} %, average loss {loss:.4f}"]
        return "\n".join(
            [
                self.title,
                "  accuracy {:.2f} % ± {:.2f} (by the number of images), average loss {:.4f}".format(*figures) + remark,
                *flipped,
                f"  expected calibration error {100 * self.calibration_error:.2f} % ({NUM_BINS} bins)",
            ]
        )

    @property
    def per_class_table(self) -> str:
        """Precision, recall and F1 of each class as Markdown, in percent."""
        return markdown_table(
            [
                {"class": Cell(row["class"])}
                | {name: percent_cell(row[name]) for name in ("precision", "recall", "F1")}
                | {"support": Cell(str(row["support"]), row["support"])}
                for row in self.per_class
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values for JSON."""
        fields = {key: value for key, value in asdict(self).items() if key != "trained"}
        computed = ("samples", "standard_error", "calibration_error", "per_class")
        return {"name": self.trained.name, **fields, **{name: getattr(self, name) for name in computed}}


def percent_cell(fraction: float | None) -> Cell:
    """A fraction as a percentage in a table; – where there is none, in a column of numbers nevertheless."""
    return Cell("–", -1.0) if fraction is None else Cell(f"{100 * fraction:.1f} %", fraction)


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> list[Bin]:
    """Predictions by confidence, in ``NUM_BINS`` bins of equal width over 0..1; both arrays are (N,)."""
    number = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    result = []
    for index in range(NUM_BINS):
        members = number == index
        means = [float(values[members].mean()) if members.any() else None for values in (confidence, correct)]
        result.append(Bin(index / NUM_BINS, (index + 1) / NUM_BINS, int(members.sum()), *means))
    return result
