"""A training step as a CUDA graph: recorded once, and from then on replayed at one call, without its Python.

A graph holds kernels and the addresses of their tensors. So the batch is copied to where the recording read it, the
learning rates are tensors in the recording alone, which schedules need not know, and all else that Python decides is
watched: if it changes, the step is recorded again.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from fmnist_lit.errors import named_error

log = logging.getLogger(__name__)

REHEARSALS = 3  # eager steps before a recording, in which torch makes what it makes once: buffers, handles, workspaces
MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OPTIMIZER_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class StepRecorder(Protocol):
    """What records the kernels of a function."""

    def rehearsing(self) -> AbstractContextManager[list[str]]:
        """Where a step before the recording is taken; the list then says what of it cannot be recorded."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Do what ``function`` does, once, and return what does it again, with the same tensors."""


class CUDAGraphRecorder:
    """torch's CUDA graphs: recorded on a stream of their own, which the steps before make ready."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # untyped in torch

    @contextmanager
    def rehearsing(self) -> Iterator[list[str]]:
        """Torch is asked where the host waits for the device: in a recording that fails, and may spoil the process."""
        objections: list[str] = []
        outside, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield objections
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        outside.wait_stream(self.stream)
        for warning in caught:
            if "called a synchronizing" in str(warning.message):
                objections.append(f"{Path(warning.filename).name}, line {warning.lineno}, waits for the device")
            elif "Synchronization debug mode" not in str(warning.message):  # which says that it is a prototype
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # the outer one puts the stream back if the recording fails; nothing runs before the replay
        with torch.cuda.stream(self.stream), torch.cuda.graph(graph, stream=self.stream):
            function()
        replay: Callable[[], None] = graph.replay
        replay()
        return replay


RECORDERS: dict[str, Callable[[], StepRecorder]] = {"cuda": CUDAGraphRecorder}  # by type of device


class CapturedStep:
    """Takes training steps: a few eager ones, one that is recorded, then replays of that.

    Args:
        step: takes a batch's images and labels through the whole of a step, from the forward pass to the update, and
            returns the loss and the logits. It leaves no gradient behind and asks the device for no number.
        batch_size: of the batches to record; one of another size, such as the last of an epoch, gets an eager step.
        model, loss, optimizers: which ``step`` uses, to be watched.
        recorder: of the device.

    Several jobs are as one: their models and losses in a ``ModuleList``, and the step's tensors have a dimension more.
    """

    batch: tuple[Tensor, Tensor]
    outcome: tuple[Tensor, Tensor]

    def __init__(
        self,
        step: Step,
        batch_size: int,
        model: nn.Module,
        loss: Any,
        optimizers: Sequence[Optimizer],
        recorder: StepRecorder,
    ) -> None:
        self.step = step
        self.batch_size = batch_size
        self.modules = {"model": model} | ({"loss": loss} if isinstance(loss, nn.Module) else {})
        self.optimizers = list(optimizers)
        self.recorder = recorder
        self.held = held_by_a_recording(self.modules, optimizers)  # since the rehearsals began
        self.rehearsals = 0
        self.replay: Callable[[], None] | None = None
        self.is_recording = False
        self.failed = False
        self.said: set[str] = set()

    def is_allowed(self) -> bool:
        """Whether steps may be taken here now; asked once a chunk, because it looks at every layer.

        A hook is Python, which no graph holds: as long as there is one, the steps are for others to take.
        """
        hooked = [f"hooks of the {name} are Python" for name, module in self.modules.items() if is_hooked(module)]
        if any(getattr(optimizer, name) for optimizer in self.optimizers for name in OPTIMIZER_HOOKS):
            hooked.append("hooks of the optimiser's step are Python")
        if hooked:
            self.say_why_eager(hooked[0])
        else:
            self.watch()
        return not hooked and not self.failed

    def watch(self) -> None:
        """Start again if what a recording holds is no longer so."""
        now = held_by_a_recording(self.modules, self.optimizers)
        changed = [name for name in {**self.held, **now} if self.held.get(name) != now.get(name)]
        if changed:
            self.say_why_eager(f"until {changed[0]} stays as it is")
            self.held, self.rehearsals, self.replay = now, 0, None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step of a batch; its loss and its logits, which later steps leave alone."""
        if labels.shape[-1] != self.batch_size or self.failed:
            return self.step(images, labels)
        if self.replay is not None:
            self.fill_in(images, labels)
            self.replay()
            return self.outcome[0].clone(), self.outcome[1].clone()
        if self.rehearsals == REHEARSALS:
            self.watch()  # a schedule of more than the learning rate has changed it by now
        if self.rehearsals == REHEARSALS:
            return self.record(images, labels)
        self.rehearsals += 1
        with self.recorder.rehearsing() as objections:
            outcome = self.step(images, labels)
        if objections and self.rehearsals == REHEARSALS:  # the first may make what is there from then on
            self.give_up(objections[0])
        return outcome

    def record(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step of a batch so that it can be replayed."""
        self.batch = images.clone(), labels.clone()
        self.rates = [group["lr"] for group in groups_of(self.optimizers)]
        self.device_rates = [torch.tensor(rate, dtype=torch.float32, device=images.device) for rate in self.rates]

        def run() -> None:
            self.outcome = self.step(*self.batch)

        self.is_recording = True
        try:
            with rates_on_the_device(self.optimizers, self.device_rates):
                self.replay = self.recorder.record(run)
        except Exception as error:  # anybody's model and loss may raise anything
            for optimizer in self.optimizers:
                optimizer.zero_grad()  # a gradient that was only recorded holds no numbers
            self.give_up(named_error(error))
        self.is_recording = False
        if self.failed:
            return self.step(images, labels)
        log.info("trainer.cuda_graph: steps of %s images are replayed", " × ".join(map(str, labels.shape)))
        return self.outcome[0].clone(), self.outcome[1].clone()

    def fill_in(self, images: Tensor, labels: Tensor) -> None:
        """Put a batch and the learning rates where the recording reads them."""
        self.batch[0].copy_(images)
        self.batch[1].copy_(labels)
        for index, group in enumerate(groups_of(self.optimizers)):
            if group["lr"] != self.rates[index]:
                self.rates[index] = group["lr"]
                self.device_rates[index].fill_(group["lr"])

    def give_up(self, why: str) -> None:
        """Leave this step to others from the next chunk on."""
        self.failed = True
        self.say_why_eager(f"they cannot be recorded: {why}")

    def say_why_eager(self, why: str) -> None:
        """Once a reason."""
        if why not in self.said:
            self.said.add(why)
            log.info("trainer.cuda_graph: eager steps, %s", why)


def is_hooked(module: nn.Module) -> bool:
    """Whether a layer has a hook."""
    return any(getattr(layer, name) for layer in module.modules() for name in MODULE_HOOKS)


def groups_of(optimizers: Iterable[Optimizer]) -> list[dict[str, Any]]:
    """The parameter groups of all."""
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def held_by_a_recording(modules: Mapping[str, nn.Module], optimizers: Iterable[Optimizer]) -> dict[str, Any]:
    """What a recorded step holds as it is, by name: numbers and words of layers and of parameter groups, and addresses.

    Not the learning rates, which it reads from the device.
    """
    held: dict[str, Any] = {}
    for root, module in modules.items():
        for prefix, layer in module.named_modules(prefix=root):
            plain = {key: value for key, value in vars(layer).items() if isinstance(value, bool | int | float | str)}
            held |= {f"{prefix}.{key}": value for key, value in plain.items()}
        for name, tensor in chain(module.named_parameters(prefix=root), module.named_buffers(prefix=root)):
            held[name] = (tensor.data_ptr(), tensor.requires_grad)
    for group in groups_of(optimizers):
        for key, value in group.items():
            if key not in ("params", "param_names", "lr"):
                held.setdefault(f"optimizer.{key}", []).append(value)
    return held


@contextmanager
def rates_on_the_device(optimizers: Sequence[Optimizer], rates: list[Tensor]) -> Iterator[None]:
    """Let optimisers' steps read their learning rates from tensors and keep all of their state on the device."""
    groups = groups_of(optimizers)
    before = [dict(group) for group in groups]
    for parameter, state in chain.from_iterable(optimizer.state.items() for optimizer in optimizers):
        state.update({k: v.to(parameter.device) for k, v in state.items() if isinstance(v, Tensor)})
    for group, rate in zip(groups, rates, strict=True):
        group.update({"lr": rate} | ({"capturable": True} if "capturable" in group else {}))
    try:
        yield
    finally:
        for group, values in zip(groups, before, strict=True):
            group.update(values)


def obstacles(trainer: Trainer, accumulate_grad_batches: int) -> Iterator[str]:
    """Why the steps of a run cannot be recorded, as far as that is known before the first."""
    device = trainer.strategy.root_device.type
    if device not in RECORDERS:
        yield f"the device is {device}, and CUDA graphs are of CUDA"
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        yield "the processes of trainer.strategy wait for one another in each"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        yield f"trainer.precision={trainer.precision} asks in each whether its gradients are finite"
    if accumulate_grad_batches > 1:
        yield "trainer.accumulate_grad_batches makes them of several batches"
    if torch.is_anomaly_enabled():
        yield "trainer.detect_anomaly looks at each operation"
    for optimizer in trainer.optimizers:
        if not reads_rates_from_the_device(optimizer):
            yield f"{type(optimizer).__name__} needs its learning rate in Python"


def reads_rates_from_the_device(optimizer: Optimizer) -> bool:
    """Whether an optimiser of torch's own does: what has ``capturable`` for it, and SGD as one kernel."""
    if not type(optimizer).__module__.startswith("torch.optim."):
        return False
    groups = optimizer.param_groups
    if isinstance(optimizer, SGD):
        return all(group["fused"] for group in groups)
    return all("capturable" in group and group.get("foreach") is not False for group in groups)
