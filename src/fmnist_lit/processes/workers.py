"""Jobs in processes of their own, whatever launcher started them: they run as long as the sweep's process wants it."""

import _thread
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.config import ConfigError
from fmnist_lit.processes.lock import LOCK, is_held, lock_of, writing
from fmnist_lit.processes.signals import InterruptedRunError, handle, put_back, stop_request
from fmnist_lit.processes.turns import here

SECONDS_TO_STOP = 60.0
SECONDS_BETWEEN_LOOKS = 0.5
IN_THIS_PROCESS = ("BasicLauncher", "StackedLauncher")  # where the others start processes

leads = False  # whether this process leads a sweep; those that a launcher starts do not


@contextlib.contextmanager
def leading(sweep_dir: Path, launcher: DictConfig) -> Iterator[None]:
    """Be the process that a sweep's jobs depend on. A signal interrupts them all; a second does not wait for them.

    Args:
        sweep_dir: the sweep's folder.
        launcher: the configuration of the Hydra launcher.

    Raises:
        InterruptedRunError: once the jobs have stopped; under Ray, KeyboardInterrupt.
        ConfigError: if Ray's cluster does not answer.
        filelock.Timeout: if another process leads this sweep.
    """
    global leads
    stopping, under_ray = False, "RayLauncher" in launcher._target_

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            lock_of(sweep_dir).release(force=True)
            if "Slurm" in launcher._target_:
                cancel_slurm_jobs(sweep_dir)
            end = time.monotonic() + SECONDS_TO_STOP
            while jobs_alive(sweep_dir) and time.monotonic() < end:
                time.sleep(0.1)
        stop_request.signum, stop_request.received = signum, True
        # while it waits, Ray lets no other exception through
        raise KeyboardInterrupt if under_ray else InterruptedRunError(signum)

    handlers, threads = {}, os.environ.get("OMP_NUM_THREADS")
    with writing(sweep_dir):
        leads = True
        try:
            if not launcher._target_.endswith(IN_THIS_PROCESS) and not threads:
                os.environ["OMP_NUM_THREADS"] = "1"  # a job; jobs that share cores are slower with more
            if under_ray:
                start_ray(launcher.ray.init)  # now, since it sets a signal handler too
            handlers = handle(stop)
            yield
        finally:
            leads = False
            if not threads:
                os.environ.pop("OMP_NUM_THREADS", None)
            put_back(handlers)


def start_ray(options: DictConfig) -> None:
    """Start Ray, or join the cluster of ``$RAY_ADDRESS``; Hydra's launcher then takes what it finds.

    Args:
        options: what ``ray.init`` takes.

    Raises:
        ConfigError: if the cluster does not answer.
    """
    import ray

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        least: dict[str, Any] = {} if address else {"object_store_memory": 78_643_200}  # bytes
        try:
            ray.init(**(least | dict(options)))
        except ConnectionError as error:
            raise ConfigError(f"RAY_ADDRESS={address}: {error}") from error


@contextlib.contextmanager
def working(run_dir: Path) -> Iterator[None]:
    """Be a run's only writer. In a process of its own, interrupt it when nobody leads the sweep any more.

    Raises:
        SystemExit: if the sweep was stopped before this job began.
        filelock.Timeout: if another process writes to ``run_dir``.
    """
    if not in_worker():
        with writing(run_dir):
            yield
        return
    if needs_a_leader() and not sweep_is_led():
        raise SystemExit(128 + signal.SIGTERM)
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done,), daemon=True)
    with writing(run_dir):
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def watch(done: threading.Event) -> None:
    """Interrupt this process, unless it is done before, or a signal has come first, when the sweep is not led."""
    if not needs_a_leader():
        return
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        if not sweep_is_led():
            if stop_request.signum is None:
                _thread.interrupt_main(signal.SIGTERM)
            return


def needs_a_leader() -> bool:
    """Whether a job stops when nobody leads its sweep; Slurm's queue outlives the shell that filled it."""
    return "Slurm" not in HydraConfig.get().launcher._target_


def in_worker() -> bool:
    """Whether this process runs jobs for a sweep that another process leads."""
    return not leads and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def beside_others() -> bool:
    """Whether other jobs write to the same screen: from processes of their own, or in turns with this one."""
    return here.get() is not None or in_worker()


def sweep_is_led() -> bool:
    """Whether the sweep of the current job has a process that leads it."""
    return is_held(Path(HydraConfig.get().sweep.dir), otherwise=True)


def jobs_alive(sweep_dir: Path) -> bool:
    """Whether a job of the sweep runs, in a process of its own or by itself."""
    return any(is_held(lock.parent, otherwise=False) for lock in sweep_dir.glob(f"*/**/{LOCK}"))


def wait_for_submitted_jobs(sweep_dir: Path) -> None:
    """Wait for what submitit started on this machine; its launcher gives up at the first job that was killed."""
    for folder in sweep_dir.glob(".submitit/*"):
        with contextlib.suppress(ValueError, ChildProcessError):  # a Slurm job, or one of an earlier command
            os.waitpid(int(folder.name), 0)


def cancel_slurm_jobs(sweep_dir: Path) -> None:
    """Send SIGTERM to the running ones and drop the waiting; ``.submitit`` names them, and others that have ended."""
    names = [folder.name for folder in sweep_dir.glob(".submitit/*") if folder.is_dir()]
    with contextlib.suppress(OSError):
        subprocess.run(["scancel", "--quiet", *names], check=False, capture_output=True)
