"""Imports code of the user's own by its import path, and describes its failures in one line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from batch.errors import BatchRouterError, SpecError


def import_own(path: str, key: str) -> Any:
    """Return what `path`, written `package.module:name`, names; `None` if the module has no such name.

    Raises SpecError, with one line that begins with `key`, if the module cannot be imported.
    """
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise SpecError(f"{key}: cannot import {module_name!r}: {error}; is it on PYTHONPATH?") from error
    except Exception as error:  # the user's own code may raise anything
        raise SpecError(f"{key}: importing {module_name!r} failed: {described(error)}") from error
    return getattr(module, name, None)


def make_own(path: str, options: Mapping[str, Any], key: str, *given: Any, call: str, is_no: str) -> Any:
    """Make the class at `path`, written `package.module:Class`, from `given` and with `options` as keyword arguments.

    Args:
        key: the block of the user's file that has `path` and `options`, for messages.
        call: the method that the class must have, with its arguments, as in "score(prompts)".
        is_no: what the class is not without that method, as in "router".

    Raises:
        SpecError: in one line, where the module, the class or the method is missing, or the constructor refuses.
    """
    module_name, _, class_name = path.partition(":")
    made = import_own(path, f"{key}.path")
    if not isinstance(made, type):
        raise SpecError(f"{key}.path: the module {module_name!r} has no class {class_name!r}")
    if not callable(getattr(made, call.partition("(")[0], None)):
        raise SpecError(f"{key}.path: {path} has no method `{call}`, so it is no {is_no}")
    try:
        return made(*given, **options)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{key}.options: {path} refuses them: {flatten(error)}") from error
    except BatchRouterError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise SpecError(f"{key}.path: {path} cannot be made: {described(error)}") from error


@contextmanager
def call_failures(path: str, key: str, method: str) -> Iterator[None]:
    """Turn what a call of the user's own class raises into one line with the place in the user's code.

    Args:
        path: names the class, as `make_own` takes it.
        key: as `make_own` takes it.
        method: what is called.

    Raises:
        BatchRouterError: as the call raised it.
        SpecError: in place of any other exception.
    """
    try:
        yield
    except BatchRouterError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise SpecError(f"{key}.path: {path}: `{method}` failed: {described(error)}") from error


def described(error: Exception) -> str:
    """The class and message of an error, and the line of code that raised it, on one line."""
    last = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {flatten(error)} ({PurePath(last.filename).name}:{last.lineno})"


def flatten(error: Exception) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())
