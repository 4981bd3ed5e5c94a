"""Several runs as one batched model: where their jobs take turns, the steps of a chunk are taken for all together."""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fmnist_lit.captured import RECORDERS, CapturedStep, is_hooked
from fmnist_lit.chunked import ChunkedClassifier
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.model import ACTIVATIONS, MLP
from fmnist_lit.processes.turns import Member, here

log = logging.getLogger(__name__)

ALIGNMENT = 16  # numbers: a row begins where a tensor of its own could, because the bits of a product depend on that
ELEMENTWISE = tuple(ACTIVATIONS.values())
SAME_ANYWHERE = (nn.ReLU,)  # the others' last bits depend, on a CPU, on how far from the end of a tensor a number is
Batch = tuple[Tensor, Tensor]
Function = Callable[..., Tensor]


class Offer(NamedTuple):
    """With what a job waits for the others: its chunk, and how many threads it has."""

    classifier: "StackedClassifier"
    chunk: Batch
    num_threads: int


class StackedClassifier(ChunkedClassifier):
    """A job's classifier, which waits with each chunk until the others have theirs; the weights of all lie in rows."""

    has_told = False  # that it is not stacked after all
    captured_stack: CapturedStep | None = None  # of the jobs of which it is the first

    def obstacles(self) -> Iterator[str]:
        yield from super().obstacles()
        if any(isinstance(layer, nn.Dropout) for layer in self.model.modules()):
            yield "the dropout of each job in a stack has random numbers of its own"

    def on_train_end(self) -> None:
        super().on_train_end()
        self.captured_stack = None

    def training_step(self, chunk: Batch, chunk_index: int) -> None:  # type: ignore[override]
        if is_hooked(self.model):
            if not self.has_told:
                log.info("not stacked: a callback watches or changes single layers")
            self.has_told = True
            super().training_step(chunk, chunk_index)
            return
        member = here.get()
        assert member is not None  # or build had made another class
        member.wait_with(Offer(self, chunk, torch.get_num_threads()))
        self.progress.flush()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Tensors of their own: a row would be saved with all the others."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for name, tensor in state.items():
            state[name] = tensor.clone()
        return state


def share_images(datamodule: FashionMNISTDataModule) -> None:
    """Where jobs take turns, have the images of the first: they are the same, and in memory once."""
    member = here.get()
    if member is not None:
        first: FashionMNISTDataModule = member.common.setdefault("datamodule", datamodule)
        datamodule.train_images, datamodule.val_images, datamodule.test_images = (
            first.train_images,
            first.val_images,
            first.test_images,
        )


def take_steps(members: Sequence[Member]) -> None:
    """Take the steps of the chunks that members wait with, for all together whose batches and layers have one shape.

    One that fails drops out and is told; the others' bits are as they were.
    """
    stacks: dict[Any, list[Row]] = {}
    for member in members:
        row = Row(member)
        stacks.setdefault(row.shape, []).append(row)
    for rows in stacks.values():
        torch.set_num_threads(rows[0].num_threads)  # of this thread
        stack = Stack(rows)
        while rows := [row for row in rows if row.begins_batch()]:
            if rows != stack.rows:
                stack = Stack(rows)
            try:
                stack.step()
            except Exception as error:
                for row in rows:
                    row.member.told = error


