"""Optimisers that torch lacks as a single class."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class MuonWithAdamW(Optimizer):
    """Muon on the hidden layers' weight matrices, AdamW on all other parameters, as one optimiser.

    Muon (Jordan et al., 2024) orthogonalises the momentum of a weight matrix. Its authors advise AdamW for the
    classification head, which is the last matrix, and for biases and norms.

    Args:
        parameters: (name, parameter) in the order of the layers, or parameter groups of such pairs; a group's own
            ``weight_decay`` acts on those of its parameters that AdamW updates.
        lr, momentum, weight_decay, nesterov, ns_steps: as ``torch.optim.Muon`` takes them.
        adamw_lr, adamw_weight_decay: ``lr`` and ``weight_decay`` of ``torch.optim.AdamW``.

    Raises:
        ImportError: if torch has no ``torch.optim.Muon`` (before 2.9).
        ValueError: if there is no hidden layer.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        ns_steps: int = 5,
        adamw_lr: float = 3e-3,
        adamw_weight_decay: float = 0.0,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(
                f"optimizer=muon needs torch.optim.Muon (torch >= 2.9); this is torch {torch.__version__}"
            )
        given: list[Any] = list(parameters)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        named = [pair for group in groups for pair in group["params"]]
        hidden = [name for name, p in named if p.ndim == 2][:-1]
        if not hidden:
            raise ValueError("optimizer=muon needs a hidden layer: a weight matrix beside that of the last layer")
        muon = [(name, p) for name, p in named if name in hidden]
        adamw = [{**group, "params": [pair for pair in group["params"] if pair[0] not in hidden]} for group in groups]
        self.parts: list[Optimizer] = [
            torch.optim.Muon(
                muon, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, ns_steps=ns_steps
            ),
            AdamW([group for group in adamw if group["params"]], lr=adamw_lr, weight_decay=adamw_weight_decay),
        ]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give both parts this optimiser's own groups and state, so that schedules and checkpoints act on them."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = list(islice(groups, len(part.param_groups)))
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss
