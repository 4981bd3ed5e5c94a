"""Starting from the weights of an earlier run, with everything else new."""

import logging

import torch
from torch import nn

from fmnist_lit.config import ConfigError
from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint
from fmnist_lit.run.find import find_initial

log = logging.getLogger(__name__)


def load_initial_weights(model: nn.Module, init_from: str) -> None:
    """Put the weights of an earlier run into a model, those that have a place in it, and say which have not.

    Args:
        model: of any kind; what does not fit, such as the head for other classes, stays as it was initialised.
        init_from: a run folder or a checkpoint.

    Raises:
        ConfigError: if it cannot be read, or nothing of it fits.
    """
    source = find_initial(init_from)
    try:
        content = load_checkpoint(source.file)
    except CheckpointError as error:
        raise ConfigError(f"init_from={error}") from error
    saved = {name.removeprefix("model."): t for name, t in content["state_dict"].items() if name.startswith("model.")}
    here = model.state_dict()
    fitting = {name: t for name, t in saved.items() if name in here and here[name].shape == t.shape}
    if not any(t.is_floating_point() for t in fitting.values()):
        raise ConfigError(f"init_from={init_from}: none of its weights has the name and shape of one of this model")
    if not all(torch.isfinite(t).all() for t in fitting.values()):
        raise ConfigError(f"init_from={init_from}: its weights are not finite numbers")
    model.load_state_dict(fitting, strict=False)
    log.info("Starts from %s (epoch %d): %d of %d tensors", source.file, content["epoch"] + 1, len(fitting), len(here))
    unfit = [name for name in {**here, **saved} if name not in fitting]
    if unfit:
        shapes = [f"{name} ({shape_of(saved, name)} there, {shape_of(here, name)} here)" for name in unfit]
        log.info("Not loaded: %s", ", ".join(shapes))


def shape_of(state: dict[str, torch.Tensor], name: str) -> str:
    """The shape of a tensor in words; ``none`` where there is no such tensor."""
    return str(tuple(state[name].shape)) if name in state else "none"
