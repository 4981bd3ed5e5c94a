import os
from collections.abc import Iterator

import pytest
import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed

from fmnist_lit.processes.setup import set_num_threads


@pytest.fixture(autouse=True)
def threads(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "place",
    [
        {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"},
    ],
    ids=["torchrun", "srun"],
)
def test_one_process_a_node_keeps_the_threads_that_are_asked_for(configure, monkeypatch, place):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning.fabric.utilities.distributed._suggested_max_num_threads", lambda processes: 2)
    set_num_threads(configure("trainer.devices=1", "num_threads=1"))
    _set_num_threads_if_needed(1)  # as Lightning does when the nodes meet
    assert torch.get_num_threads() == 1


def test_nothing_is_set_for_other_programs_where_there_is_one_process(configure):
    set_num_threads(configure("num_threads=1"))
    assert "OMP_NUM_THREADS" not in os.environ
