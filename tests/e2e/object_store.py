"""An S3 server in a process of its own, that refuses a request or sends a signal when it is told to.

`python -m tests.e2e.object_store` serves until it is ended, and prints its port first.
"""

import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow.fs

ROOT = Path(__file__).parents[2]
ORDERS = "/-/orders"
BUCKET = "bucket"
SECRET = "hunter2"

# So long is a request held up after a signal: whoever got it has noticed by then.
NOTICED_SECONDS = 0.1

REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True)
class ObjectStore:
    """A running server and its one bucket. Requests that change something are counted from 1, after each order anew."""

    url: str

    def refuse(self, at: int) -> None:
        """Answer that request with 403."""
        self._order({"at": at, "signal": None})

    def signal(self, at: int, number: int, process: int) -> None:
        """Send a signal to a process, or with a negative number to its group, when that request comes."""
        self._order({"at": at, "signal": number, "process": process})

    def obey(self) -> int:
        """Take no orders any more, once all that came is carried out. Returns how many requests there were since."""
        return self._order({"at": 0, "signal": None})

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """Every object below a folder, by its name in there; empty ones that stand for folders are left out."""
        store, base = pyarrow.fs.FileSystem.from_uri(f"s3://{BUCKET}/{folder}")
        selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
        found = [info for info in store.get_file_info(selector) if info.type == pyarrow.fs.FileType.File]
        objects = {}
        for info in found:
            with store.open_input_stream(info.path, compression=None) as file:
                objects[info.path.removeprefix(f"{base}/")] = file.read()
        return objects

    def _order(self, order: Mapping[str, Any]) -> int:
        request = urllib.request.Request(f"{self.url}{ORDERS}", json.dumps(order).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.read())


@contextmanager
def object_store() -> Iterator[tuple[ObjectStore, dict[str, str]]]:
    """A running server, and the environment that leads to it."""
    command = [sys.executable, "-m", "tests.e2e.object_store"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            bucket = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
            urllib.request.urlopen(bucket, timeout=10).close()
            yield (
                ObjectStore(url),
                {
                    "AWS_ENDPOINT_URL": url,
                    "AWS_ACCESS_KEY_ID": "tester",
                    "AWS_SECRET_ACCESS_KEY": SECRET,
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "AWS_CONFIG_FILE": os.devnull,
                },
            )
        finally:
            process.kill()


def obedient(app: App) -> App:
    """The same server, that does what the last order says."""
    order: dict[str, Any] = {"at": 0}
    seen = busy = 0
    counting = Lock()

    def serve(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        nonlocal order, seen
        if environ["PATH_INFO"] == ORDERS:
            # A process that was killed leaves requests behind.
            while busy:
                time.sleep(NOTICED_SECONDS / 10)
            before, seen = seen, 0
            order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            start("200 OK", [])
            return [b"%d" % before]
        if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            with counting:
                seen += 1
                due = seen == order["at"]
            if due and order["signal"] is None:
                start("403 Forbidden", [("content-type", "application/xml"), ("content-length", str(len(REFUSAL)))])
                return [REFUSAL]
            if due:
                os.kill(order["process"], order["signal"])
                time.sleep(NOTICED_SECONDS)
        return app(environ, start)

    def counted(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        nonlocal busy
        if environ["PATH_INFO"] == ORDERS:
            return serve(environ, start)
        with counting:
            busy += 1
        try:
            return serve(environ, start)
        finally:
            with counting:
                busy -= 1

    return counted


def main() -> None:
    """Serve until the process ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, obedient(DomainDispatcherApplication(create_backend_app)), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
