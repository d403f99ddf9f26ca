"""Keys for processes that do not inherit them: asked of the process that has them, through a socket of this machine."""

import os
import socket
import socketserver
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.environment import Keys
from batch.errors import SpecError

_SECONDS = 10.0
# A command that fetches a token asks a server of its own; it may take its half minute.
_ANSWER_SECONDS = 45.0

# What an answer begins with: the key follows, or why there is none.
_KEY = b"="
_REASON = b"!"

# Linux has room for 107 bytes in a socket's address, macOS for 103.
_MOST_PATH_BYTES = 100


class KeyServer:
    """Tells processes of the same user on the same machine the keys they ask for by name, until it is closed.

    The processes of a cluster that was there before us have an environment of their own, and what Ray carries it also
    stores and shows. What goes through here is in nobody's hands but the two processes'.

    Attributes:
        keys: to be passed to such a process; it pickles, and holds no key.
    """

    def __init__(self, keys: Keys) -> None:
        """Answer from now on.

        Raises:
            SpecError: there is no folder here that a socket can be in.
        """
        with ExitStack() as opened:
            try:
                path = _socket_path(opened)
                self._server = opened.enter_context(_Server(path, keys))
            except OSError as error:
                raise SpecError(
                    f"other processes cannot ask for keys: {error}; set TMPDIR to a folder of this machine"
                ) from error
            self.keys = AskedKeys(path)
            threading.Thread(target=self._server.serve_forever, name="keys", daemon=True).start()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._opened.close()


@dataclass(frozen=True, slots=True)
class AskedKeys:
    """The keys of whoever listens at `path`."""

    path: str

    def __call__(self, name: str) -> str | None:
        """The key of that name; `None`: it is not set.

        Raises:
            SpecError: nobody answers here: this is another machine, or another user's process. Or whoever was asked
                cannot read the file, or its command failed.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(_ANSWER_SECONDS)
                asking.connect(self.path)
                with asking.makefile("rwb") as stream:
                    stream.write(f"{name}\n".encode())
                    stream.flush()
                    answer = stream.read()
        except OSError as error:
            raise SpecError(f"the key {name} cannot be asked for: {error.strerror or error}") from error
        text = answer[1:].decode()
        if answer[:1] == _REASON:
            raise SpecError(text)
        return text or None


def _socket_path(opened: ExitStack) -> str:
    """A path for a socket, in a folder of its own that `opened` removes. Others may not enter it and connect."""
    path = _path_in(opened, None)
    if len(os.fsencode(path)) <= _MOST_PATH_BYTES:
        return path
    return _path_in(opened, "/tmp")  # noqa: S108  a folder of its own, with a random name


def _path_in(opened: ExitStack, folder: str | None) -> str:
    own = tempfile.TemporaryDirectory(prefix="batchrouter-", dir=folder)
    return str(Path(opened.enter_context(own)) / "keys")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, keys: Keys) -> None:
        super().__init__(path, _Answer)
        self.keys_of_ours = keys

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As of any server, but nothing is said of an asker that is gone, killed maybe: it is nobody's trouble."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Answer(socketserver.StreamRequestHandler):
    timeout = _SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        name = self.rfile.readline().decode().rstrip("\n")
        try:
            key = self.server.keys_of_ours(name)
        except SpecError as error:
            self.wfile.write(_REASON + str(error).encode())
        else:
            self.wfile.write(_KEY + (key or "").encode())
