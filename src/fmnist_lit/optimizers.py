"""Optimisers that torch lacks as a single class."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer


class MuonWithAdamW(Optimizer):
    """Muon on the hidden matrices, AdamW on the last matrix and everything that is no matrix, as one optimiser.

    Muon (Jordan et al., 2024) orthogonalises the momentum of a matrix, which suits layers between features; the
    classification head and the biases keep AdamW, as its authors advise.

    Args:
        parameters: (name, parameter) in the order of the layers, or groups of them; a group's own ``weight_decay`` is
            for what AdamW takes of it.
        lr, momentum, weight_decay, nesterov, ns_steps: of ``torch.optim.Muon``.
        adamw_lr, adamw_weight_decay: of ``torch.optim.AdamW``.

    Raises:
        ImportError: if torch has no ``torch.optim.Muon`` (before 2.9).
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
        groups = list(parameters)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        named = [pair for group in groups for pair in group["params"]]
        hidden = [name for name, p in named if p.ndim == 2][:-1]
        if not hidden:
            raise ValueError("optimizer=muon needs a hidden layer; model.hidden_sizes is empty")
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
        """Let the parts work on this optimiser's own groups and state, so that schedules and checkpoints reach them."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = list(islice(groups, len(part.param_groups)))
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss
