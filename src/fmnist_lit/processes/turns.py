"""Jobs on threads of their own that take turns: one runs at a time, and finds the process as it left it."""

import contextlib
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig

from fmnist_lit.processes.signals import stop_request


class Generators:
    """The states of the global random generators, of Python, numpy and torch."""

    def __init__(self) -> None:
        import numpy as np  # late, because command lines import this module
        import torch

        self.python, self.numpy, self.cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def restore(self) -> None:
        """Go on drawing from here."""
        import numpy as np
        import torch

        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


@dataclass
class World:
    """What there is one of in a process, and each job needs for itself."""

    hydra: Any  # HydraConfig's
    handlers: list[logging.Handler]
    folder: str
    generators: Generators

    @classmethod
    def of_now(cls) -> "World":
        """As the process is."""
        return cls(HydraConfig.instance().cfg, logging.getLogger().handlers[:], os.getcwd(), Generators())

    def enter(self) -> None:
        """Let the process be so again."""
        HydraConfig.instance().cfg = self.hydra
        logging.getLogger().handlers[:] = self.handlers
        os.chdir(self.folder)
        self.generators.restore()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from the job's own generators in this block, while it waits."""
        self.generators.restore()
        try:
            yield
        finally:
            self.generators = Generators()


class Member:
    """One of several jobs that take turns.

    Args:
        job: what it does.
        common: what the jobs have in common, for them to fill.

    Attributes:
        offer: what it waits with; None while it does not wait.
        told: an exception that is raised where it waits, when its turn comes.
        result, error: what came of it, once it has ended.
    """

    def __init__(self, job: Callable[[], Any], common: dict[str, Any]) -> None:
        self.job = job
        self.common = common
        self.world = World.of_now()
        self.offer: Any = None
        self.told: BaseException | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.has_begun = self.has_ended = False
        self.turn, self.rests = threading.Semaphore(0), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """The thread: the job, in its turns."""
        here.set(self)
        self.turn.acquire()
        try:
            self.result = self.job()
        except BaseException as error:
            self.error = error
        for handler in logging.getLogger().handlers:
            handler.close()  # logging has lost sight of it, since another job configured its own
        self.has_ended = True
        self.rests.set()

    def go_on(self) -> None:
        """From without: let it run until it waits or ends."""
        if not self.has_begun:
            self.has_begun = True
            self.thread.start()
        self.offer = None
        self.world.enter()
        self.rests.clear()
        self.turn.release()
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """From without: wait until it waits or ends."""
        self.rests.wait()
        self.world = World.of_now()
        if self.has_ended:
            self.thread.join()

    def wait_with(self, offer: Any) -> None:
        """From within: let the others have their turns.

        Raises:
            BaseException: what it is told meanwhile.
        """
        self.offer = offer
        self.rests.set()
        self.turn.acquire()
        if self.told is not None:
            told, self.told = self.told, None
            raise told

    def give_up(self, error: BaseException) -> None:
        """From without: end it by an exception, if it has begun."""
        if self.has_begun and not self.rests.is_set():  # a signal has come while it ran
            self.come_to_rest()
        while self.has_begun and not self.has_ended:
            self.told = error
            self.go_on()


def handlers_of(members: Sequence[Member]) -> list[logging.Handler]:
    """Handlers through which a line is in the logs of all members, and on the screen once."""
    handlers = [handler for member in members for handler in member.world.handlers]
    return list({getattr(handler, "baseFilename", type(handler)): handler for handler in handlers}.values())


here: ContextVar[Member | None] = ContextVar("here", default=None)  # the job of the current thread, if it takes turns


def take_turns(jobs: Sequence[Callable[[], Any]], meet: Callable[[Sequence[Member]], None]) -> list[Any]:
    """Run jobs to their ends, each on a thread of its own of which one runs at a time.

    A signal reaches those that have begun, as soon as they look, and the others never begin. Where one of them ends by
    an exception, which is what ends a sweep, the others are asked to stop in the same way.

    Args:
        jobs: what to do.
        meet: what is done, each time that all that have not ended wait, with their offers. What it logs is in the logs
            of all of them.

    Returns:
        What the jobs returned.

    Raises:
        BaseException: the first that ended a job.
    """
    common: dict[str, Any] = {}
    before = World.of_now()
    members = living = [Member(job, common) for job in jobs]
    errors: list[BaseException] = []
    try:
        with stop_request.listening(), stop_request.deferring(), stop_request.sharing():
            try:
                while living:
                    for member in living:
                        if member.has_begun or stop_request.signum is None:
                            member.go_on()
                        if member.error is not None:
                            errors.append(member.error)
                            stop_request.signum = stop_request.signum or signal.SIGTERM
                    living = [member for member in living if member.has_begun and not member.has_ended]
                    if living:
                        logging.getLogger().handlers[:] = handlers_of(living)
                        meet(living)
            except BaseException as error:  # a second signal, in a process that lives on
                for member in living:
                    member.give_up(error)
                raise
            if not errors:
                stop_request.raise_if_received()
    finally:
        before.enter()
        if not stop_request.received:
            stop_request.signum = None  # if it was, it was for these jobs
    if errors:
        raise errors[0]
    return [member.result for member in members]