class Row:
    """One job in a stack, for the length of a chunk."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.classifier, chunk, self.num_threads = member.offer
        self.model: MLP = self.classifier.model
        self.shape = chunk[0].shape, self.classifier.batch_size, *(tuple(p.shape) for p in self.model.parameters())
        self.batches = self.classifier.batches_of(chunk)
        self.batch: tuple[Tensor, ...] = ()  # images and labels, until the chunk is over
        self.has_stopped = False

    def begins_batch(self) -> bool:
        """Go to the next batch, if there is one."""
        goes_on = not self.has_stopped and self.member.told is None
        self.batch = next(self.batches, ()) if goes_on else ()
        return bool(self.batch)

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Keep what goes wrong in this block for the job that it is of."""
        try:
            yield
        except Exception as error:
            self.member.told = error

    def loss(self, logits: Tensor) -> Tensor | None:
        """The loss of the batch, after Lightning's hooks before the backward pass; None if it fails."""
        with self.failing_alone():
            loss = self.classifier.training_loss(logits, self.batch[1])
            return cast(Tensor, self.classifier.trainer.precision_plugin.pre_backward(loss, self.classifier))
        return None

    def step(self, loss: Tensor) -> None:
        """What follows the backward pass: Lightning's hooks and, where it is due, the optimiser's step."""
        with self.failing_alone():
            self.classifier.trainer.precision_plugin.post_backward(loss, self.classifier)
            if self.classifier.step_is_due:
                optimizer: Any = self.classifier.optimizers()
                optimizer.step()
                optimizer.zero_grad()
                self.has_stopped = self.classifier.stops_after_step()

    def bare_loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch, and what its backward pass begins with."""
        loss: Tensor = self.classifier.loss(logits, labels)
        return loss.detach(), self.classifier.objective(loss, labels)

    def count_step(self, loss: Tensor, logits: Tensor) -> None:
        """What follows a step that was taken without Lightning."""
        with self.failing_alone():
            optimizer: Any = self.classifier.optimizers()
            self.classifier.count_step(optimizer, loss, logits, self.batch[1])
            self.has_stopped = self.classifier.stops_after_step()


class Stack:
    """The models of several jobs as one, whose parameters are rows of common storages.

    What is between two Linear layers is applied as a whole, or to each row by the job's own modules.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        parts = [parts_of(row.model) for row in rows]
        self.between = list(zip(*(between for between, _ in parts), strict=True))
        self.linears = [
            LinearRows([layer.weight for layer in layers], [layer.bias for layer in layers])
            for layers in zip(*(linears for _, linears in parts), strict=True)
        ]
        # which has what records the step of all; here, it and this would hold each other, and the graph's memory
        self.first: StackedClassifier = rows[0].classifier
        self.is_captured = self.may_be_captured()

    def may_be_captured(self) -> bool:
        """Whether the step of all may be recorded and replayed now; what does so goes on from one chunk to the next."""
        classifiers = [row.classifier for row in self.rows]
        recordable = [classifier.captured for classifier in classifiers if classifier.captured is not None]
        if len(recordable) < len(classifiers):
            if recordable:
                recordable[0].say_why_eager("as long as a job that cannot be recorded is in the stack")
            return False
        optimizers = [classifier.trainer.optimizers[0] for classifier in classifiers]
        captured = self.first.captured_stack
        if captured is None or captured.optimizers != optimizers:
            models = nn.ModuleList(classifier.model for classifier in classifiers)
            losses = nn.ModuleList(c.loss for c in classifiers if isinstance(c.loss, nn.Module))
            recorder = RECORDERS[self.first.device.type]()
            captured = CapturedStep(self.bare_step, self.first.batch_size, models, losses, optimizers, recorder)
        self.first.captured_stack, captured.step = captured, self.bare_step
        return captured.is_allowed()

    def step(self) -> None:
        """Take the step of a batch."""
        images, labels = zip(*(row.batch for row in self.rows), strict=True)
        captured = self.first.captured_stack
        if captured and self.is_captured:
            outcome = captured(torch.stack(images), torch.stack(labels))
            for row, loss, logits in zip(self.rows, *outcome, strict=True):
                if row.member.told is None:
                    row.count_step(loss, logits)
            return
        losses = [row.loss(logits) for row, logits in zip(self.rows, self.forward(images).unbind(), strict=True)]
        torch.autograd.backward([loss for loss in losses if loss is not None])
        for row, loss in zip(self.rows, losses, strict=True):
            if loss is not None:
                row.step(loss)

    def bare_step(self, images: Tensor, labels: Tensor) -> Batch:
        """As that of one job: images (K, N, …) and labels (K, N) to losses (K) and logits (K, N, C)."""
        captured = self.first.captured_stack
        # a loss that cannot be recorded is no failure of its job
        alone = contextlib.nullcontext if captured and captured.is_recording else Row.failing_alone
        logits = self.forward(images.unbind())
        losses = [logits.new_full((), math.nan)] * len(self.rows)
        objectives = []
        for number, (row, *batch) in enumerate(zip(self.rows, logits.unbind(), labels.unbind(), strict=True)):
            with alone(row):
                losses[number], objective = row.bare_loss(*batch)
                objectives.append(objective)
        torch.autograd.backward(objectives)
        for row in self.rows:
            if row.member.told is None:
                with alone(row):
                    row.classifier.bare_update()
        return torch.stack(losses), logits.detach()

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """The logits (K, N, C)."""
        values = self.of_each(self.between[0], images)
        for linear, modules in zip(self.linears, self.between[1:], strict=True):
            values = StackedLinear.apply(values, linear, *linear.weights, *linear.biases)
            values = self.of_all(modules, values)
        return values

    def of_all(self, modules: Sequence[Sequence[nn.Module]], values: Tensor) -> Tensor:
        """What the jobs' modules make of values (K, N, F)."""
        kinds = SAME_ANYWHERE if values.is_cpu else ELEMENTWISE
        if len({tuple(map(type, own)) for own in modules}) > 1 or any(type(each) not in kinds for each in modules[0]):
            return self.of_each(modules, values.unbind())
        return through(modules[0], values)

    def of_each(self, modules: Sequence[Sequence[nn.Module]], values: Sequence[Tensor]) -> Tensor:
        """The same, a job at a time, each with its own random numbers."""
        results = []
        for row, own, value in zip(self.rows, modules, values, strict=True):
            draws = any(isinstance(module, nn.Dropout) for module in own)
            with row.member.world.drawing() if draws else contextlib.nullcontext():
                results.append(through(own, value))
        return torch.stack(results)


