"""Reads keys from files and commands, and finds faults in the keys and certificates that an endpoint names."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from batch.dispatch.transports.access import key_reference, resolve
from batch.environment import Keys
from batch.errors import SpecError
from schemas.endpoints import EndpointSpec

# Commands that fetch tokens ask a server of their own.
COMMAND_SECONDS = 30.0

# No key is longer; a file that was named by mistake may be.
_MOST_BYTES = 65_536


def key_from(reference: str) -> str:
    """The key that `file:PATH` or `command:[WORDS]` refers to, without spaces and line breaks at its ends.

    Raises:
        SpecError: there is no usable key; the message quotes neither the file nor the command's output.
    """
    kind, _, rest = reference.partition(":")
    if kind == "file":
        what, value = f"api_key_file {rest}", _read(rest)
    else:
        words: list[str] = json.loads(rest)
        what, value = f"api_key_command {words[0]}", _printed(words)
    value = value.strip()
    if not value:
        raise SpecError(f"{what} gives an empty key")
    fault = unsendable(value)
    if fault is not None:
        raise SpecError(f"{what} gives more than a key: {fault}")
    return value


def faults(endpoint: EndpointSpec, keys: Keys) -> Iterator[str]:
    """Faults that keep a transport from being built: each a colon and a sentence, which quotes no secret."""
    try:
        reference = key_reference(endpoint)
        if reference is not None:
            value = keys(reference)
            if not value:
                yield f": the environment variable {reference} is not set"
            elif (fault := unsendable(value)) is not None:
                yield f": the environment variable {reference} holds more than a key: {fault}"
    except SpecError as error:
        yield f": {error}"
    try:
        resolve(endpoint, keys)
    except SpecError as error:
        yield f": {error}"


def unsendable(value: str) -> str | None:
    """Why a key cannot be sent, in words that do not quote it; `None` if it can."""
    # Secrets that are mounted as files often end in a line break.
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        return "a line break, a space at an end, or characters that no header takes"
    return None


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(f"api_key_file {path} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise SpecError(f"api_key_file {path} is longer than any key ({_MOST_BYTES:,} bytes)")
    return content.decode(errors="replace")


def _printed(words: list[str]) -> str:
    name = f"api_key_command {words[0]}"
    try:
        # Without a shell, so no word is ever interpreted. Standard error is shown: the command may ask to log in.
        done = subprocess.run(  # noqa: S603  the command is the job file's own
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SpecError(f"{name} did not end within {COMMAND_SECONDS:g} seconds") from error
    except OSError as error:
        raise SpecError(f"{name} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise SpecError(f"{name} ended with status {done.returncode}")
    return done.stdout[: _MOST_BYTES + 1].decode(errors="replace")
