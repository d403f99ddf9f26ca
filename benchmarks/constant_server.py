"""nginx with one constant answer, so that the server takes almost no CPU time from what is measured."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ANSWER = (
    '{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1735689600,"model":"constant",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"The answer is forty-two, as it has been since the '
    'question was first asked, and it will stay forty-two for as long as this server runs."},"logprobs":null,'
    '"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":31,"total_tokens":55,'
    '"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},'
    '"system_fingerprint":"fp_constant"}'
)

CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        {listen}
        location / {{ default_type application/json; return 200 '{answer}'; }}
    }}
}}
"""


def free_port() -> int:
    """A port of the loopback address that no process listens on; another process may still take it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextlib.contextmanager
def constant_server(ports: int = 1) -> Iterator[list[str]]:
    """Start nginx and yield its base URLs, one per port; end it with the block.

    Raises:
        SystemExit: this machine has no nginx, or nginx did not start.
    """
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        raise SystemExit("this benchmark needs nginx")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [free_port() for _ in range(ports)]
        listen = " ".join(f"listen 127.0.0.1:{port};" for port in chosen)
        config = Path(folder) / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, listen=listen, answer=ANSWER))
        process = subprocess.Popen([nginx, "-c", str(config), "-p", folder, "-e", f"{folder}/start.log"])
        try:
            _wait(chosen, process)
            yield [f"http://127.0.0.1:{port}/v1" for port in chosen]
        finally:
            process.terminate()
            process.wait(10)


def _wait(ports: list[int], process: "subprocess.Popen[bytes]") -> None:
    for port in ports:
        for _ in range(200):
            if process.poll() is not None:
                raise SystemExit("nginx did not start")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
