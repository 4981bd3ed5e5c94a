"""What a class or a function takes, read from its source: to import torch and Lightning and ask takes seconds."""

import ast
import functools
import gc
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from fmnist_lit.config.trust import MOVED

# Decorators that leave what is taken as it is written
TRANSPARENT = {
    *("override", "overload", "final", "deprecated", "runtime_checkable", "total_ordering"),
    *("no_grad", "inference_mode", "_disable_dynamo", "rank_zero_only"),
    "_defaults_from_env_vars",  # of lightning.Trainer
}
# Bases that take nothing. torch's Module is written as if it took anything, and then refuses it.
TAKE_NOTHING = {
    *("builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol", "typing_extensions.Protocol"),
    "torch.nn.modules.module.Module",
}
# What gives a module names that are not written in it
MAKES_NAMES = ("globals()", "vars()", "locals()", "sys.modules", "exec(")


class UnreadableError(Exception):
    """The source does not tell: compiled, or made as the program runs."""


class NoSuchNameError(LookupError):
    """A module has no such name, for sure; ``others`` are those that it has, or None if there is no such module."""

    def __init__(self, module: str, name: str, others: Iterable[str] | None = None) -> None:
        super().__init__(f"{name} is not in {module}")
        self.module, self.name, self.others = module, name, None if others is None else list(others)


@dataclass(frozen=True)
class Signature:
    """What can be given.

    Args:
        by_position: names in the order in which they can be given without.
        by_name: all that can be given by name.
        required: those without a default.
        any_name, any_position: takes further arguments as well, and what becomes of them cannot be told.
    """

    by_position: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    any_name: bool = False
    any_position: bool = False


@dataclass(frozen=True)
class Module:
    """A source file: what each name at its top level is, and the modules of which it imports ``*``."""

    name: str
    is_package: bool
    names: dict[str, ast.AST | str | None]  # a definition, the dotted name of what is imported, or unknown
    stars: list[str]
    exported: list[str] | None  # __all__
    complete: bool  # whether no other name can be in it

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that an import in this one names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])


@dataclass(frozen=True)
class Class:
    """A class statement and where it is."""

    module: Module
    node: ast.ClassDef


def signature(target: str) -> Signature | None:
    """What a dotted name takes when it is called; None where the source does not tell.

    Raises:
        NoSuchNameError: if there is nothing of that name.
    """
    try:
        found = resolve(MOVED.get(target, target))
        if isinstance(found, Class):
            return of_class(found)
        return of_function(found) if found is not None else None
    except (UnreadableError, RecursionError):
        return None


def resolve(dotted: str, depth: int = 0) -> Class | ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The definition that a dotted name leads to, through imports; None for a class that takes nothing."""
    if dotted in TAKE_NOTHING:
        return None
    if depth > 20:
        raise UnreadableError(dotted)
    *parents, last = dotted.split(".")
    if not parents:
        raise UnreadableError(dotted)
    module_name, rest = parents[0], parents[1:]
    while rest and source_of(f"{module_name}.{rest[0]}") is not None:
        module_name = f"{module_name}.{rest.pop(0)}"
    module = load(module_name)
    if rest:  # an attribute of what is in the module
        try:
            found = look_up(module, rest[0], depth)
        except NoSuchNameError as error:
            raise NoSuchNameError(module_name, rest[0]) from error
        if isinstance(found, str):
            return resolve(".".join([found, *rest[1:], last]), depth + 1)
        raise UnreadableError(dotted)
    found = look_up(module, last, depth)
    if isinstance(found, str):
        return resolve(found, depth + 1)
    if isinstance(found, ast.ClassDef):
        return Class(module, found)
    if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        return found
    raise UnreadableError(dotted)


def look_up(module: Module, name: str, depth: int = 0) -> ast.AST | str | None:
    """What a name at a module's top level is."""
    if name in module.names:
        return module.names[name]
    if depth > 20:
        raise UnreadableError(name)
    complete, others = module.complete, dict.fromkeys(module.names)
    for star in module.stars:
        try:
            starred = load(star)
        except UnreadableError:
            complete = False
            continue
        if name in starred.exported if starred.exported is not None else not name.startswith("_"):
            try:
                look_up(starred, name, depth + 1)
            except UnreadableError:
                complete = False
            except NoSuchNameError as error:
                others |= dict.fromkeys(error.others or ())
            else:
                return f"{star}.{name}"
        else:
            others |= dict.fromkeys(starred.exported or starred.names)
    if source_of(f"{module.name}.{name}") is not None or not complete or "__getattr__" in module.names:
        raise UnreadableError(name)
    raise NoSuchNameError(module.name, name, others)


