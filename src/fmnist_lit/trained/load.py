"""From a file, which may be a stranger's, to a trained classifier; nothing in the file is executed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_value
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.config.tree import walk
from fmnist_lit.config.trust import require_trusted
from fmnist_lit.data.images import Scaling
from fmnist_lit.errors import in_one_line
from fmnist_lit.model import MLP
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.trained.classifier import TrainedClassifier
from fmnist_lit.trained.find import Trained, find_trained

# The classes that a checkpoint may name in each group of its configuration that is built again
BUILDABLE = {
    "model": re.compile(r"fmnist_lit\.model\.MLP"),
    "loss": re.compile(r"torch\.nn\.[A-Z]\w*Loss|fmnist_lit\.losses\.[A-Z]\w*"),
    "data": re.compile(r"fmnist_lit\.data\.FashionMNISTDataModule"),
}


def load_trained(path: str | Path) -> TrainedClassifier:
    """As ``fmnist_lit.load_classifier``, which says more."""
    source = find_trained(path)
    if source.file.suffix == ".safetensors":
        return load_safetensors(source, source.file.read_bytes())
    content = load_checkpoint(source.file)
    state = {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}
    is_after_epoch = content.get("position") is None and isinstance(content.get("metrics"), dict)
    # in a checkpoint from mid-epoch, any figures are of earlier weights
    figures = content["metrics"] if is_after_epoch else {}
    metrics = {
        f"{split}_{kind}": source.results.get(f"{split}_{kind}", figures.get(f"{kind}/{split}"))
        for split in ("test", "val")
        for kind in ("accuracy", "loss")
    }
    return rebuild(source, content["hyper_parameters"], state, metrics)


def load_safetensors(source: Trained, content: bytes) -> TrainedClassifier:
    """A classifier from the content of a file that ``export --format safetensors`` wrote.

    Raises:
        CheckpointError: if it is damaged, or something else.
    """
    try:
        from safetensors.torch import load as load_tensors
    except ImportError:
        raise CheckpointError(f"{source.file}: safetensors is not installed; fmnist_lit[export] brings it") from None
    try:
        state = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = {key: json.loads(value) for key, value in header["__metadata__"].items() if key != "format"}
        hyper_parameters = metadata["configuration"] | {key: metadata[key] for key in ("dataset", "scaling")}
        metrics = metadata["metrics"]
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(f"{source.file}: not weights that fmnist_lit exported ({in_one_line(error)})") from error
    return rebuild(source, hyper_parameters, state, metrics)


def rebuild(
    source: Trained, hyper_parameters: Mapping[str, Any], state: dict[str, Tensor], metrics: Mapping[str, Any]
) -> TrainedClassifier:
    """The classifier that a file describes by its configuration, weights and figures.

    Raises:
        CheckpointError: naming the file, if no run could have that configuration, or the weights do not fit it.
    """
    try:
        require_buildable(hyper_parameters, "model")
        options = {key: value for key, value in hyper_parameters["model"].items() if key != "_target_"}
        with torch.device("meta"):  # takes no memory before the weights are known to fit, and draws no random numbers
            model = MLP(**options)
        model.load_state_dict(state, assign=True)
        if not all(weights.isfinite().all() for weights in state.values()):
            raise ValueError("its weights are not finite numbers")
        dataset = hyper_parameters.get("dataset")
        if dataset not in DATASETS:
            raise ValueError(f"dataset={dataset}: must be {' or '.join(DATASETS)}")
        scaling = scaling_of(hyper_parameters)
        known = {name: float(value) for name, value in metrics.items() if value is not None}
    except Exception as error:
        raise CheckpointError(f"{source.file}: not a classifier that can be rebuilt ({in_one_line(error)})") from error
    if next(model.parameters()).dtype != torch.float64:
        model = model.float()  # half precision becomes single, which loses nothing
    return TrainedClassifier(
        source, model.eval().requires_grad_(False), scaling, dict(hyper_parameters), dataset, known
    )


def scaling_of(hyper_parameters: Mapping[str, Any]) -> Scaling:
    """How a run scaled raw pixels."""
    if "scaling" in hyper_parameters:
        return Scaling(*(float(hyper_parameters["scaling"][key]) for key in ("mean", "std")))
    if hyper_parameters["data"]["normalize"]:  # an old checkpoint, without the scaling
        raise ValueError("data.normalize=true, but mean and standard deviation are not in it")
    return Scaling()


def require_buildable(hyper_parameters: Mapping[str, Any], *groups: str) -> None:
    """Refuse groups of a configuration that are about to be built, unless they could be those of a run.

    Raises:
        ConfigError: naming the key.
    """
    part = {group: hyper_parameters[group] for group in groups}
    if "${" in repr(part):  # a run saves resolved values; resolving could reveal environment variables
        raise ConfigError(f"{', '.join(groups)}: must hold values, not references")
    for path, value in walk(OmegaConf.create(part)):
        require_trusted(path, value)
        check_value(".".join(path), path, value)
        if path[-1] == "_target_" and not BUILDABLE[path[0]].fullmatch(value):
            raise ConfigError(f"{'.'.join(path)}={value}: not what a checkpoint may name")
    for group in groups:
        if "_target_" not in part[group]:
            raise ConfigError(f"{group}._target_: missing")
