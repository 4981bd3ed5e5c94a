import signal
from types import SimpleNamespace

import pytest
import torch

from fmnist_lit.processes.collectives import any_rank_is_to_stop
from fmnist_lit.processes.signals import stop_request


def trainer_of_two(agreed, meanwhile=None):
    """Ranks that agree on a number, and what arrives here while they do."""

    def reduce(signum, reduce_op):
        if meanwhile is not None:
            stop_request.signum = meanwhile
        return max(signum, torch.tensor(agreed))

    return SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu", reduce=reduce))


@pytest.fixture(autouse=True)
def no_request(monkeypatch):
    monkeypatch.setattr(stop_request, "signum", None)


def test_signal_of_another_rank_is_as_if_it_had_come_here():
    assert any_rank_is_to_stop(trainer_of_two(signal.SIGTERM))
    assert stop_request.signum == signal.SIGTERM


def test_signal_that_arrives_while_the_ranks_agree_is_for_the_next_time():
    assert not any_rank_is_to_stop(trainer_of_two(0, meanwhile=signal.SIGINT))
    assert any_rank_is_to_stop(trainer_of_two(0))
    assert stop_request.signum == signal.SIGINT
