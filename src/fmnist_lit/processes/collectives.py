"""What the ranks of a data-parallel run have to tell each other; with one rank nothing is sent."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from fmnist_lit.processes.signals import stop_request


def any_rank_is_to_stop(trainer: Trainer) -> bool:
    """Whether a signal has reached any rank; if so it is as if it had reached all, and they stop at the same step."""
    if trainer.world_size == 1:
        return stop_request.signum is not None
    signum = torch.tensor(stop_request.signum or 0, device=trainer.strategy.root_device)
    agreed = int(trainer.strategy.reduce(signum, reduce_op="max"))
    if agreed:  # one that arrives here in the meantime is for the next time
        stop_request.signum = agreed
    return agreed > 0


def gather(trainer: Trainer, tensor: Tensor) -> Tensor:
    """The tensors (…) of all ranks as one (ranks, …), on the device of ``tensor``."""
    if trainer.world_size == 1:
        return tensor.unsqueeze(0)
    own = tensor.to(trainer.strategy.root_device)
    gathered = [torch.empty_like(own) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(gathered, own)
    return torch.stack(gathered).to(tensor.device)


def gather_rows(trainer: Trainer, rows: Tensor) -> Tensor:
    """The rows (N, …) of all ranks on end, of which each may have another number, in the order of the ranks."""
    counts = gather(trainer, torch.tensor(len(rows))).tolist()
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    return torch.cat([part[:count] for part, count in zip(gather(trainer, padded), counts, strict=True)])


def sample_weight(trainer: Trainer, rows: int) -> float:
    """Factor on the mean over this rank's ``rows``, so that the plain mean over ranks is that over samples."""
    if trainer.world_size == 1:
        return 1.0
    total = trainer.strategy.reduce(torch.tensor(rows, device=trainer.strategy.root_device), reduce_op="sum")
    return rows * trainer.world_size / int(total)


def earliest(trainer: Trainer, step: int | None) -> int | None:
    """The smallest of the steps of all ranks; None where no rank has one."""
    if trainer.world_size == 1:
        return step
    none = torch.iinfo(torch.int64).max
    own = torch.tensor(none if step is None else step, device=trainer.strategy.root_device)
    smallest = int(trainer.strategy.reduce(own, reduce_op="min"))
    return None if smallest == none else smallest
