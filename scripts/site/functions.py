"""What mkdocstrings is told of the package."""

from typing import Any

import griffe


class Functions(griffe.Extension):
    """Shows ``fmnist_lit.train`` and ``.sweep`` as functions, not as the modules that have these names, too."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[str, griffe.Function] = {}

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Keep the functions of the package itself."""
        if func.parent is not None and func.parent.path == "fmnist_lit":
            self.functions[func.name] = func

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Put them where modules took their place."""
        if pkg.path == "fmnist_lit":
            pkg.members.update(self.functions)
