"""Code of the user's own, named by its import path, and its failures in one line."""

from importlib import import_module
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from batch.errors import SpecError


def import_own(path: str, key: str) -> Any:
    """What `path`, written `package.module:name`, names; None where the module has nothing of that name.

    Raises SpecError, in one line that begins with `key`, where the module cannot be imported.
    """
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise SpecError(f"{key}: cannot import {module_name!r}: {error}; is it on PYTHONPATH?") from error
    except Exception as error:  # the user's own code may raise anything
        raise SpecError(f"{key}: importing {module_name!r} failed: {described(error)}") from error
    return getattr(module, name, None)


def described(error: Exception) -> str:
    """Its kind, what it says, and the place in the code that raised it."""
    last = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {flatten(error)} ({PurePath(last.filename).name}:{last.lineno})"


def flatten(error: Exception) -> str:
    """What it says."""
    return " ".join(str(error).split())
