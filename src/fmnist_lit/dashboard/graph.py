"""The graph of a model for TensorBoard: each operation of one forward pass, within the modules that call it.

It takes about as long as the pass. ``SummaryWriter.add_graph`` traces with ``torch.jit``, which is deprecated, says so
on the screen, and takes a large part of a second.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fmnist_lit.dashboard.undisturbed import undisturbed

if TYPE_CHECKING:
    from fmnist_lit.loggers.protocol import GraphDef


def draw_graph(model: nn.Module, images: Tensor) -> "GraphDef":
    """The graph of ``model`` as it evaluates ``images``; the model and torch's generators stay as they are."""
    with undisturbed(model, images.device), Recorder(model, images) as recorder, torch.no_grad():
        recorder.add("output", "Output", [model(images)], [])
    return recorder.graph


class Recorder(TorchFunctionMode):
    """Notes each function of torch that is called, under the modules that are running, and where its inputs are from.

    Attributes:
        graph: what is known so far.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        from fmnist_lit.loggers.protocol import GraphDef, VersionDef

        super().__init__()
        self.graph = GraphDef(versions=VersionDef(producer=22))  # as torch's own has it
        self.numbers: Counter[str] = Counter()
        self.made_by: dict[int, str] = {}  # a tensor's id, and the node that it is from
        self.alive: list[Tensor] = []  # so that no id is another tensor's later
        self.running: list[str] = []  # modules, the innermost last
        self.hooks = ExitStack()
        self.add("input", "Input", [], [images])
        scopes = {"": type(model).__name__}
        for name, module in model.named_modules():
            if name:
                parent, _, own = name.rpartition(".")
                scopes[name] = f"{scopes[parent]}/{type(module).__name__}[{own}]"
            for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                self.add(f"{scopes[name]}/{own}", "Parameter", [], [tensor])
            entering = module.register_forward_pre_hook(self.entering(scopes[name]))
            leaving = module.register_forward_hook(lambda *call: self.running.pop() and None)
            self.hooks.callback(entering.remove)
            self.hooks.callback(leaving.remove)

    def entering(self, scope: str) -> Callable[..., None]:
        """A hook that notes that the module in ``scope`` begins to run."""
        return lambda *call: self.running.append(scope)

    def __exit__(self, *error: Any) -> None:
        self.hooks.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch's own

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if made and self.running:  # else it is a question, such as a shape
            kind = func.__name__.strip("_")
            self.add(f"{self.running[-1]}/{kind}", kind, tree_leaves((args, kwargs)), made)
        return result

    def add(self, name: str, kind: str, inputs: Iterable[Any], outputs: list[Tensor]) -> None:
        """Add a node, which made ``outputs``."""
        from fmnist_lit.loggers.protocol import AttrValue, NodeDef, TensorShapeProto

        self.numbers[name] += 1
        if self.numbers[name] > 1:
            name = f"{name}_{self.numbers[name]}"
        sources = [self.made_by[id(leaf)] for leaf in inputs if id(leaf) in self.made_by]
        dims = [[TensorShapeProto.Dim(size=size) for size in tensor.shape] for tensor in outputs]
        shapes = AttrValue.ListValue(shape=[TensorShapeProto(dim=dim) for dim in dims])
        node = NodeDef(name=name, op=kind, input=sources, attr={"_output_shapes": AttrValue(list=shapes)})
        self.graph.node.append(node)
        self.made_by |= {id(tensor): name for tensor in outputs}
        self.alive += outputs
