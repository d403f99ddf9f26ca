"""Gives keys by name, over a Unix socket, to processes on this machine that do not inherit our environment."""

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
# A `command:` key may have to fetch a token from a server, and has half a minute for it.
_ANSWER_SECONDS = 45.0

# The first byte of an answer says whether the key follows, or the reason why there is none.
_KEY = b"="
_REASON = b"!"

# Linux has room for 107 bytes in a socket's address, macOS for 103.
_MOST_PATH_BYTES = 100


class KeyServer:
    """Answers processes of the same user on the same machine that ask for a key by its name, until `close`.

    The processes of a cluster that we join have the environment in which the cluster was started, and Ray stores and
    shows what it carries. Over this socket a key reaches only the process that asked for it.

    Attributes:
        keys: to be passed to such processes, once this has started; it pickles and holds no key.
    """

    def __init__(self, keys: Keys) -> None:
        self._answers = keys

    def start(self) -> None:
        """Open the socket and start to answer.

        Raises:
            SpecError: no socket can be made in the folder for temporary files.
        """
        with ExitStack() as opened:
            try:
                path = _socket_path(opened)
                self._server = opened.enter_context(_Server(path, self._answers))
            except OSError as error:
                raise SpecError(
                    f"other processes cannot ask for keys: {error}; set TMPDIR to a folder of this machine"
                ) from error
            self.keys = AskedKeys(path)
            threading.Thread(target=self._server.serve_forever, name="keys", daemon=True).start()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._opened.close()


@dataclass(frozen=True, slots=True)
class AskedKeys:
    """Asks the KeyServer that listens at `path`."""

    path: str

    def __call__(self, name: str) -> str | None:
        """Return the key of that name; `None`: it is not set.

        Raises:
            SpecError: no KeyServer answers here, because this is another machine or another user's process; or the
                KeyServer cannot read the key's file, or the key's command failed.
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
    """A path for a socket, in a new folder that only this user may enter and that `opened` removes."""
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
        """As in the base class, but print nothing about a process that was killed before its answer came."""
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
