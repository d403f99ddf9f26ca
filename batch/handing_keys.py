"""Keys for processes that do not inherit them: asked of the process that has them, through a socket of this machine."""

import socket
import socketserver
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from batch.dispatch.transports import Keys
from batch.errors import SpecError

_SECONDS = 10.0


class KeyServer:
    """Tells processes of the same user on the same machine the keys they ask for by name, until it is closed.

    The processes of a cluster that was there before us have an environment of their own, and what Ray carries it also
    stores and shows. What goes through here is in nobody's hands but the two processes'.

    Attributes:
        keys: to be passed to such a process; it pickles, and holds no key.
    """

    def __init__(self, keys: Keys) -> None:
        # Others may not enter this folder, so only we can connect.
        self._folder = tempfile.TemporaryDirectory(prefix="batchrouter-")
        path = Path(self._folder.name) / "keys"
        self._server = _Server(str(path), keys)
        self.keys = AskedKeys(str(path))
        threading.Thread(target=self._server.serve_forever, name="keys", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class AskedKeys:
    """The keys of whoever listens at `path`."""

    path: str

    def __call__(self, name: str) -> str | None:
        """The key of that name; `None`: it is not set.

        Raises:
            SpecError: nobody answers here: this is another machine, or another user's process.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(_SECONDS)
                asking.connect(self.path)
                with asking.makefile("rwb") as stream:
                    stream.write(f"{name}\n".encode())
                    stream.flush()
                    return stream.read().decode() or None
        except OSError as error:
            raise SpecError(f"the key {name} cannot be asked for: {error.strerror or error}") from error


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, keys: Keys) -> None:
        super().__init__(path, _Answer)
        self.keys_of_ours = keys


class _Answer(socketserver.StreamRequestHandler):
    timeout = _SECONDS

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        name = self.rfile.readline().decode().rstrip("\n")
        self.wfile.write((self.server.keys_of_ours(name) or "").encode())
