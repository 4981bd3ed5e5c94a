"""Data-parallel runs: one process a device, started here, or each with the same command line by torchrun or srun."""

import contextlib
import functools
import gc
import logging
import math
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from omegaconf import DictConfig

from fmnist_lit.config import ConfigError
from fmnist_lit.signals import SIGNALS, InterruptedRunError, stop_request
from fmnist_lit.status import DivergedError

PRELOADED = ["fmnist_lit.train"]
TOLD = "fmnist_lit"  # a key
GRACE = 10.0  # seconds that the other ranks get to end by themselves once one has failed


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


def check(cfg: DictConfig) -> None:
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


def train(cfg: DictConfig) -> dict[str, Any]:
    """``fmnist_lit.train.train`` in as many processes as ``cfg`` asks for, this one among them if it is one of several.

    Raises:
        RankDiedError: if one of the processes did.
        Exception: what ``fmnist_lit.train.train`` raises, in whichever process.
    """
    check(cfg)
    if outside() is None and num_processes(cfg) > 1:
        return train_on_ranks(cfg, num_processes(cfg))
    gc.disable()  # what an import makes stays, and looking through it for garbage takes a fifth of the time
    try:
        from fmnist_lit.train import train
    finally:
        gc.enable()
    return train(cfg)


# Ranks that torchrun or srun started


def tell(place: Place, text: str) -> None:
    """Let the other ranks know of ``text``; for rank 0."""
    meeting_point(place).set(TOLD, text)


def hear(place: Place) -> str:
    """What rank 0 tells; nothing if it has gone."""
    try:
        return meeting_point(place).get(TOLD).decode()
    except RuntimeError:
        return ""


@functools.cache  # rank 0 may serve it, to the end
def meeting_point(place: Place) -> Any:
    """The key-value store in which Lightning lets the ranks meet too."""
    from torch.distributed import rendezvous

    if place.starter == "srun":
        from lightning.fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
    store, _, _ = next(rendezvous("env://", place.rank, place.world_size))
    return store


# The process that starts the ranks and waits for them


def train_on_ranks(cfg: DictConfig, world_size: int) -> dict[str, Any]:
    """Train in ``world_size`` new processes; they get the configuration, not the command line.

    They are forks of a server that has imported what they need and done nothing else, so that forking is safe and the
    imports are paid for once, in a sweep too.

    Returns:
        What rank 0 returned.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ranks: dict[Connection, ForkServerProcess] = {}
    with tempfile.TemporaryDirectory(prefix="fmnist_lit-") as folder, stop_request.deferring():
        try:
            with blocked_signals():
                for rank in range(world_size):
                    receiver, sender = context.Pipe(duplex=False)
                    arguments = (rank, world_size, cfg, HydraConfig.instance().cfg, dict(os.environ), folder, sender)
                    process = context.Process(target=take_part, args=arguments, name=f"rank {rank}")
                    process.start()
                    sender.close()
                    ranks[receiver] = process
            figures, errors = listen(ranks)
            for process in ranks.values():
                process.join(0 if errors else GRACE)
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
    resource_tracker.ensure_running()  # it would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def listen(ranks: Mapping[Connection, ForkServerProcess]) -> tuple[dict[str, Any], list[BaseException]]:
    """Wait until all ranks have ended, or one has failed and ``GRACE`` is over; pass a signal on to all of them.

    Returns:
        The figures of rank 0, and the errors of the others in the order in which they came.
    """
    figures, errors = {}, []
    listening, told, deadline = set(ranks), False, math.inf
    while listening and time.monotonic() < deadline:
        if stop_request.signum is not None and not told:
            told = True
            for process in ranks.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, stop_request.signum)
        for connection in wait(listening, timeout=0.1):
            listening.discard(connection)
            try:
                outcome = connection.recv()
            except EOFError:
                outcome = died(ranks[connection], len(ranks))
            if isinstance(outcome, BaseException):
                errors.append(outcome)
                deadline = min(deadline, time.monotonic() + GRACE)
            figures = figures or outcome
    return figures, errors


def died(process: ForkServerProcess, world_size: int) -> BaseException:
    """Why a rank said nothing before it ended."""
    process.join()
    if -process.exitcode in SIGNALS:
        return InterruptedRunError(-process.exitcode)
    how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
    return RankDiedError(f"{process.name} of {world_size} died ({how})")


def raise_cause(errors: Sequence[BaseException]) -> NoReturn:
    """Raise the error that the others follow from: when one rank ends, the rest lose their connection to it."""
    causes = (InterruptedRunError, RankDiedError, DivergedError, ConfigError, BaseException)
    cause = min(errors, key=lambda error: next(i for i, kind in enumerate(causes) if isinstance(error, kind)))
    if isinstance(cause, InterruptedRunError) and stop_request.signum is None:
        stop_request.signum = cause.signum  # only the ranks got it
    raise cause


# A rank


def take_part(
    rank: int,
    world_size: int,
    cfg: DictConfig,
    hydra: DictConfig | None,
    environment: Mapping[str, str],
    folder: str,
    starter: Connection,
) -> None:
    """Be a rank: train, and send the figures or the error to the process that started it, and end when that does."""
    threading.Thread(target=end_with_starter, daemon=True).start()
    os.environ.update(environment)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    set_up_hydra(rank, hydra)
    with stop_request.listening(), stop_request.deferring():
        stop_request.second_is_final = False  # both the terminal and the starter may send one
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        outcome: Any = None
        try:
            from torch.distributed import FileStore, init_process_group

            from fmnist_lit.train import train

            init_process_group(store=FileStore(f"{folder}/store", world_size), rank=rank, world_size=world_size)
            outcome = train(cfg)
        except (Exception, InterruptedRunError) as error:
            outcome = sendable(error)
        starter.send(outcome)


def end_with_starter() -> None:
    """Wait for the death of the process that started this one, and follow it."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def loopback() -> str:
    """The network interface that leads to this machine itself."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def set_up_hydra(rank: int, hydra: DictConfig | None) -> None:
    """Make what Hydra knows of the job known here; let only rank 0 log and warn."""
    setup_globals()
    HydraConfig.instance().cfg = hydra
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
