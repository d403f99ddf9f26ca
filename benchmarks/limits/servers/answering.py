"""An OpenAI-compatible server on aiohttp. Its only argument is its `Behaviour`, as JSON.

When a request ends, the server writes a line for it into its log.
"""

import asyncio
import sys
import time
from contextlib import nullcontext
from random import Random
from typing import Any, TextIO

import uvloop
from aiohttp import web

from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.rows import answer_tokens, prompt_tokens, row_of
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.charging import RequestTokens, build_charging, retry_after_header


class AnsweringServer:
    """Answers requests, and keeps the state of the server's limit, slots and failures."""

    def __init__(self, behaviour: Behaviour, log: TextIO) -> None:
        self._behaviour = behaviour
        self._log = log
        self._charging = build_charging(behaviour.limit)
        self._slots = asyncio.Semaphore(behaviour.slots) if behaviour.slots else nullcontext()
        self._random = Random(behaviour.seed)
        self._first_arrival: float | None = None
        self._requests = 0

    async def answer(self, request: web.Request) -> web.Response:
        """A chat completion, or the refusal or failure that the behaviour demands."""
        arrived = time.time()
        self._first_arrival = self._first_arrival or arrived
        self._requests += 1
        if self._is_down(arrived):
            return self._answer_while_down(request, arrived)
        asked = await request.json()
        if not asked["messages"]:
            # Curator sends such a request to read the headers of the answer.
            self._write_log(arrived, 400, -1, 0)
            return _error(400, "invalid_request_error")
        text = str(asked["messages"][-1]["content"])
        row = row_of(text)
        max_tokens = int(asked["max_tokens"])
        tokens = RequestTokens(prompt_tokens(text), max_tokens, answer_tokens(row, max_tokens))
        if not self._charging.admit(tokens):
            return self._refuse(arrived, row, self._charging.reset_seconds())
        once = self._behaviour.refuse_once
        if once is not None and self._requests == once.request:
            return self._refuse(arrived, row, once.retry_after)
        fault = self._random.random() < self._behaviour.fault_share
        async with self._slots:
            await asyncio.sleep(self._behaviour.seconds + tokens.answer * self._behaviour.token_seconds)
        if self._is_down(time.time()):
            return self._answer_while_down(request, arrived)
        charged = self._charging.settle(tokens)
        if fault:
            self._write_log(arrived, 500, row, charged)
            return _error(500, "server_error")
        self._write_log(arrived, 200, row, charged)
        return web.json_response(_completion(tokens))

    def _is_down(self, now: float) -> bool:
        outage = self._behaviour.outage
        return (
            outage is not None
            and self._first_arrival is not None
            and outage.start <= now - self._first_arrival < outage.end
        )

    def _answer_while_down(self, request: web.Request, arrived: float) -> web.Response:
        assert self._behaviour.outage is not None
        if self._behaviour.outage.mode == "503":
            self._write_log(arrived, 503, -1, 0)
            return _error(503, "unavailable")
        self._write_log(arrived, 0, -1, 0)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _refuse(self, arrived: float, row: int, wait: float) -> web.Response:
        self._write_log(arrived, 429, row, 0)
        return _error(429, "rate_limit_exceeded", {"retry-after": retry_after_header(wait)})

    def _write_log(self, arrived: float, status: int, row: int, charged: int) -> None:
        self._log.write(LoggedRequest(arrived, time.time(), self._behaviour.number, status, row, charged).line())


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": code, "type": code, "param": None, "code": code}}
    return web.json_response(error, status=status, headers=headers)


def _completion(tokens: RequestTokens) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "as asked"}, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.answer,
        "total_tokens": tokens.prompt + tokens.answer,
    }
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


async def main(behaviour: Behaviour) -> None:
    """Serve until the process ends."""
    # Line buffering, so that a reader finds whole lines while the server runs.
    with open(behaviour.log, "a", buffering=1) as log:  # noqa: ASYNC230, PTH123  before anything is served
        app = web.Application()
        app.router.add_post("/v1/chat/completions", AnsweringServer(behaviour, log).answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", behaviour.port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Behaviour.model_validate_json(sys.argv[1])))
