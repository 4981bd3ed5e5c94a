"""Configurations as Hydra composes them for a command line, with nothing run."""

import argparse
import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit.command_line.messages import explain_hydra_error, no_such_option
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_configuration, check_values
from fmnist_lit.config.overrides import as_given, parse, quoted, split_values
from fmnist_lit.run import names  # noqa: F401  registers the resolvers that name folders

INSTALLED_CONF = Path(__file__).parents[1] / "conf"
CONF = INSTALLED_CONF if INSTALLED_CONF.is_dir() else Path(__file__).parents[3] / "conf"


class Composer:
    """Composes what a command line asks for, within ``composer``.

    Args:
        args: the command line, of which only the folders of configurations count.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        folders = search_path(args)
        self.extra = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
        self.options = options_of(args)
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.accepted: dict[tuple[tuple[str, ...], tuple[str, ...]], DictConfig] = {}

    def __call__(self, *overrides: str) -> DictConfig:
        """The configuration that overrides make, with its ``hydra`` node; each is composed once, it takes 40 ms.

        Raises:
            ConfigError: if they make none.
        """
        if overrides not in self.composed:
            self.composed[overrides] = self.compose(overrides)
        return self.composed[overrides]

    def compose(self, overrides: tuple[str, ...]) -> DictConfig:
        """As ``__call__``, and not kept."""
        try:
            cfg = hydra.compose("config", [*self.extra, *overrides], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(explain_hydra_error(error, self.options)) from error
        local = cfg.hydra.runtime.choices.get("local", "default")
        if local != "default" and local not in (options := self.options("local")):  # which Hydra would pass over
            raise ConfigError(no_such_option("local", local, options))
        return cfg

    def accept(self, overrides: Sequence[Override]) -> DictConfig:
        """Compose a job's configuration and check it; of jobs that choose the same files the first is checked in full.

        Returns:
            The configuration, until the next call; its ``hydra`` node does not know the values given.

        Raises:
            ConfigError: if it may not run.
        """
        files, last = split_values(overrides)
        values = {override.key_or_group: override.value() for override in last}
        kind = files, tuple(values)
        if kind in self.accepted and not any(isinstance(value, dict) for value in values.values()):
            cfg = self.accepted[kind]
            with contextlib.suppress(OmegaConfBaseException):  # else what follows says what is wrong
                for key, value in values.items():
                    OmegaConf.update(cfg, key, value)
                check_values(cfg, values)
                return cfg
        cfg = copy.deepcopy(self(*map(as_given, overrides)))
        check_configuration(cfg)
        self.accepted[kind] = cfg
        return cfg


@contextlib.contextmanager
def composer(args: argparse.Namespace) -> Iterator[Composer]:
    """What composes configurations as Hydra itself will for a command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(args)


def search_path(args: argparse.Namespace) -> list[str]:
    """The folders of configurations beside our own, quoted for Hydra; it takes the first override that names any."""
    folders = [quoted(Path(args.config_dir).absolute())] if args.config_dir else []
    for override in parse(args.overrides):
        named = override.value() if override.key_or_group == "hydra.searchpath" else None
        if isinstance(named, list):
            folders += [quoted(str(folder)) for folder in named]
            break
    return folders


def options_of(args: argparse.Namespace) -> Callable[[str], list[str]]:
    """What tells the names of the files in a group, within ``composer``."""
    extra = [f"hydra.searchpath=[{','.join(search_path(args))}]"] if search_path(args) else []

    def options(group: str) -> list[str]:
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, ObjectType.CONFIG, "config", extra)

    return options
