"""A CUDA graph's stand-in on the CPU: it records the operations of a step and repeats them, without their Python.

As a graph does, it writes what each operation makes where it was made in the recording, and refuses to hand a number
to the host. What a step decides in Python is therefore as wrong in a replay here as it would be there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
FOR_THE_HOST = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default)


class Tape(TorchDispatchMode):
    """The operations of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], tuple, dict, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation in FOR_THE_HOST:
            raise RuntimeError(f"{operation} is not permitted when a stream is capturing")
        made = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, made in self.operations:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else it is a view, or was written
                    old.copy_(new)


class TapeRecorder:
    """A recorder as captured.py asks for."""

    def rehearsing(self) -> AbstractContextManager[list[str]]:
        return nullcontext([])

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        with Tape() as tape:
            function()
        return tape.replay
