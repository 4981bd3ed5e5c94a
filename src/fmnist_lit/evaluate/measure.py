"""Evaluate a checkpoint: run its split through the model exactly as the run's own test did, and count."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist_lit.build import build
from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.rules import RULES
from fmnist_lit.data.batches import EvaluationBatches
from fmnist_lit.data.images import Images
from fmnist_lit.evaluate.evaluation import NUM_MISTAKES, SPLIT_NAMES, Evaluation, Mistake, calibration_bins
from fmnist_lit.processes.setup import quieten_lightning
from fmnist_lit.run.checkpoint import load_checkpoint, weights_digest
from fmnist_lit.run.find import Trained
from fmnist_lit.run.provenance import provenance
from fmnist_lit.trained.classifier import TrainedClassifier
from fmnist_lit.trained.data import open_data
from fmnist_lit.trained.load import load_trained, require_buildable


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
    images, logits, metrics = predict_split(classifier, split, data_dir)
    accuracy, loss = metrics["accuracy/test"], metrics["loss/test"]
    flip_average = None
    if "loss/test_flip_average" in metrics:
        flip_average = metrics["accuracy/test_flip_average"], metrics["loss/test_flip_average"]
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
        # during training the weights change from batch to batch, so these figures are of no single checkpoint
        as_in_results=None if split == "train" or None in written else written == [accuracy, loss],
        difference=why_different(trained, split, len(images)),
        flip_average=flip_average,
        confusion=multiclass_confusion_matrix(
            torch.from_numpy(predicted), images.labels, len(classifier.classes)
        ).tolist(),
        bins=calibration_bins(confidence, predicted == labels),
        mistakes=[Mistake(int(i), int(labels[i]), int(predicted[i]), float(confidence[i])) for i in wrong],
    )
    return evaluation, images.pixels[:, 0].numpy()


def why_different(trained: Trained, split: str, images: int) -> str:
    """What may make figures differ from those in ``results.json``; that it is not known, where nothing is found."""
    results = trained.results
    reasons = [f"those are partial, {results['partial']}"] if results.get("partial") else []
    if not reasons and results.get(f"{split}_images") not in (None, images):
        reasons.append(f"those are of {results[f'{split}_images']} images, these of {images}")
    tested = results.get("weights_sha256")
    if tested and tested != weights_digest(load_checkpoint(trained.file)["state_dict"]):
        reasons.append(f"{trained.file.name} does not hold the weights that were tested")
    if results.get("num_processes", 1) > 1:
        reasons.append(f"{results['num_processes']} processes summed them up")
    then, now = results.get("provenance") or {}, provenance()
    for key in ("torch", "processor", "lightning", "fmnist_lit"):
        if key in then and then[key] != now[key]:
            reasons.append(f"{key} was {then[key]}, is {now[key]}")
    if available_accelerator(results.get("device")) == "auto":
        reasons.append(f"they were computed on {results.get('device')}")
    return "; ".join(reasons) or "the reason is not known"


def predict_split(
    classifier: TrainedClassifier, split: str, data_dir: str | None
) -> tuple[Images, torch.Tensor, dict[str, float]]:
    """Do what the run's own test did, on any split: the same batches, precision and threads give the same figures.

    Returns:
        The images, their logits (N, 10) float64, and the metrics by the names that a test gives them.
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
            accelerator=available_accelerator(results.get("device")),
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
            raise ValueError(f"{classifier.source.name}: its run has no {SPLIT_NAMES[split]} images")
        flip_average = classifier.configuration.get("flip_average") is True
        loss = build(OmegaConf.create(classifier.configuration["loss"]))
        module = Classifier(classifier.model, loss, watched=(), flip_average=flip_average)
        logits: list[torch.Tensor] = []
        hook = module.model.register_forward_hook(lambda *call: logits.append(call[-1].double().cpu()))
        trainer.test(module, EvaluationBatches(datamodule, images), verbose=False)
        hook.remove()
    plain = logits[:: 1 + flip_average]  # every other call was for the mirror images
    return images.to(torch.device("cpu")), torch.cat(plain), dict(module.figures)


@contextlib.contextmanager
def same_arithmetic(num_threads: int | None, matmul_precision: str) -> Iterator[None]:
    """Compute with the run's number of threads and precision: sums round differently with others."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(num_threads or before[0])
    torch.set_float32_matmul_precision(matmul_precision)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def available_accelerator(device: str | None) -> str:
    """Lightning's name for the kind of device that the run used, or ``auto`` if this machine has none."""
    kind = (device or "").split(":")[0]
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return kind if here.get(kind) else "auto"
