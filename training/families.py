"""Which modules of `models` are of a kind: those whose `build` returns a class with some method.

So a new detector or generator is one new file. Knows no kind by itself.
"""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import get_type_hints

import models


@cache
def modules_that_build(method: str) -> dict[str, ModuleType]:
    """The modules by name, in its order."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(models.__path__) if not entry.ispkg)
    modules = {name: import_module(f"models.{name}") for name in names}
    return {name: module for name, module in modules.items() if _builds(module, method)}


def _builds(module: ModuleType, method: str) -> bool:
    built = get_type_hints(module.build).get("return") if hasattr(module, "build") else None
    return hasattr(built, method)
