"""Whether each part of a configuration exists and takes the arguments that it is given."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import ListConfig

from fmnist_lit.config import ConfigError
from fmnist_lit.config.lightning_options import REFUSED_TRAINER_OPTIONS
from fmnist_lit.config.signatures import NoSuchNameError, signature

Nodes = dict[tuple[str, ...], dict[str, Any]]  # by path, what is at each key
HYDRAS_KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")  # of a node that has a _target_
# In cfg.trainer, but not for lightning.Trainer
OWN_OPTIONS = ("matmul_precision", "max_steps", "steps_per_batch", "cuda_graph", "checkpoint_every_n_steps")
# What build.py gives to a part beside its keys, and what to write instead where there is something
GIVEN = {
    "data": dict.fromkeys(("seed", "steps_per_batch", "break_every", "evaluate_each_epoch"), ""),
}
NOT_FOR_THE_PART = {"scheduler": ("interval", "monitor")}  # keys that build.py reads itself
# What build.py gives to a part that takes it, unless its keys do
OFFERED = {"model": ("num_classes",), "data.source": ("root", "train", "split", "download")}
# Parts that are made in two steps, what they get in the second, and whether as their first argument
COMPLETED_LATER = {"optimizer": ("the parameters", True), "scheduler": ("the optimiser", True)}
COMPLETED_LATER["data.source"] = ("the split", False)
FEW = 12  # arguments, that an error lists


def check_arguments(nodes: Nodes) -> None:
    """Refuse a ``_target_`` that does not exist, a key that it does not take, and one that it lacks.

    What its source does not tell is accepted.
    """
    check_trainer(nodes["trainer",])
    for path, node in nodes.items():
        left_alone = any(nodes[path[:i]].get("_recursive_") is False for i in range(1, len(path)))
        if isinstance(node.get("_target_"), str) and not left_alone:
            check_part(path, node)


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse an option that is neither lightning.Trainer's nor ours."""
    known = trainer_options()
    for key in options:
        if known and key not in known:
            raise ConfigError(f"trainer.{key}: lightning.Trainer takes no such argument{nearest(key, known)}")


def trainer_options() -> list[str]:
    """What ``trainer`` may have; nothing where Lightning's source does not tell."""
    taken = signature("lightning.pytorch.Trainer")
    if taken is None or taken.any_name:
        return []
    return [name for name in dict.fromkeys((*taken.by_name, *OWN_OPTIONS)) if name not in REFUSED_TRAINER_OPTIONS]


def check_part(path: tuple[str, ...], node: Mapping[str, Any]) -> None:
    """Refuse a node that its ``_target_`` cannot be made of."""
    key, target = ".".join(path), node["_target_"]
    try:
        taken = signature(target)
    except NoSuchNameError as error:
        raise ConfigError(f"{key}._target_={target}: {no_such_class(error)}") from error
    later, comes_first = COMPLETED_LATER.get(key, ("", False))
    if later and node.get("_partial_") is not True:
        raise ConfigError(f"{key}._partial_: must be true, because {later} will be known later only")
    if taken is None:
        return
    name = target.rpartition(".")[2]
    arguments = [argument for argument in node if argument not in (*HYDRAS_KEYS, *NOT_FOR_THE_PART.get(key, ()))]
    args = node.get("_args_")
    num_filled = (len(args) if isinstance(args, ListConfig) else 0) + comes_first
    filled = taken.by_position[:num_filled]
    known = [argument for argument in taken.by_name if argument not in (*filled, *GIVEN.get(key, ()))]
    for argument in arguments:
        require_free(key, argument)
        if argument in filled:
            raise ConfigError(f"{key}.{argument}: must be left out, {name} gets {later or '_args_'} there")
        if argument not in taken.by_name and not taken.any_name:
            hint = nearest(argument, [*known, *HYDRAS_KEYS])
            raise ConfigError(f"{key}.{argument}: {name} takes no such argument{hint or listed(known)}")
    if node.get("_partial_") is True and not later:
        return
    for argument in taken.required:
        supplied = (*arguments, *filled, *GIVEN.get(key, ()), *OFFERED.get(key, ()))
        if argument not in supplied and not isinstance(args, str):
            raise ConfigError(f"{key}.{argument}: missing, {name} needs it")


def require_free(key: str, argument: str) -> None:
    """Refuse a key that would give a part what it is given anyway."""
    if argument in GIVEN.get(key, ()):
        instead = GIVEN[key][argument]
        raise ConfigError(f"{key}.{argument}: fmnist_lit sets it itself{instead and '; ' + instead}")


def no_such_class(error: NoSuchNameError) -> str:
    """In words, with the nearest name."""
    if error.others is None:
        return f"there is no module {error.module}{error.module and '.'}{error.name}"
    classes = [name for name in error.others if name[:1].isupper()]
    return f"no such class{nearest(error.name, classes) or f' in {error.module}'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error text: the known name nearest to a word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(known: list[str]) -> str:
    """The end of an error text: the names there are, if they are few."""
    if not known:
        return "; it takes none"
    return f"; it takes {', '.join(known)}" if len(known) <= FEW else ""
