"""A classifier as an ONNX model, a torch.export program or plain weights; verified, then written."""

import copy
import importlib
import io
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fmnist_lit.config import ConfigError
from fmnist_lit.config.rules import DATASETS, title_of
from fmnist_lit.data.fashion_mnist import DataDamagedError, DataMissingError
from fmnist_lit.data.synthetic import draw_split
from fmnist_lit.run.files import write_durably
from fmnist_lit.run.find import Trained
from fmnist_lit.trained.classifier import TrainedClassifier
from fmnist_lit.trained.data import open_data
from fmnist_lit.trained.load import load_safetensors

NUM_VERIFIED = 1000  # images on which an export is compared with the classifier
TOLERANCE = 1e-5
LOCAL_KEYS = ("run_dir", "data_dir", "ckpt_path")  # of the configuration: paths on the machine that trained

Outputs = tuple[Tensor, Tensor]  # probabilities and logits, both (N, C)
Export = tuple[bytes, Callable[[Tensor], Outputs]]  # the content of a file, and what runs it on raw pixels


class ExportError(RuntimeError):
    """An export computes something other than the classifier; the message says by how much."""


class FromPixels(nn.Module):
    """Raw pixels (N, 1, 28, 28) uint8, 0 (background) to 255, to probabilities and logits, both (N, 10) float32."""

    def __init__(self, classifier: TrainedClassifier) -> None:
        super().__init__()
        self.scaling = classifier.scaling
        self.model = copy.deepcopy(classifier.model).float()

    def forward(self, images: Tensor) -> Outputs:
        logits = self.model(self.scaling(images))
        return logits.softmax(dim=1), logits


def export_verified(classifier: TrainedClassifier, format: str, output: Path, data_dir: str | None = None) -> str:
    """Export to ``output``, provided that the export computes the same as the classifier.

    Returns:
        What was written and how it was verified, for people.

    Raises:
        ExportError: if a probability, or a logit as a share of the largest, differs by more than ``TOLERANCE``.
        ImportError: if the packages for this format are not installed.
        OSError: if the file cannot be written.
    """
    content, run = FORMATS[format](classifier)
    images, what = verification_images(classifier, data_dir)
    difference = largest_difference(run(images), FromPixels(classifier)(images))
    if not difference <= TOLERANCE:  # so that NaN is refused too
        raise ExportError(f"{output}: not written, its outputs differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    write_durably(output, lambda file: file.write(content))
    return (
        f"{output}: {len(content) / 1e6:.1f} MB; the largest difference on {len(images)} {what} is {difference:.1e}, "
        f"allowed {TOLERANCE:.0e}"
    )


def largest_difference(ours: Outputs, theirs: Outputs) -> float:
    """The largest difference of the probabilities, or of the logits as a share of the largest logit."""
    scales = 1.0, max(1.0, float(theirs[1].abs().max()))
    return max(float((a - b).abs().max()) / scale for a, b, scale in zip(ours, theirs, scales, strict=True))


def verification_images(classifier: TrainedClassifier, data_dir: str | None) -> tuple[Tensor, str]:
    """``NUM_VERIFIED`` test images of the run's data set, or synthetic ones where that is missing; and their name."""
    data = open_data(classifier, data_dir)
    if classifier.dataset != "synthetic":
        try:
            return data.load().test[:NUM_VERIFIED].pixels, f"test images of {title_of(classifier.dataset)}"
        except (DataMissingError, DataDamagedError, ConfigError):
            pass  # any images show whether the export computes the same
    pixels, _ = draw_split(NUM_VERIFIED, data.synthetic_seed, "test")
    return torch.from_numpy(pixels).unsqueeze(1), f"test images of the {DATASETS['synthetic']}"


def metadata(classifier: TrainedClassifier) -> dict[str, Any]:
    """What an exported file says about itself, as plain values; accuracies are fractions."""
    return {
        "classes": list(classifier.classes),
        "dataset": classifier.dataset,
        "metrics": classifier.metrics,
        "scaling": {"mean": classifier.scaling.mean, "std": classifier.scaling.std},
        "configuration": without_local_keys(classifier.configuration),
        "producer": f"fmnist_lit {version('fmnist_lit')}",
    }


def without_local_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without ``LOCAL_KEYS``, at any depth."""
    return {
        key: without_local_keys(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if key not in LOCAL_KEYS
    }


def import_extra(package: str) -> ModuleType:
    """Import a package of the ``export`` extra.

    Raises:
        ImportError: naming the extra, if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(f"{package} is not installed; pip install 'fmnist_lit[export]' installs it") from None


def to_program(classifier: TrainedClassifier) -> torch.export.ExportedProgram:
    """``FromPixels`` as a torch.export program, for any number of images."""
    example = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(
            FromPixels(classifier).eval(), (example,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
        )
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):  # they name source files of this machine
            node.meta.pop(key, None)
    return program


def to_onnx(classifier: TrainedClassifier) -> Export:
    """An ONNX model with input ``images`` and outputs ``probabilities`` and ``logits``; onnxruntime runs it."""
    onnxruntime, _ = import_extra("onnxruntime"), import_extra("onnxscript")
    program = torch.onnx.export(
        to_program(classifier),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["probabilities", "logits"],
    )
    assert program is not None  # as it is with dynamo=True
    values = metadata(classifier)
    program.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    )
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        probabilities, logits = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(probabilities), torch.from_numpy(logits)

    return content, run


def to_torch(classifier: TrainedClassifier) -> Export:
    """A file for ``torch.export.load``; the metadata are in its extra file ``metadata.json``."""
    content = io.BytesIO()
    torch.export.save(to_program(classifier), content, extra_files={"metadata.json": json.dumps(metadata(classifier))})
    content.seek(0)
    return content.getvalue(), torch.export.load(content).module()


def to_safetensors(classifier: TrainedClassifier) -> Export:
    """The weights, with JSON metadata from which ``fmnist_lit.load_classifier`` rebuilds the classifier."""
    weights = {name: tensor.contiguous() for name, tensor in classifier.model.state_dict().items()}
    values = {key: json.dumps(value) for key, value in metadata(classifier).items()}
    content: bytes = import_extra("safetensors.torch").save(weights, {"format": "pt", **values})
    return content, FromPixels(load_safetensors(Trained(classifier.source.file), content))


FORMATS = {"onnx": to_onnx, "torch": to_torch, "safetensors": to_safetensors}
