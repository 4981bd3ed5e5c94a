"""Data-parallel runs: one process a device, started here, or each with the same command line by torchrun or srun."""

import contextlib
import functools
import importlib
import logging
import math
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, NoReturn, cast

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from omegaconf import DictConfig

from fmnist_lit.config import ConfigError
from fmnist_lit.processes.signals import SIGNALS, InterruptedRunError, stop_request
from fmnist_lit.processes.streams import guard_streams

START = "fmnist_lit/start"  # the key under which rank 0 broadcasts what the others start with
START_METHOD = "spawn" if sys.platform == "win32" else "forkserver"
left_open: contextlib.ExitStack | None = None  # of a rank: what it closes before it says that it has ended
GRACE_PERIOD = 10.0  # seconds that the other ranks get to end by themselves once one has failed


class RankDiedError(RuntimeError):
    """A rank ended without a word."""


@dataclass(frozen=True)
class Place:
    """The place of this process among those that another program started with the same command line."""

    starter: str
    rank: int
    world_size: int


def outside() -> Place | None:
    """The place that torchrun or srun gave to this process; None if it is on its own."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        place = Place("torchrun", int(env["RANK"]), int(env["WORLD_SIZE"]))
    elif "SLURM_STEP_NUM_TASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        place = Place("srun", int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]))
    else:
        return None
    return place if place.world_size > 1 else None


def num_processes(cfg: DictConfig) -> int:
    """How many processes a run has on this machine."""
    devices = cfg.trainer.devices
    if devices != "auto":
        return devices if isinstance(devices, int) else max(1, len(devices))
    if cfg.trainer.accelerator in ("cpu", "mps"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def require_world_size(cfg: DictConfig) -> None:
    """Refuse a number of processes other than the one there is.

    Raises:
        ConfigError: naming both.
    """
    place, nodes = outside(), cfg.trainer.get("num_nodes", 1)
    if place is None and nodes > 1:
        raise ConfigError(f"trainer.num_nodes={nodes}: start the command on every node, with torchrun or srun")
    if place is not None and place.world_size != num_processes(cfg) * nodes:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: {place.starter} started {place.world_size} processes; "
            "needs one for each device (times trainer.num_nodes)"
        )


def find_function(name: str) -> Callable[..., Any]:
    """The function of that dotted name; its module is imported."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


# Ranks that torchrun or srun started


def broadcast(place: Place, text: str) -> None:
    """Send ``text`` to the other ranks; for rank 0."""
    key_value_store(place).set(START, text)


def receive(place: Place) -> str:
    """What rank 0 broadcasts; empty if it has gone."""
    try:
        text: bytes = key_value_store(place).get(START)
        return text.decode()
    except RuntimeError:
        return ""


@functools.cache  # rank 0 may serve it, to the end
def key_value_store(place: Place) -> Any:
    """The store through which the ranks rendezvous, Lightning's too."""
    from torch.distributed.rendezvous import rendezvous

    if place.starter == "srun":
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
    store, _, _ = next(rendezvous("env://", place.rank, place.world_size))
    return store


# The process that starts the ranks and waits for them


def train_on_ranks(train: str, world_size: int, cfg: DictConfig) -> dict[str, Any]:
    """Train in ``world_size`` new processes; they get the configuration, not the command line.

    Args:
        train: the dotted name of a function of the configuration to the figures for ``results.json``.
        world_size: how many processes.
        cfg: the configuration.

    Where a system can fork, they are forks of a server that has imported what they need and done nothing else, so that
    forking is safe and the imports are paid for once, in a sweep too.

    Returns:
        What rank 0 returned.

    Raises:
        RankDiedError: if one of the processes did.
        Exception: what ``train`` raises, in whichever process.
    """
    context: Any = multiprocessing.get_context(START_METHOD)
    if START_METHOD == "forkserver":
        context.set_forkserver_preload([train.rpartition(".")[0]])
    ranks: dict[Any, BaseProcess] = {}
    with tempfile.TemporaryDirectory(prefix="fmnist_lit-") as folder, stop_request.deferring():
        try:
            with blocked_signals():
                for rank in range(world_size):
                    receiver, sender = context.Pipe(duplex=False)
                    arguments = (
                        rank,
                        world_size,
                        train,
                        cfg,
                        HydraConfig.instance().cfg,
                        dict(os.environ),
                        folder,
                        sender,
                    )
                    process = context.Process(target=take_part, args=arguments, name=f"rank {rank}")
                    with main_module_aside():
                        process.start()
                    sender.close()
                    ranks[receiver] = process
            figures, errors = listen(ranks)
            for process in ranks.values():
                process.join(0 if errors else GRACE_PERIOD)
        finally:
            for process in ranks.values():
                process.kill()
                process.join()
    if errors:
        raise_cause(errors)
    return figures


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Start processes that are not to be reached by a signal before they can handle it, as by a Ctrl-C to all."""
    if sys.platform == "win32":  # has no mask; a console's Ctrl-C reaches all of its processes
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_module_aside() -> Iterator[None]:
    """Start a process that does not run the script of this one again, as Python would let it; a rank needs none."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def listen(ranks: Mapping[Any, BaseProcess]) -> tuple[dict[str, Any], list[BaseException]]:
    """Wait until all ranks have ended, or one has failed and ``GRACE_PERIOD`` is over; pass a signal on to all of them.

    Returns:
        The figures of rank 0, and the errors of the others in the order in which they came.
    """
    figures: dict[str, Any] = {}
    errors: list[BaseException] = []
    listening, passed_on, deadline = set(ranks), False, math.inf
    while listening and time.monotonic() < deadline:
        if stop_request.signum is not None and not passed_on:
            passed_on = True
            for process in ranks.values():
                pass_on(stop_request.signum, process)
        answered: list[Any] = wait(listening, timeout=0.1)
        for connection in answered:
            listening.discard(connection)
            try:
                outcome = connection.recv()
            except EOFError:
                outcome = died(ranks[connection], len(ranks))
            if isinstance(outcome, BaseException):
                errors.append(outcome)
                deadline = min(deadline, time.monotonic() + GRACE_PERIOD)
            else:
                figures = figures or outcome
    return figures, errors


