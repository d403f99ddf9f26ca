"""One rehearsed endpoint: its limits, latency, faults and counters."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Literal

import orjson

from batch.clock import Clock
from jobs.rehearsal.answers import AnswerSource, NoReplyError, embed, prompt_hash
from jobs.rehearsal.buckets import TokenBucket
from jobs.rehearsal.http import HttpRequest, HttpResponse, error_response
from jobs.rehearsal.requests import (
    BadBodyError,
    Choice,
    ModelRequest,
    completion_body,
    embeddings_body,
    read_body,
    response_body,
)
from schemas.openai_batch import BATCH_URLS, EMBEDDINGS_URL, RESPONSES_URL
from schemas.rehearse import RehearsalEndpointSpec

Fault = Literal["error_500", "drop", "timeout", "bad_json"]
# The shortest pause that a refusal for too many requests in flight asks for; a shorter one only adds requests.
BUSY_RETRY_SECONDS = 0.05


@dataclass(slots=True)
class Counters:
    """What an endpoint has counted. Every POST to a served path is in exactly one of the first four counters.

    `errors` counts, by kind, the faults among the accepted requests.
    """

    accepted: int = 0
    throttled: int = 0
    refused: int = 0
    unauthorized: int = 0
    throttled_by: dict[str, int] = field(default_factory=lambda: {"rpm": 0, "tpm": 0, "max_in_flight": 0})
    errors: dict[str, int] = field(default_factory=lambda: {"error_500": 0, "drop": 0, "timeout": 0, "bad_json": 0})
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0


class RehearsedEndpoint:
    """Answers requests for one model as its spec says.

    Latencies and faults are drawn from `random`, in the order in which requests arrive; answers depend on the prompt
    alone. If `key` is given, requests must carry it as their bearer token.
    """

    def __init__(
        self,
        spec: RehearsalEndpointSpec,
        answers: AnswerSource,
        *,
        clock: Clock,
        random: Random,
        key: str | None = None,
    ) -> None:
        self.spec = spec
        self.counters = Counters()
        self._answers = answers
        self._random = random
        self._key = key
        limits = spec.limits
        self._requests = _bucket(limits.rpm, limits.burst or math.ceil((limits.rpm or 0) / 60), clock)
        self._tokens = _bucket(limits.tpm, limits.burst_tokens or limits.tpm or 0, clock)

    def stats(self) -> dict[str, Any]:
        """The model and its counters, ready for JSON."""
        return {"model": self.spec.model, **asdict(self.counters)}

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The response to any request, after the latency that the spec asks for. A rehearsed timeout never returns."""
        match request.method, request.path:
            case "GET", "/health":
                return HttpResponse(200, b'{"status":"ok"}')
            case "GET", "/v1/models":
                model = {"id": self.spec.model, "object": "model", "created": 0, "owned_by": "rehearsal"}
                return HttpResponse(200, orjson.dumps({"object": "list", "data": [model]}))
            case "POST", url if url in BATCH_URLS:
                return await self._admit(url, request)
            case _, url if url in (*BATCH_URLS, "/health", "/v1/models"):
                return error_response(405, f"{request.method} is not for {url}", code="method_not_allowed")
        return error_response(404, f"no such path: {request.path}", code="unknown_path")

    async def _admit(self, url: str, post: HttpRequest) -> HttpResponse:
        if self._key is not None and post.headers.get("authorization") != f"Bearer {self._key}":
            self.counters.unauthorized += 1
            return error_response(401, "the key is missing or wrong", code="invalid_api_key")
        try:
            request = read_body(url, post.body)
            if request.model != self.spec.model:
                self.counters.refused += 1
                message = f"this endpoint serves {self.spec.model!r} only"
                return error_response(404, message, code="model_not_found")
            choices = self._choices(request)
        except BadBodyError as error:
            self.counters.refused += 1
            return error_response(400, str(error), code="invalid_body")
        except NoReplyError as error:
            self.counters.refused += 1
            return error_response(422, str(error), code="no_reply")
        used = request.prompt_tokens + sum(choice.tokens for choice in choices)
        reserved = max(used, request.tokens_reserved or 0)
        return self._refusal(reserved) or await self._serve(request, choices, reserved, used)

    def _choices(self, request: ModelRequest) -> list[Choice]:
        if request.url == EMBEDDINGS_URL:
            return []
        return [
            self._answers.choice(prompt, index, request.max_tokens)
            for prompt in request.prompts
            for index in range(request.choices)
        ]

    def _refusal(self, tokens: int) -> HttpResponse | None:
        """The refusal of a request of so many tokens that exceeds a limit; `None` if it may start now."""
        by_requests = self._requests.wait(1) if self._requests else 0.0
        by_tokens = self._tokens.wait(tokens) if self._tokens else 0.0
        if math.isinf(by_tokens):
            self.counters.refused += 1
            message = f"{tokens} tokens in one request are more than this endpoint ever allows"
            return error_response(413, message, code="request_too_large", kind="tokens")
        limit = self.spec.limits.max_in_flight
        if by_requests > 0 or by_tokens > 0:
            which, kind = ("rpm", "requests") if by_requests >= by_tokens else ("tpm", "tokens")
            wait = max(by_requests, by_tokens)
        elif limit is not None and self.counters.in_flight >= limit:
            which, kind = "max_in_flight", "requests"
            wait = max(BUSY_RETRY_SECONDS, self.spec.latency.median_seconds)
        else:
            return None
        self.counters.throttled += 1
        self.counters.throttled_by[which] += 1
        # Rounded up, so that a client which comes back exactly then is let in.
        headers = {"retry-after": f"{math.ceil(wait * 1000) / 1000:.3f}", **self._limit_headers()}
        message = f"rate limit reached for {self.spec.model} on {which}; try again in {wait:.3f}s"
        return error_response(429, message, code="rate_limit_exceeded", kind=kind, headers=headers)

    async def _serve(self, request: ModelRequest, choices: list[Choice], reserved: int, used: int) -> HttpResponse:
        counters = self.counters
        counters.accepted += 1
        counters.in_flight += 1
        counters.peak_in_flight = max(counters.peak_in_flight, counters.in_flight)
        if self._requests:
            self._requests.take(1)
        if self._tokens:
            self._tokens.take(reserved)
        try:
            fault = self._draw_fault()
            seconds = self._draw_latency(used - request.prompt_tokens)
            if fault == "timeout":
                await asyncio.get_running_loop().create_future()
            if seconds > 0:
                await asyncio.sleep(seconds)
            if fault == "error_500":
                used = 0
                return error_response(500, "rehearsed failure", code="internal_error", kind="server_error")
            counters.prompt_tokens += request.prompt_tokens
            counters.completion_tokens += used - request.prompt_tokens
            body = self._body(request, choices)
            cut_body = body[: len(body) // 2] if fault == "bad_json" else body
            return HttpResponse(200, cut_body, self._limit_headers(), cut=fault == "drop")
        finally:
            counters.in_flight -= 1
            if self._tokens:
                self._tokens.give_back(reserved - used)

    def _draw_fault(self) -> Fault | None:
        faults = self.spec.faults
        drawn = self._random.random()
        shares: tuple[tuple[Fault, float], ...] = (
            ("error_500", faults.error_500),
            ("drop", faults.drop),
            ("timeout", faults.timeout),
            ("bad_json", faults.bad_json),
        )
        for fault, share in shares:
            if drawn < share:
                self.counters.errors[fault] += 1
                return fault
            drawn -= share
        return None

    def _draw_latency(self, tokens: int) -> float:
        latency = self.spec.latency
        median = latency.median_seconds + latency.per_output_token_seconds * tokens
        return median * self._random.lognormvariate(0, latency.sigma) if latency.sigma else median

    def _body(self, request: ModelRequest, choices: list[Choice]) -> bytes:
        if request.url == EMBEDDINGS_URL:
            return embeddings_body(request, [embed(p, request.dimensions) for p in request.prompts])
        if request.url == RESPONSES_URL:
            return response_body(request, prompt_hash(request.prompts[0]), choices[0])
        return completion_body(request, prompt_hash("\n".join(request.prompts)), choices)

    def _limit_headers(self) -> dict[str, str]:
        headers = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                headers[f"x-ratelimit-limit-{name}"] = f"{bucket.per_minute:.0f}"
                headers[f"x-ratelimit-remaining-{name}"] = f"{max(0, math.floor(bucket.level()))}"
                headers[f"x-ratelimit-reset-{name}"] = f"{math.ceil(bucket.seconds_to_full() * 1000)}ms"
        return headers


def _bucket(per_minute: float | None, capacity: float, now: Callable[[], float]) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute, capacity, now)
