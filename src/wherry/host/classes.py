"""Classes that a configuration names: of an installed module, or of a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TypeVar

Base = TypeVar("Base")


class ClassNotFound(ValueError):
    """There is no such class, or it is not what is wanted; the text begins with the name."""


def absolute(name: str, directory: Path) -> str:
    """``name`` with the path of its file made absolute, where it names one (from ``directory``)."""
    module, separator, class_name = name.rpartition(":")
    if not separator or not _is_file(module):
        return name
    return f"{(directory / module).resolve()}:{class_name}"


def find_class(name: str, base: type[Base]) -> type[Base]:
    """The class that ``package.module:Class`` or ``/path/to/file.py:Class`` names.

    Raises:
        ClassNotFound: there is none, or it is not derived from ``base``.
    """
    module_name, _, class_name = name.rpartition(":")
    try:
        module = (
            _of_file(Path(module_name))
            if _is_file(module_name)
            else importlib.import_module(module_name)
        )
        found = getattr(module, class_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise ClassNotFound(f'"{name}" cannot be loaded: {error}') from error
    if not inspect.isclass(found) or not issubclass(found, base):
        raise ClassNotFound(f'"{name}" is not a class derived from {base.__name__}')
    return found


def _is_file(module: str) -> bool:
    return module.endswith(".py") or "/" in module


def _of_file(path: Path) -> ModuleType:
    name = f"wherry_own_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
