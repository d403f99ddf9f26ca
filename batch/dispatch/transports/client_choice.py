"""Chooses the HTTP library that reaches an endpoint."""

from batch.dispatch.transports.access import Access
from batch.dispatch.transports.client import HttpClient, KeyHeader


def build_client(access: Access, key: KeyHeader, *, timeout_seconds: float, most_bytes: int) -> HttpClient:
    """Build the client for an endpoint: httpx for Unix sockets, which pyreqwest does not support, else pyreqwest.

    Raises:
        SpecError: a certificate or a proxy cannot be used.
    """
    if access.socket is not None:
        from batch.dispatch.transports.socket_client import SocketClient

        return SocketClient(access, key, timeout_seconds=timeout_seconds, most_bytes=most_bytes)
    from batch.dispatch.transports.load_pyreqwest import load_pyreqwest

    load_pyreqwest()
    from batch.dispatch.transports.pyreqwest_client import PyreqwestClient

    return PyreqwestClient(access, key, timeout_seconds=timeout_seconds, most_bytes=most_bytes)
