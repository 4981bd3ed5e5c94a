"""From a file, which may be a stranger's, to a trained classifier; nothing in the file is executed."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from fmnist_lit.build import build_model
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_value
from fmnist_lit.config.tree import walk
from fmnist_lit.config.trust import MODELS, is_of_trusted_package, require_trusted
from fmnist_lit.data.images import CLASSES, Scaling
from fmnist_lit.errors import in_one_line
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.run.find import Trained, find_trained
from fmnist_lit.trained.classifier import TrainedClassifier

# The classes that a checkpoint may name in each group of its configuration that is built again
BUILDABLE = {
    "model": re.compile(MODELS),
    "loss": re.compile(r"torch\.nn\.[A-Z]\w*Loss|fmnist_lit\.losses\.[A-Z]\w*"),
    "data": re.compile(
        r"fmnist_lit\.data\.FashionMNISTDataModule|torchvision\.datasets\.K?MNIST|fmnist_lit\.data\.image_folder\.ImageFolder"
    ),
}
WEIGHTS_ONLY = re.compile(r"fmnist_lit\.model\.(MLP|CNN)")  # what these compute when they are made is weights


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
        known = {key: metadata[key] for key in ("dataset", "scaling", "classes") if key in metadata}
        hyper_parameters = metadata["configuration"] | known
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
        classes = classes_of(hyper_parameters)
        model = make_empty_model(OmegaConf.create(hyper_parameters["model"]), len(classes))
        model.load_state_dict(state, assign=True)
        if not all(weights.isfinite().all() for weights in state.values()):
            raise ValueError("its weights are not finite numbers")
        dataset = hyper_parameters.get("dataset")
        if not isinstance(dataset, str):
            raise ValueError(f"dataset={dataset}: must be text")
        scaling = scaling_of(hyper_parameters)
        known = {name: float(value) for name, value in metrics.items() if value is not None}
    except Exception as error:
        raise CheckpointError(f"{source.file}: not a classifier that can be rebuilt ({in_one_line(error)})") from error
    if next(model.parameters()).dtype != torch.float64:
        model = model.float()  # half precision becomes single, which loses nothing
    return TrainedClassifier(
        source, model.eval().requires_grad_(False), scaling, dict(hyper_parameters), dataset, classes, known
    )


def make_empty_model(node: DictConfig, num_classes: int) -> nn.Module:
    """The model that a configuration describes, before its weights are put into it; nothing is drawn."""
    if WEIGHTS_ONLY.fullmatch(node._target_):
        with torch.device("meta"):  # takes no memory before the weights are known to fit
            return build_model(node, num_classes)
    with torch.random.fork_rng(devices=[]):
        return build_model(node, num_classes)


def classes_of(hyper_parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What the labels of a run's data set are called; checkpoints of 0.1 are all of Fashion-MNIST's ten."""
    classes = hyper_parameters.get("classes", CLASSES)
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes={classes}: must be a list of names")
    return tuple(classes)


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
    own = any(is_of_trusted_package(str(node.get("_target_"))) for node in part.values())
    for path, value in walk(OmegaConf.create(part)):
        require_trusted(path, value)
        check_value(".".join(path), path, value, has_rules=not own)
        if path[-1] == "_target_" and not (BUILDABLE[path[0]].fullmatch(value) or is_of_trusted_package(value)):
            raise ConfigError(f"{'.'.join(path)}={value}: not what a checkpoint may name")
    for group in groups:
        if "_target_" not in part[group]:
            raise ConfigError(f"{group}._target_: missing")
