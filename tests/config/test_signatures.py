import inspect
import subprocess
import sys
from types import ModuleType

import lightning.pytorch
import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
import torch.nn
import torch.optim.lr_scheduler

import fmnist_lit.data
import fmnist_lit.loggers
import fmnist_lit.loggers.progress_bar
import fmnist_lit.losses
import fmnist_lit.model
import fmnist_lit.optimizers
import fmnist_lit.run.checkpoint
import fmnist_lit.schedulers
from fmnist_lit.config.signatures import NoSuchNameError, Signature, signature
from fmnist_lit.config.trust import MOVED

EXPORTING = [
    *(torch.optim, torch.optim.lr_scheduler, lightning.pytorch, lightning.pytorch.callbacks),
    *(lightning.pytorch.loggers, fmnist_lit.data, fmnist_lit.loggers),
]
DEFINING = [
    *(fmnist_lit.losses, fmnist_lit.model, fmnist_lit.optimizers, fmnist_lit.schedulers),
    *(fmnist_lit.run.checkpoint, fmnist_lit.loggers.progress_bar),
]


def classes(module: ModuleType, names: list[str]) -> list[str]:
    return [f"{module.__name__}.{name}" for name in names if inspect.isclass(getattr(module, name))]


TARGETS = [
    *(target for module in EXPORTING for target in classes(module, module.__all__)),
    *(f"torch.nn.{name}" for name in dir(torch.nn) if name.endswith("Loss")),
    *(
        f"{module.__name__}.{name}"
        for module in DEFINING
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not issubclass(value, Exception)
    ),
]
# What Python itself cannot tell, because they hand **kwargs on or refuse them in their body
SAYS_LESS = {
    "fmnist_lit.losses.LogSoftmaxNLLLoss",
    "fmnist_lit.schedulers.OneCycleLR",
    "lightning.pytorch.LightningModule",
}


def of_python(target: str) -> inspect.Signature:
    module, _, name = target.rpartition(".")
    return inspect.signature(getattr(sys.modules[module], name))


def test_targets_are_many():
    assert len(TARGETS) > 90
    assert set(TARGETS) > SAYS_LESS


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_read_is_what_python_says(target):
    read = signature(target)
    assert read is not None
    parameters = of_python(target).parameters.values()
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    required = [p.name for p in named if p.default is p.empty]
    if target in SAYS_LESS:
        assert not read.any_name
        assert list(read.by_name)[: len(by_name)] == by_name
        return
    assert list(read.by_name) == by_name
    assert list(read.by_position) == by_position
    assert sorted(read.required) == sorted(required)
    assert read.any_name == any(p.kind is p.VAR_KEYWORD for p in parameters)


def test_what_is_handed_on_is_what_the_ancestor_takes_and_is_not_given():
    read = signature("fmnist_lit.schedulers.OneCycleLR")
    assert read is not None
    assert "pct_start" in read.by_name
    assert "max_lr" not in read.by_name
    assert read.required == ("optimizer", "total_steps")


@pytest.mark.parametrize("target", MOVED)
def test_class_that_has_moved_is_found(target):
    assert signature(target) == signature(MOVED[target])


@pytest.mark.parametrize(
    ("target", "other"),
    [
        ("lightning.pytorch.callbacks.EarlyStoping", "EarlyStopping"),
        ("torch.optim.Adamm", "Adam"),
        ("torch.optim.lr_scheduler.StepLr", "StepLR"),
        ("torch.nn.CrosEntropyLoss", "CrossEntropyLoss"),
        ("fmnist_lit.losses.OneHotLos", "OneHotLoss"),
    ],
)
def test_name_that_does_not_exist_is_told_from_those_that_do(target, other):
    with pytest.raises(NoSuchNameError) as raised:
        signature(target)
    assert other in raised.value.others


@pytest.mark.parametrize("target", ["no_such_package.Class", "torch.optim.nowhere.SGD"])
def test_module_that_does_not_exist_has_no_names(target):
    with pytest.raises(NoSuchNameError) as raised:
        signature(target)
    assert raised.value.others is None


