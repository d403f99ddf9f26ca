"""An OpenAI-compatible server that answers every request with success and records it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class RecordingServer:
    """Listens on a free port of the loopback address from entering the block to its end."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, dict[str, Any]]] = []
        """Path and body of each request, in the order of arrival."""
        recorded = self.recorded

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                recorded.append((self.path, body))
                self._answer(answer_to(self.path, body))

            def do_GET(self) -> None:
                self._answer({"object": "list", "data": [{"id": "small", "object": "model"}]})

            def _answer(self, answer: dict[str, Any]) -> None:
                raw = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that http.server gives
                """Print nothing: the benchmark prints only its table."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer_to(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A successful answer in the format of the path's API."""
    if path.endswith("/embeddings"):
        given = body["input"]
        many = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        data = [
            {"object": "embedding", "index": i, "embedding": [0.5] * body.get("dimensions", 2)}
            for i in range(len(many))
        ]
        return {"object": "list", "model": "small", "data": data, "usage": {"prompt_tokens": 10, "total_tokens": 10}}
    if path.endswith("/responses"):
        text = {"type": "output_text", "text": "ok", "annotations": []}
        message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return {"id": "r", "object": "response", "status": "completed", "output": [message], "usage": usage}
    if path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "model": "small", "choices": [choice], "usage": _USAGE}
    choice = {"index": 0, "text": "ok", "finish_reason": "stop"}
    return {"id": "c", "object": "text_completion", "model": "small", "choices": [choice], "usage": _USAGE}
