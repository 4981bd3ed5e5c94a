import logging
import os
import random
import signal

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.processes.turns import here, take_turns
from fmnist_lit.processes.workers import beside_others


@pytest.fixture(autouse=True)
def process_as_it_was():
    """Whatever is tried."""
    root = logging.getLogger()
    hydra, handlers = HydraConfig.instance().cfg, root.handlers[:]
    yield
    assert (HydraConfig.instance().cfg, root.handlers) == (hydra, handlers)
    assert not stop_request.is_shared
    stop_request.signum, stop_request.received = None, False


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def alone(seed, rounds):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return [draws() for _ in range(rounds)]


def test_each_job_finds_the_process_as_it_left_it(tmp_path):
    seen = []

    def job(number):
        (folder := tmp_path / str(number)).mkdir()
        hydra = OmegaConf.create({"hydra": {"job": {"num": number}}})
        handler = logging.FileHandler(folder / "log")
        HydraConfig.instance().cfg = hydra
        logging.getLogger().handlers[:] = [handler]
        os.chdir(folder)
        drawn = alone(number, 1)
        for turn in range(number):
            seen.append((number, turn))
            logging.getLogger().error("%d", turn)
            here.get().wait_with((number, turn))
            assert HydraConfig.instance().cfg is hydra
            assert logging.getLogger().handlers == [handler]
            assert os.getcwd() == str(folder)
            assert beside_others()
            drawn.append(draws())
        return drawn

    met = []
    before = os.getcwd()
    torch.manual_seed(7)
    result = take_turns(
        [lambda number=number: job(number) for number in (2, 3, 1)], lambda m: met.append([each.offer for each in m])
    )
    assert float(torch.rand(())) == float(torch.rand((), generator=torch.Generator().manual_seed(7)))
    assert os.getcwd() == before
    assert not beside_others()
    assert result == [alone(2, 3), alone(3, 4), alone(1, 2)]
    assert seen == [(2, 0), (3, 0), (1, 0), (2, 1), (3, 1), (3, 2)]
    assert met == [[(2, 0), (3, 0), (1, 0)], [(2, 1), (3, 1)], [(3, 2)]]
    assert (tmp_path / "3" / "log").read_text() == "0\n1\n2\n"


def test_what_is_told_is_raised_where_a_job_waits_and_ends_the_others_softly():
    ended, seen = [], []

    def meet(members):
        seen.append([each.offer for each in members])
        for member in members[1:2]:
            if len(seen) == 2:
                member.told = KeyError("its own")

    def job(number):
        try:
            for _ in range(9):
                here.get().wait_with(number)
                stop_request.raise_if_received()
        finally:
            ended.append(number)

    with pytest.raises(KeyError, match="its own"):
        take_turns([lambda number=number: job(number) for number in range(3)], meet)
    assert seen == [[0, 1, 2], [0, 1, 2], [0]]  # the first had its turn before the second failed
    assert ended == [1, 2, 0]
    assert stop_request.signum is None


def test_signal_lets_no_other_job_begin():
    begun = []

    def job(number):
        begun.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGTERM)  # which only the main thread takes, in its turn
        here.get().wait_with(number)
        stop_request.raise_if_received()

    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        take_turns([lambda number=number: job(number) for number in range(4)], lambda members: None)
    assert begun == [0, 1]


@pytest.mark.parametrize("within", [False, True])
def test_second_signal_to_a_process_that_lives_on_ends_all_jobs(monkeypatch, within):
    monkeypatch.setattr(stop_request, "is_guest", True)
    ended: list[int] = []
    meetings: list[int] = []

    def interrupt(is_asked):
        if is_asked and len(meetings) in (1, 2):
            signal.raise_signal(signal.SIGTERM)

    def meet(members):
        interrupt(not within)
        meetings.append(len(members))

    def job(number):
        HydraConfig.instance().cfg = number
        try:
            while len(meetings) < 9:
                interrupt(within and number == 1)
                here.get().wait_with(number)
        finally:
            assert HydraConfig.instance().cfg == number
            ended.append(number)

    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        take_turns([lambda number=number: job(number) for number in range(3)], meet)
    assert ended == [0, 1, 2]
    assert meetings == [3, 3]