def through(modules: Iterable[nn.Module], values: Tensor) -> Tensor:
    """What modules, one after another, make of values."""
    for module in modules:
        values = module(values)
    return values


def parts_of(model: MLP) -> tuple[list[list[nn.Module]], list[nn.Linear]]:
    """The Linear layers of a model, and the modules before the first, between them, and after the last."""
    between: list[list[nn.Module]] = [[]]
    linears = []
    for module in model:
        if isinstance(module, nn.Linear):
            linears.append(module)
            between.append([])
        else:
            between[-1].append(module)
    return between, linears


class LinearRows:
    """The weights (K, out, in) and biases (K, out) of a Linear layer of several jobs, of which theirs are the rows."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        self.weights, self.biases = weights, biases
        self.weight, self.bias = laid_in_rows(weights), laid_in_rows(biases)


def laid_in_rows(parameters: Sequence[Tensor]) -> Tensor:
    """One tensor whose rows are the parameters, which are laid there if they are not there yet."""
    first = parameters[0].data
    step = -(-first.numel() // ALIGNMENT) * ALIGNMENT
    strides = (step, *first.stride())
    places = [first.data_ptr() + number * step * first.element_size() for number in range(len(parameters))]
    storages = {p.untyped_storage().data_ptr() for p in parameters}
    if len(storages) == 1 and [p.data_ptr() for p in parameters] == places:
        return first.as_strided((len(parameters), *first.shape), strides)
    together = first.new_empty_strided((len(parameters), *first.shape), strides)
    for row, parameter in zip(together, parameters, strict=True):
        row.copy_(parameter.data)
        parameter.data = row
    return together


class StackedLinear(torch.autograd.Function):
    """``nn.Linear`` of several jobs: inputs (K, N, in) to (K, N, out); the gradients go to the parameters of each."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, linear: LinearRows, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, linear.weight)
        return of_rows(linear_of_rows, F.linear, inputs, linear.weight, linear.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs = of_rows(torch.bmm, torch.mm, gradient, weight) if ctx.needs_input_grad[0] else None
        of_weight = of_rows(torch.bmm, torch.mm, gradient.mT, inputs)
        of_bias = of_rows(sum_of_rows, sum_of_rows, gradient)
        return of_inputs, None, *of_weight.unbind(), *of_bias.unbind()


def linear_of_rows(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``nn.functional.linear`` over a leading dimension."""
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)


def sum_of_rows(values: Tensor) -> Tensor:
    """The sum of (…, N, F) over N."""
    return values.sum(-2)


def of_rows(together: Function, alone: Function, *factors: Tensor) -> Tensor:
    """What ``alone`` makes of each row of the factors, stacked; by ``together`` at once, where that gives its bits.

    On a GPU, where it is about speed, always at once.
    """
    layout = tuple((factor.shape, factor.stride()) for factor in factors)
    if not factors[0].is_cpu or gives_the_same_bits(together, alone, layout, torch.get_num_threads()):
        return together(*factors)
    return row_by_row(alone, factors)


def row_by_row(alone: Function, factors: Sequence[Tensor]) -> Tensor:
    """Of copies, which begin in memory where tensors of a job alone do."""
    return torch.stack([alone(*map(torch.clone, row)) for row in zip(*factors, strict=True)])


@functools.cache
def gives_the_same_bits(together: Function, alone: Function, layout: Any, num_threads: int) -> bool:
    """Try it, with random numbers: which order a product is summed up in depends on shapes and on the processor."""
    generator = torch.Generator().manual_seed(0)
    factors = [torch.empty_strided(shape, strides).normal_(generator=generator) for shape, strides in layout]
    return torch.equal(together(*factors), row_by_row(alone, factors))