# Files


def locations(package: str) -> list[Path]:
    """The folders of a package, found without importing it."""
    top, *below = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise UnreadableError(package) from error
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for part in below:
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return folders


def source_of(module: str) -> Path | None:
    """The file of a module, or its folder if that is all there is; None if there is no such module.

    Raises:
        UnreadableError: if it is not Python source.
    """
    parent, _, last = module.rpartition(".")
    if not parent:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise UnreadableError(module) from error
        if spec is None:
            return None
        if spec.origin is not None and spec.origin.endswith(".py"):
            return Path(spec.origin)
        if spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
        raise UnreadableError(module)
    folders = locations(parent)
    for folder in folders:
        for path in (folder / last / "__init__.py", folder / f"{last}.py"):
            if path.is_file():
                return path
        if any((folder / f"{last}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            raise UnreadableError(module)
    found = next((folder / last for folder in folders if (folder / last).is_dir()), None)
    if found is None and module in sys.modules:
        raise UnreadableError(module)
    return found


def load(name: str) -> Module:
    """What is in a module.

    Raises:
        NoSuchNameError: if there is no such module.
        UnreadableError: if it is not Python source.
    """
    path = source_of(name)
    if path is None:
        parent, _, last = name.rpartition(".")
        raise NoSuchNameError(parent, last)
    if path.is_dir():
        return Module(name, True, {}, [], None, complete=True)
    return read(name, path, path.stat().st_mtime_ns)


@functools.cache
def read(name: str, path: Path, changed_ns: int) -> Module:
    """Read a source file once, and again when it has changed."""
    collects = gc.isenabled()
    gc.disable()  # a tree is many new objects and no garbage, and looking for it costs as much as parsing
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        complete = not any(word in source for word in MAKES_NAMES)
        module = Module(name, path.name == "__init__.py", {}, [], exports(tree), complete)
        bind(module, tree.body)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(name) from error
    finally:
        if collects:
            gc.enable()
    return module


def exports(tree: ast.Module) -> list[str] | None:
    """The literal names of ``__all__``; None where it is not there or made as the program runs."""
    found = None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = getattr(node, "value", None)
            if not isinstance(node, ast.Assign) or not isinstance(value, ast.List | ast.Tuple) or found is not None:
                return None
            found = [str(item.value) for item in value.elts if isinstance(item, ast.Constant)]
    return found


def bind(module: Module, body: Iterable[ast.stmt], certain: bool = True) -> None:
    """Note what each statement at a module's top level names; what two branches name differently is unknown."""
    for node in body:
        new: dict[str, ast.AST | str | None] = {}
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                drop_bodies(node)
                new[name] = node
            case ast.Import(names=aliases):
                for alias in aliases:
                    new[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            case ast.ImportFrom(names=aliases):
                origin = module.absolute(node)
                for alias in aliases:
                    if alias.name == "*":
                        module.stars.append(origin)
                    else:
                        new[alias.asname or alias.name] = f"{origin}.{alias.name}"
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                new[name] = dotted_name(module, value)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                bind(module, node.orelse, certain)
            case ast.If() | ast.Try() | ast.With():
                blocks = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
                for block in (*blocks, *(handler.body for handler in getattr(node, "handlers", []))):
                    bind(module, block, certain=False)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        module.names.pop(target.id, None)
            case _:
                stored = (child for child in ast.walk(node) if isinstance(child, ast.Name))
                new = {child.id: None for child in stored if isinstance(child.ctx, ast.Store)}
        for name, meaning in new.items():
            differs = not certain and module.names.get(name, meaning) != meaning
            module.names[name] = None if differs else meaning


def drop_bodies(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Forget what functions do, but for how an object is made: it is most of a tree, and trees are kept."""
    if not isinstance(node, ast.ClassDef):
        node.body = []
        return
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name not in ("__init__", "__new__"):
            child.body = []


def dotted_name(module: Module, node: ast.expr) -> str | None:
    """The absolute dotted name that an expression in a module is, or None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    first = module.names.get(node.id)
    if isinstance(first, str):
        return ".".join([first, *parts])
    if node.id in module.names or module.stars:
        return ".".join([module.name, node.id, *parts])
    return ".".join(["builtins", node.id, *parts])


# What is taken


def of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool = False) -> Signature:
    """The parameters of a function, or of a method but for its first."""
    if {decorator_name(decorator) for decorator in node.decorator_list} - TRANSPARENT:
        raise UnreadableError(node.name)
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    required = [parameter.arg for parameter in positional[:without_default]]
    required += [
        parameter.arg
        for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    first = positional[0].arg if bound and positional else None
    by_name = [*arguments.args, *arguments.kwonlyargs]
    return Signature(
        by_position=tuple(parameter.arg for parameter in positional if parameter.arg != first),
        by_name=tuple(parameter.arg for parameter in by_name if parameter.arg != first),
        required=tuple(name for name in required if name != first),
        any_name=arguments.kwarg is not None,
        any_position=arguments.vararg is not None,
    )


def of_class(cls: Class) -> Signature:
    """What a class takes: the parameters of its ``__init__``, its own or inherited."""
    require_plain(cls)
    init = own_method(cls, "__init__")
    if init is not None and handed_on(init) is None:
        return of_function(init, bound=True)  # whatever its ancestors are, which would have to be read
    return of_line(linearize(cls))


def of_line(line: list[Class | None]) -> Signature:
    """What the first ``__init__`` in a line of ancestors takes, with what it hands on to the next."""
    for index, cls in enumerate(line):
        if cls is None:
            raise UnreadableError("an ancestor")
        require_plain(cls)
        init = own_method(cls, "__init__")
        if init is None and (options := dataclass_options(cls)) is not None and options.get("init") is not False:
            return of_dataclass(line[index:])
        if init is not None:
            own = of_function(init, bound=True)
            call = handed_on(init)
            return own if call is None else joined(own, call, line[index + 1 :], init)
    return Signature()


def joined(own: Signature, call: ast.Call, line: list[Class | None], init: ast.FunctionDef) -> Signature:
    """What an ``__init__`` takes by itself and for the ``super().__init__`` that gets the rest."""
    try:
        rest = of_line(line)
    except UnreadableError:
        return own
    given = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
    filled = {keyword.arg for keyword in call.keywords} | set(rest.by_position[: len(given)]) | set(own.by_name)
    on_position = tuple(name for name in rest.by_position if name not in filled) if len(given) < len(call.args) else ()
    return replace(
        own,
        by_position=(*own.by_position, *on_position),
        by_name=(*own.by_name, *(name for name in rest.by_name if name not in filled)),
        required=(*own.required, *(name for name in rest.required if name not in filled)),
        any_name=rest.any_name,
    )


def handed_on(init: ast.FunctionDef) -> ast.Call | None:
    """The call of ``super().__init__`` that gets all of ``**kwargs``, if nothing else is done with them."""
    if init.args.kwarg is None:
        return None
    name = init.args.kwarg.arg
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(init))
    for call in ast.walk(init):
        match call:
            case ast.Call(func=ast.Attribute(attr="__init__", value=ast.Call(func=ast.Name(id="super")))):
                gets = any(
                    k.arg is None and isinstance(k.value, ast.Name) and k.value.id == name for k in call.keywords
                )
                if gets and uses == 1:
                    return call
    return None


def of_dataclass(line: list[Class | None]) -> Signature:
    """The fields of a dataclass and of those that it extends."""
    fields: dict[str, tuple[bool, bool]] = {}  # required, by name only
    for cls in reversed(line):
        if cls is None:
            raise UnreadableError("an ancestor")
        options = dataclass_options(cls)
        if options is None:
            continue
        by_name_only = options.get("kw_only") is True
        for node in cls.node.body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            annotation = ast.unparse(node.annotation)
            if "KW_ONLY" in annotation:
                by_name_only = True
            elif "ClassVar" not in annotation:
                name, value, required, named = node.target.id, node.value, node.value is None, by_name_only
                if isinstance(value, ast.Call) and decorator_name(value) == "field":
                    given = {keyword.arg: keyword.value for keyword in value.keywords}
                    if isinstance(given.get("init"), ast.Constant) and not ast.literal_eval(given["init"]):
                        fields.pop(name, None)
                        continue
                    required = not {"default", "default_factory"} & given.keys()
                    named = ast.literal_eval(given["kw_only"]) if "kw_only" in given else named
                fields[name] = (required, named)
    return Signature(
        by_position=tuple(name for name, (_, named) in fields.items() if not named),
        by_name=tuple(fields),
        required=tuple(name for name, (required, _) in fields.items() if required),
    )


def linearize(cls: Class, depth: int = 0) -> list[Class | None]:
    """A class and its ancestors in the order in which Python looks them up; None for one that cannot be read."""
    if depth > 20:
        raise UnreadableError(cls.node.name)
    lines: list[list[Class | None]] = []
    bases: list[Class | None] = []
    for base in cls.node.bases:
        expression = base.value if isinstance(base, ast.Subscript) else base
        name = dotted_name(cls.module, expression)
        try:
            if name is None or (name.startswith("builtins.") and name not in TAKE_NOTHING):
                raise UnreadableError(cls.node.name)
            found = resolve(name)
            if found is not None:
                if not isinstance(found, Class):
                    raise UnreadableError(name)
                bases.append(found)
                lines.append(linearize(found, depth + 1))
        except (UnreadableError, NoSuchNameError):
            bases.append(None)
            lines.append([None])
    merged: list[Class | None] = [cls]
    waiting = [list(line) for line in (*lines, bases) if line]
    while waiting:
        for line in waiting:
            head = line[0]
            if not any(same(head, other) for rest in waiting for other in rest[1:]):
                break
        else:
            raise UnreadableError(cls.node.name)
        merged.append(head)
        waiting = [rest[1:] if same(rest[0], head) else rest for rest in waiting]
        waiting = [rest for rest in waiting if rest]
    return merged


def same(one: Class | None, other: Class | None) -> bool:
    """Whether two are one class."""
    return (one is not None and other is not None and one.node is other.node) or one is other


def require_plain(cls: Class) -> None:
    """Refuse to tell of a class of which calling it may mean something else than its ``__init__``."""
    decorators = {decorator_name(decorator) for decorator in cls.node.decorator_list}
    metaclasses = {ast.unparse(keyword.value).split(".")[-1] for keyword in cls.node.keywords}
    makes = own_method(cls, "__new__")
    if (
        decorators - TRANSPARENT - {"dataclass"}
        or metaclasses - {"ABCMeta"}
        or (makes and not (makes.args.vararg and makes.args.kwarg))
    ):
        raise UnreadableError(cls.node.name)


def own_method(cls: Class, name: str) -> ast.FunctionDef | None:
    """A method that a class defines itself, the last one of that name.

    Raises:
        UnreadableError: if it is defined otherwise than by a plain ``def``.
    """
    found = None
    for node in cls.node.body:
        if isinstance(node, ast.FunctionDef):
            found = node if node.name == name else found
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.If | ast.Try) and any(defined(node, name)):
            raise UnreadableError(cls.node.name)
    return found


def defined(node: ast.stmt, name: str) -> Iterator[bool]:
    """Whether each part of a statement gives something that name."""
    for child in ast.walk(node):
        yield isinstance(child, ast.FunctionDef) and child.name == name
        yield isinstance(child, ast.Name) and child.id == name and isinstance(child.ctx, ast.Store)


def dataclass_options(cls: Class) -> dict[str, object] | None:
    """What ``@dataclass`` was given, or None for another class."""
    for decorator in cls.node.decorator_list:
        if decorator_name(decorator) == "dataclass":
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            return {k.arg: k.value.value for k in keywords if k.arg and isinstance(k.value, ast.Constant)}
    return None


def decorator_name(node: ast.expr) -> str:
    """The last part of what a decorator, or a call, names."""
    if isinstance(node, ast.Call):
        node = node.func
    return ast.unparse(node).split(".")[-1]
