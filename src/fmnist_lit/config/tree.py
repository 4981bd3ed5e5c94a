"""A configuration as a tree: its paths, its plain values."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from fmnist_lit.config import ConfigError

DEEPEST = 40  # levels; deeper is a configuration that refers to itself


def plain(cfg: DictConfig, *, resolve: bool) -> dict[str, Any]:
    """A configuration as nested plain values, its interpolations resolved or as they are written."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=resolve))


def walk(node: DictConfig | ListConfig, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path in the tree with its value; an interpolation that waits for Hydra to run gives its text.

    Raises:
        ConfigError: if an interpolation can never be resolved, or the tree contains itself.
    """
    if len(path) > DEEPEST:
        raise ConfigError(f"{'.'.join(path[:3])}…: nested more than {DEEPEST} levels deep")
    keys = sorted(node, key=lambda key: key == "hydra") if isinstance(node, DictConfig) else range(len(node))
    for key in keys:  # Hydra's own last: its folder names repeat what is wrong elsewhere
        here = (*path, str(key))
        try:
            value = node[key]
        except (InterpolationToMissingValueError, MissingMandatoryValue):
            value = as_written(node, key)
        except OmegaConfBaseException as error:
            value = as_written(node, key)
            if "HydraConfig was not set" not in str(error):
                reason = str(error).splitlines()[0]
                raise ConfigError(f"{'.'.join(here)}={value}: cannot be resolved: {reason}") from error
        if isinstance(value, dict | list):  # what a resolver such as oc.decode makes
            value = OmegaConf.create(value)
        yield here, value
        if isinstance(value, DictConfig | ListConfig):
            yield from walk(value, here)


def as_written(node: DictConfig | ListConfig, key: str | int) -> Any:
    """A value of a node with its interpolation unresolved."""
    written: Any = OmegaConf.to_container(node, resolve=False)
    return written[key]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat
