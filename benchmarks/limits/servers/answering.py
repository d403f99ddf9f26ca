"""An OpenAI-compatible server on aiohttp that behaves as it is told: its Behaviour as JSON is the one argument.

It writes a line of its log for each request when that has ended.
"""

import asyncio
import sys
import time
from contextlib import nullcontext
from random import Random
from typing import Any, TextIO

import uvloop
from aiohttp import web

from benchmarks.limits.figures import Seen
from benchmarks.limits.rows import answer_tokens, prompt_tokens, row_of
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.charging import Tokens, build_charging, retry_after


class Answering:
    """One server's state."""

    def __init__(self, behaviour: Behaviour, log: TextIO) -> None:
        self._behaviour = behaviour
        self._log = log
        self._charging = build_charging(behaviour.limit)
        self._slots = asyncio.Semaphore(behaviour.slots) if behaviour.slots else nullcontext()
        self._random = Random(behaviour.seed)
        self._first: float | None = None
        self._requests = 0

    async def answer(self, request: web.Request) -> web.Response:
        """One chat completion, or what was ordered instead."""
        arrived = time.time()
        self._first = self._first or arrived
        self._requests += 1
        if self._is_dead(arrived):
            return self._dead(request, arrived)
        asked = await request.json()
        if not asked["messages"]:
            # Curator asks so for the headers of an answer.
            self._note(arrived, 400, -1, 0)
            return _error(400, "invalid_request_error")
        text = str(asked["messages"][-1]["content"])
        row = row_of(text)
        most = int(asked["max_tokens"])
        tokens = Tokens(prompt_tokens(text), most, answer_tokens(row, most))
        if not self._charging.admit(tokens):
            return self._refuse(arrived, row, self._charging.reset_seconds())
        once = self._behaviour.refuse_once
        if once is not None and self._requests == once.request:
            return self._refuse(arrived, row, once.retry_after)
        fault = self._random.random() < self._behaviour.fault_share
        async with self._slots:
            await asyncio.sleep(self._behaviour.seconds + tokens.answer * self._behaviour.token_seconds)
        if self._is_dead(time.time()):
            return self._dead(request, arrived)
        charged = self._charging.end(tokens)
        if fault:
            self._note(arrived, 500, row, charged)
            return _error(500, "server_error")
        self._note(arrived, 200, row, charged)
        return web.json_response(_completion(tokens))

    def _is_dead(self, now: float) -> bool:
        death = self._behaviour.death
        return death is not None and self._first is not None and death.first <= now - self._first < death.last

    def _dead(self, request: web.Request, arrived: float) -> web.Response:
        assert self._behaviour.death is not None
        if self._behaviour.death.how == "503":
            self._note(arrived, 503, -1, 0)
            return _error(503, "unavailable")
        self._note(arrived, 0, -1, 0)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _refuse(self, arrived: float, row: int, wait: float) -> web.Response:
        self._note(arrived, 429, row, 0)
        return _error(429, "rate_limit_exceeded", {"retry-after": retry_after(wait)})

    def _note(self, arrived: float, status: int, row: int, charged: int) -> None:
        self._log.write(Seen(arrived, time.time(), self._behaviour.number, status, row, charged).line())


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": code, "type": code, "param": None, "code": code}}
    return web.json_response(error, status=status, headers=headers)


def _completion(tokens: Tokens) -> dict[str, Any]:
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
    # Line by line, so that what is read while it runs is whole.
    with open(behaviour.log, "a", buffering=1) as log:  # noqa: ASYNC230, PTH123  before anything is served
        app = web.Application()
        app.router.add_post("/v1/chat/completions", Answering(behaviour, log).answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", behaviour.port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Behaviour.model_validate_json(sys.argv[1])))