@pytest.mark.parametrize("target", ["torch.Tensor", "math.sqrt", "builtins.print", "enum.Enum", "noname"])
def test_what_the_source_does_not_tell_is_unknown(target):
    assert signature(target) is None


MINE = """
from __future__ import annotations
import abc
import functools
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar
from . import elsewhere
from .elsewhere import *
from .elsewhere import Base as Renamed
if TYPE_CHECKING:
    from .elsewhere import OnlyForCheckers
try:
    from nowhere import Perhaps
except ImportError:
    class Perhaps:
        pass

T = TypeVar("T")

class Inherits(Renamed): ...
class HandsOn(Renamed):
    def __init__(self, own, *args, **kwargs):
        super().__init__(*args, **kwargs)
class Sets(elsewhere.Base):
    def __init__(self, own=1, **kwargs):
        super().__init__(own, **kwargs)
class Swallows(Renamed):
    def __init__(self, **kwargs):
        self.kept = kwargs
        super().__init__(1, **kwargs)
class Dynamic(functools.partial): ...
class Nothing(abc.ABC, Generic[T]): ...
class Left(elsewhere.Top): ...
class Right(elsewhere.Top):
    def __init__(self, right): ...
class Diamond(Left, Right): ...
@dataclass
class Fields(elsewhere.Data):
    shared: ClassVar[int] = 1
    second: list = field(default_factory=list)
    hidden: int = field(default=0, init=False)
    _: KW_ONLY
    third: int
class Inheriting(Fields): ...
class Tuple(NamedTuple):
    x: int
class Makes:
    def __new__(cls, x): ...
class Meta(metaclass=type("M", (type,), {})):
    def __init__(self, x): ...
def function(a, /, b, *, c=1): ...
@functools.lru_cache
def cached(a): ...
Alias = Renamed
made = [type("X", (), {})]
"""
ELSEWHERE = """
from dataclasses import dataclass
class Top:
    def __init__(self, top): ...
class Base:
    def __init__(self, first, second=2, *, third): ...
class OnlyForCheckers: ...
@dataclass
class Data:
    first: int
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A package on the path that cannot be imported."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "mine_of_test").mkdir()
    (folder / "mine_of_test" / "__init__.py").write_text(MINE + "raise RuntimeError\n")
    (folder / "mine_of_test" / "elsewhere.py").write_text(ELSEWHERE)
    (folder / "mine_of_test" / "dynamic.py").write_text("globals()['Class'] = int\n")
    (folder / "mine_of_test" / "broken.py").write_text("class Class(:\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


FIRST, THIRD = ("first", "second"), ("first", "third")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Inherits", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("Alias", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("elsewhere.Base", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("Base", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("HandsOn", Signature(("own", *FIRST), ("own", *FIRST, "third"), ("own", *THIRD), any_position=True)),
        ("Sets", Signature(("own",), ("own", "second", "third"), ("third",))),
        ("Swallows", Signature(any_name=True)),
        ("Nothing", Signature()),
        ("Diamond", Signature(("right",), ("right",), ("right",))),
        ("Fields", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("Inheriting", Signature(FIRST, (*FIRST, "third"), THIRD)),
        ("function", Signature(("a", "b"), ("b", "c"), ("a", "b"))),
        *((name, None) for name in ("Dynamic", "Perhaps", "Tuple", "Makes", "Meta", "cached", "made", "elsewhere")),
        *((name, None) for name in ("dynamic.Class", "broken.Class", "Inherits.method")),
    ],
)
def test_package_on_the_path_is_read_and_not_imported(name, expected):
    assert signature(f"mine_of_test.{name}") == expected


@pytest.mark.usefixtures("mine")
def test_nothing_heavy_is_imported():
    """A separate process: here torch is."""
    code = (
        "import sys; from fmnist_lit.config.signatures import signature; signature('torch.optim.SGD'); "
        "signature('lightning.pytorch.Trainer'); assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