def pass_on(signum: int, process: BaseProcess) -> None:
    """Send a signal to a rank; on Windows that would kill it, and the console has told it already."""
    if sys.platform != "win32" and process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def died(process: BaseProcess, world_size: int) -> BaseException:
    """Why a rank said nothing before it ended."""
    process.join()
    exit_code = process.exitcode or 0
    if -exit_code in SIGNALS:
        return InterruptedRunError(-exit_code)
    how = f"exit code {exit_code}" if exit_code >= 0 else signal_name(-exit_code)
    return RankDiedError(f"{process.name} of {world_size} died ({how})")


def signal_name(signum: int) -> str:
    """As people know it; some have but a number."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def raise_cause(errors: Sequence[BaseException]) -> NoReturn:
    """Raise the error that the others follow from: when one rank ends, the rest lose their connection to it."""
    # a loss that is not finite is an ArithmeticError
    causes = (InterruptedRunError, RankDiedError, ArithmeticError, ConfigError, BaseException)
    cause = min(errors, key=lambda error: next(i for i, kind in enumerate(causes) if isinstance(error, kind)))
    if isinstance(cause, InterruptedRunError) and stop_request.signum is None:
        stop_request.signum = cause.signum  # only the ranks got it
    raise cause


# A rank


def take_part(
    rank: int,
    world_size: int,
    train: str,
    cfg: DictConfig,
    hydra: DictConfig | None,
    environment: Mapping[str, str],
    folder: str,
    starter: Any,
) -> None:
    """Be a rank: train, and send the figures or the error to the process that started it, and end when that does."""
    global left_open
    threading.Thread(target=end_with_starter, daemon=True).start()
    guard_streams()
    os.environ.update(environment)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    if sys.platform != "win32":  # there Gloo takes another kind of name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    set_up_hydra(rank, hydra)
    with stop_request.listening(), stop_request.deferring():
        stop_request.second_is_final = False  # both the terminal and the starter may send one
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        outcome: Any = None
        try:
            from torch.distributed import FileStore, init_process_group  # type: ignore[attr-defined]  # torch's own list

            init_process_group(store=FileStore(f"{folder}/store", world_size), rank=rank, world_size=world_size)
            with contextlib.ExitStack() as left_open:
                outcome = find_function(train)(cfg)
        except (Exception, InterruptedRunError) as error:
            outcome = sendable(error)
        starter.send(outcome)


def end_with_starter() -> None:
    """Wait for the death of the process that started this one, and follow it."""
    starter = multiprocessing.parent_process()
    assert starter is not None
    starter.join()
    os._exit(1)


def loopback() -> str:
    """The network interface that leads to this machine itself."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def set_up_hydra(rank: int, hydra: DictConfig | None) -> None:
    """Make what Hydra knows of the job known here; let only rank 0 log and warn."""
    setup_globals()
    HydraConfig.instance().cfg = cast(HydraConf, hydra)
    if rank:
        logging.disable()
        warnings.simplefilter("ignore")
    elif hydra is not None:
        configure_log(hydra.hydra.job_logging, hydra.hydra.verbose)


def sendable(error: BaseException) -> BaseException:
    """An error that another process can raise, with the traceback as its note."""
    note = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
