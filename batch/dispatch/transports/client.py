"""The interface between transports and HTTP libraries: one request, one response."""

import errno
import os
from collections.abc import Callable
from typing import Protocol

from batch.dispatch.transports.access import Access
from batch.dispatch.transports.words import cut, hiding
from batch.errors import BadAnswer, NoFileLeft, NotConnected

HttpAnswer = tuple[int, bytes, Callable[[str], str | None]]
"""Status, decompressed body, and the headers by name; ValueError where a header's value is not ASCII."""

NO_FILE_LEFT = "no connection: this process can open no more"
# Errors for too few open files allowed to the process or the machine, and for too little memory for sockets.
_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

KeyHeader = tuple[str, str] | None
"""Name and value of the header that carries the key."""


class HttpClient(Protocol):
    """Connections to one endpoint.

    Each request carries the endpoint's headers and query; redirects are not followed.
    """

    async def ask(self, method: str, path: str, body: bytes | None = None, key: KeyHeader = None) -> HttpAnswer:
        """Send one request to `path`, which begins with /v1 as rows' paths do.

        Args:
            key: the header with the key, in place of the one that the client was built with.

        Raises:
            DispatchError: no complete response came.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def too_long(most_bytes: int, status: int) -> BadAnswer:
    """Return the error for a response that is longer than `most_bytes`, and so than any real answer."""
    return BadAnswer(f"the answer is longer than {most_bytes >> 20} MiB", status=status)


def is_want_of_files(cause: str | OSError) -> bool:
    """Whether a connection failed because this process or machine can open no more files.

    Such a failure says nothing about the server.
    """
    if isinstance(cause, OSError):
        return cause.errno in _WANT
    return any(os.strerror(number) in cause for number in _WANT)


def not_connected(cause: str, access: Access) -> NotConnected:
    """Return the error for a connection that could not be made, with a plain message and the HTTP library's own words.

    Args:
        cause: the HTTP library's message; the secrets of `access` are masked in it.
    """
    if is_want_of_files(cause):
        return NoFileLeft(NO_FILE_LEFT, words=cut(cause))
    if "certificate" in cause:
        message = "no connection: the server's certificate is not trusted"
    elif "corrupt message" in cause:
        message = "no connection: the server does not speak TLS, as https asks for"
    else:
        message = "no connection"
    if access.proxy is not None:
        message += f" through the proxy {access.proxy_shown}, which the environment names"
    return NotConnected(message, words=cut(hiding(*access.secrets)(cause)))
