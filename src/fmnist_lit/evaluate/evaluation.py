"""What a checkpoint's predictions come to: figures, tables, and a folder beside the checkpoint to keep them in."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.rules import DATASETS, RULES
from fmnist_lit.data.batches import EvaluationBatches
from fmnist_lit.data.images import Images
from fmnist_lit.processes.setup import quieten_lightning
from fmnist_lit.report.tables import Cell, escape_markdown, markdown_table
from fmnist_lit.run.files import write_durably, write_json
from fmnist_lit.trained.classifier import TrainedClassifier
from fmnist_lit.trained.data import open_data
from fmnist_lit.trained.find import Trained
from fmnist_lit.trained.load import load_trained, require_buildable

NUM_BINS = 15  # of confidence, as in Guo et al., On Calibration of Modern Neural Networks, 2017
NUM_MISTAKES = 24
SPLITS = {"test": "test", "val": "validation", "train": "training"}  # for people


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence, the probability of the predicted class, is over ``lower`` up to ``upper``."""

    lower: float
    upper: float
    samples: int
    confidence: float | None  # mean; None where there are no samples
    accuracy: float | None


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
        as_in_results: whether accuracy and loss are those of the run's ``results.json``, to the last digit; None where
            that does not say what they are for this checkpoint and split.
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
    flip_average: tuple[float, float] | None
    confusion: list[list[int]]
    bins: list[Bin]
    mistakes: list[Mistake]

    @property
    def samples(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def standard_error(self) -> float:
        """Of the accuracy p, as far as the number of images N limits it: √(p(1 − p)/N)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.samples)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the sum over the bins of n/N · |accuracy − mean confidence|."""
        return sum(b.samples * abs(b.accuracy - b.confidence) for b in self.bins if b.samples) / self.samples

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
        """Which figures these are, in a line."""
        return f"{self.trained.name}: {DATASETS[self.dataset]}, {self.samples} {SPLITS[self.split]} images"

    @property
    def summary(self) -> str:
        """What a person wants to know first."""
        other = ", NOT as in results.json: another device, number of processes or version rounds otherwise"
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
        """Markdown, in percent."""
        return markdown_table(
            [
                {"class": Cell(row["class"])}
                | {name: percent(row[name]) for name in ("precision", "recall", "F1")}
                | {"support": Cell(str(row["support"]), row["support"])}
                for row in self.per_class
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        fields = {key: value for key, value in asdict(self).items() if key != "trained"}
        computed = ("samples", "standard_error", "calibration_error", "per_class")
        return {"name": self.trained.name, **fields, **{name: getattr(self, name) for name in computed}}


def percent(fraction: float | None) -> Cell:
    """A cell of a table, to the right even where it is empty."""
    return Cell("–", -1.0) if fraction is None else Cell(f"{100 * fraction:.1f} %", fraction)


def evaluate(trained: Trained, split: str = "test", data_dir: str | None = None) -> tuple[Evaluation, np.ndarray]:
    """Evaluate a checkpoint on a split of its run's data set.

    Returns:
        The evaluation, and the images that it is of, (N, 28, 28) uint8.

    Raises:
        RuntimeError: if the checkpoint or the data set is missing or damaged.
        ValueError: if the checkpoint's configuration is none of a run's, or the run has no images of this split.
        ArithmeticError: if the loss is not finite.
    """
    classifier = load_trained(trained.file)
    images, logits, metrics = run_through(classifier, split, data_dir)
    accuracy, loss = (metrics[f"{kind}/test"] for kind in ("accuracy", "loss"))
    probabilities = logits.softmax(dim=1).numpy()
    labels, predicted, confidence = images.labels.numpy(), probabilities.argmax(axis=1), probabilities.max(axis=1)
    written = [trained.results.get(f"{split}_{kind}") for kind in ("accuracy", "loss")]
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]
    evaluation = Evaluation(
        trained=trained,
        dataset=classifier.dataset,
        split=split,
        classes=classifier.classes,
        accuracy=accuracy,
        loss=loss,
        # a run's training figures are of weights that still changed
        as_in_results=None if split == "train" or None in written else written == [accuracy, loss],
        flip_average=tuple(metrics[f"{kind}/test_flip_average"] for kind in ("accuracy", "loss"))
        if "loss/test_flip_average" in metrics
        else None,
        confusion=multiclass_confusion_matrix(
            torch.from_numpy(predicted), images.labels, len(classifier.classes)
        ).tolist(),
        bins=bins(confidence, predicted == labels),
        mistakes=[Mistake(int(i), int(labels[i]), int(predicted[i]), float(confidence[i])) for i in wrong],
    )
    return evaluation, images.pixels[:, 0].numpy()


def bins(confidence: np.ndarray, correct: np.ndarray) -> list[Bin]:
    """Predictions by confidence, in ``NUM_BINS`` bins of equal width over 0..1; both arrays are (N,)."""
    number = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    result = []
    for index in range(NUM_BINS):
        members = number == index
        means = [float(values[members].mean()) if members.any() else None for values in (confidence, correct)]
        result.append(Bin(index / NUM_BINS, (index + 1) / NUM_BINS, int(members.sum()), *means))
    return result


def run_through(
    classifier: TrainedClassifier, split: str, data_dir: str | None
) -> tuple[Images, torch.Tensor, dict[str, float]]:
    """What a run's own test does, on any split: the same batches, sums, precision and threads, so the same figures.

    Returns:
        The images, their logits (N, 10) float64, and the figures by TensorBoard tag, as of a test.
    """
    require_buildable(classifier.configuration, "loss")
    settings, results = classifier.configuration["trainer"], classifier.source.results
    for key in ("precision", "matmul_precision"):
        if not RULES[f"trainer.{key}"].check(settings.get(key, "highest")):
            raise ConfigError(f"trainer.{key}={settings[key]}: must be {RULES[f'trainer.{key}'].allowed}")
    quieten_lightning()
    threads = results.get("num_threads") or classifier.configuration.get("num_threads")
    with same_arithmetic(threads, settings.get("matmul_precision", "highest")):
        trainer = Trainer(
            accelerator=accelerator(results.get("device")),
            devices=1,
            precision=settings["precision"],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        datamodule = open_data(classifier, data_dir)
        datamodule.trainer = trainer
        datamodule.setup()
        images = getattr(datamodule, f"{split}_images")
        if not len(images):
            raise ValueError(f"{classifier.source.name}: its run has no {SPLITS[split]} images")
        flip_average = classifier.configuration.get("flip_average") is True
        loss = instantiate(classifier.configuration["loss"])
        module = Classifier(classifier.model, loss, watched=(), flip_average=flip_average)
        logits: list[torch.Tensor] = []
        hook = module.model.register_forward_hook(lambda *call: logits.append(call[-1].double().cpu()))
        trainer.test(module, EvaluationBatches(datamodule, images), verbose=False)
        hook.remove()
    plain = logits[:: 1 + flip_average]  # every other call was for the mirror images
    return images.to(torch.device("cpu")), torch.cat(plain), dict(module.figures)


@contextlib.contextmanager
def same_arithmetic(num_threads: int | None, matmul_precision: str) -> Iterator[None]:
    """Compute as the run did, on as many threads: other numbers of them round sums otherwise."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(num_threads or before[0])
    torch.set_float32_matmul_precision(matmul_precision)
    yield
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])


def accelerator(device: str | None) -> str:
    """Lightning's name for the kind of device that a run was on, where there is one here."""
    kind = (device or "").split(":")[0]
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return kind if here.get(kind) else "auto"


def write(evaluation: Evaluation, images: np.ndarray) -> Path:
    """Put ``evaluation.json``, ``evaluation.md`` and the pictures beside the checkpoint.

    Returns:
        The folder.

    Raises:
        OSError: if it cannot be written to.
    """
    from fmnist_lit.evaluate.charts import draw  # matplotlib takes its time

    folder = evaluation.trained.folder / "evaluation" / f"{evaluation.trained.file.stem}_{evaluation.split}"
    write_json(folder / "evaluation.json", evaluation.to_json())
    pictures = draw(evaluation, images)
    for picture in pictures:
        write_durably(folder / f"{picture.name}.png", lambda file, png=picture.png: file.write(png))
    parts = [f"# {escape_markdown(evaluation.title)}", evaluation.summary.split("\n", 1)[1], evaluation.per_class_table]
    parts += [f"![{escape_markdown(picture.caption)}]({picture.name}.png)" for picture in pictures]
    write_durably(folder / "evaluation.md", lambda file: file.write(("\n\n".join(parts) + "\n").encode()))
    return folder


def comparison(evaluations: Sequence[Evaluation]) -> str:
    """A Markdown table of several, the most accurate first."""
    rows = []
    for evaluation in sorted(evaluations, key=lambda evaluation: -evaluation.accuracy):
        worst = min(evaluation.per_class, key=lambda row: math.inf if row["F1"] is None else row["F1"])
        rows.append(
            {
                "checkpoint": Cell(evaluation.trained.name),
                "data": Cell(DATASETS[evaluation.dataset]),
                "images": Cell(f"{evaluation.samples} {evaluation.split}", evaluation.samples),
                "accuracy": Cell(
                    f"{100 * evaluation.accuracy:.2f} ± {100 * evaluation.standard_error:.2f} %", evaluation.accuracy
                ),
                "loss": Cell(f"{evaluation.loss:.4f}", evaluation.loss),
                "calibration error": Cell(f"{100 * evaluation.calibration_error:.2f} %", evaluation.calibration_error),
                "lowest F1": Cell(f"{worst['class']} {100 * worst['F1']:.1f} %"),
            }
        )
    return markdown_table(rows)
