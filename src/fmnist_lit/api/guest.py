"""A run in somebody's process, such as a notebook's: one at a time, and what it changes there it puts back."""

import contextlib
import logging
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf.basecontainer import BaseContainer

from fmnist_lit.processes.signals import stop_request

HYDRA: tuple[type, ...] = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)  # what there is one of in a process
# That we or Lightning set; a thread may set others in the meantime, and these stay
VARIABLES = ("FMNIST_DATA_DIR", "OMP_NUM_THREADS", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
turn = threading.Lock()  # Hydra, logging, signals and the random streams are of the whole process
taken_by: int | None = None  # the thread whose turn it is


@contextlib.contextmanager
def being_a_guest() -> Iterator[None]:
    """Wait until no other thread runs anything here; then leave Hydra, logging, warnings and variables as they are.

    A signal asks the run to stop, as on the command line; a second one stops it at once, but does not end the process.

    Raises:
        RuntimeError: if it is asked for within itself.
    """
    global taken_by
    if taken_by == threading.get_ident():
        raise RuntimeError("a run cannot start another run in its own thread")
    with turn:
        taken_by = threading.get_ident()
        stop_request.is_guest = True
        try:
            with stop_request.listening(), contextlib.ExitStack() as changes:
                for keeping in (keeping_hydra, keeping_logging, keeping_variables, warnings.catch_warnings):
                    changes.enter_context(keeping())
                try:
                    yield
                finally:
                    with stop_request.deferring():
                        changes.close()
        finally:
            stop_request.is_guest = False
            taken_by = None


@contextlib.contextmanager
def keeping_hydra() -> Iterator[None]:
    """Let another application's Hydra, initialised or in the middle of a job, be there again afterwards."""
    instances: dict[Any, Any] = Singleton._instances
    before = {kind: instances.pop(kind, None) for kind in HYDRA}
    resolvers = dict(BaseContainer._resolvers)
    try:
        yield
    finally:
        for kind, instance in before.items():
            instances.pop(kind, None)
            if instance is not None:
                instances[kind] = instance
        BaseContainer._resolvers.update(resolvers)


@contextlib.contextmanager
def keeping_logging() -> Iterator[None]:
    """Let Hydra's configuration of logging, which closes every handler that it knows of, know of none but its own."""
    root, everywhere, by_name = logging.getLogger(), logging._handlerList, logging._handlers  # type: ignore[attr-defined]
    known, named = everywhere[:], dict(by_name)
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    before = [(each, vars(each).copy(), each.handlers[:], each.filters[:]) for each in loggers]
    raises = logging.raiseExceptions
    everywhere.clear()
    by_name.clear()
    try:
        yield
    finally:
        for handler in list(by_name.values()):
            handler.close()
        for logger, attributes, handlers, filters in before:
            logger.setLevel(attributes["level"])
            logger.propagate, logger.disabled = attributes["propagate"], attributes["disabled"]
            logger.handlers[:], logger.filters[:] = handlers, filters
        everywhere[:0] = [handler for handler in known if handler() is not None]
        by_name.update(named)
        logging.raiseExceptions = raises


@contextlib.contextmanager
def keeping_variables() -> Iterator[None]:
    """Put the environment's variables back that a run sets."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def keeping_torch() -> Iterator[None]:
    """Put the random streams, the number of threads and the switches of torch back; it is imported only now."""
    import lightning.pytorch  # noqa: F401  makes its loggers, whose levels a run changes
    import numpy as np
    import torch

    cudnn = torch.backends.cudnn
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    switches = cudnn.benchmark, cudnn.deterministic
    streams: list[tuple[Callable[[Any], Any], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        streams.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        streams.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    try:
        yield
    finally:
        for put_back, state in streams:
            put_back(state)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
        cudnn.benchmark, cudnn.deterministic = switches
