"""A copy of a run, and checkpoints that are not as a run leaves them."""

import pytest
import torch

from fmnist_lit.run.checkpoint import load_checkpoint


@pytest.fixture
def altered(copied):
    """A checkpoint with something put in another's place."""

    def alter(change):
        content = load_checkpoint(copied / "checkpoints" / "best.ckpt")
        change(content)
        torch.save(content, copied.parent / "altered.ckpt")
        return copied.parent / "altered.ckpt"

    return alter
