import asyncio
import base64
import json
import math
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.rehearsal.answers import CannedAnswers, answer_source, prompt_hash
from jobs.rehearsal.buckets import TokenBucket
from jobs.rehearsal.endpoint import RehearsedEndpoint
from jobs.rehearsal.http import HttpRequest, HttpResponse
from schemas.rehearse import AnswerTokensSpec, RehearsalEndpointSpec
from tests.virtual_time import run as run_in_virtual_time

CHAT = "/v1/chat/completions"


def chat(prompt: str = "Why is the sky blue?", **more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


def post(body: object, path: str = CHAT, **headers: str) -> HttpRequest:
    return HttpRequest("POST", path, headers, json.dumps(body).encode())


def endpoint(key: str | None = None, seed: int = 0, **fields: object) -> RehearsedEndpoint:
    """An endpoint on the running loop's clock."""
    spec = RehearsalEndpointSpec.model_validate({"model": "m", **fields})
    clock = asyncio.get_running_loop().time
    answers = answer_source(spec, seed, Path())
    return RehearsedEndpoint(spec, answers, clock=clock, random=Random(seed), key=key)


def content(response: HttpResponse) -> str:
    assert response.status == 200, response
    text = json.loads(response.body)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def error_of(response: HttpResponse) -> dict[str, Any]:
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# Answers


def test_an_answer_depends_on_the_prompt_and_not_on_the_order_of_arrival() -> None:
    """Two endpoints of one model, asked in opposite orders, answer every prompt with the same bytes."""

    async def main() -> None:
        prompts = [f"What is {n} times {n + 3}?" for n in range(20)]
        one, other = endpoint(), endpoint()
        forward = {p: (await one.respond(post(chat(p)))).body for p in prompts}
        backward = {p: (await other.respond(post(chat(p)))).body for p in reversed(prompts)}
        assert forward == backward
        assert len(set(forward.values())) == len(prompts)

    asyncio.run(main())


def test_another_seed_gives_other_answers() -> None:
    """The seed enters every canned answer."""
    tokens = AnswerTokensSpec(mean=80)
    prompts = [f"Explain rule {n}." for n in range(10)]
    answers = [[CannedAnswers(f"{seed}:m", tokens).choice(p, 0, None) for p in prompts] for seed in (0, 1)]
    assert answers[0] != answers[1]


def test_answer_lengths_have_the_mean_asked_for() -> None:
    """Ten thousand canned answers are 60 tokens long on average, and no longer than max_tokens allows."""
    canned = CannedAnswers("0:m", AnswerTokensSpec(mean=60, sigma=0.5))
    lengths = [canned.choice(f"prompt {n}", 0, None).tokens for n in range(10_000)]
    assert math.isclose(sum(lengths) / len(lengths), 60, rel_tol=0.03)
    short = [canned.choice(f"prompt {n}", 0, 30) for n in range(200)]
    assert all(a.tokens == len(a.content.split()) <= 30 for a in short)
    assert {a.finish_reason for a in short} == {"stop", "length"}


def test_usage_says_what_was_asked_and_answered() -> None:
    """Usage adds up, `n` gives that many different choices, and echo answers with the prompt."""

    async def main() -> None:
        answer = json.loads((await endpoint().respond(post(chat(n=3)))).body)
        texts = [choice["message"]["content"] for choice in answer["choices"]]
        usage = answer["usage"]
        assert usage["completion_tokens"] == sum(len(t.split()) for t in texts)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert len(set(texts)) == 3
        assert content(await endpoint(answers="echo").respond(post(chat("Zwölf Äpfel")))) == "Zwölf Äpfel"
        cut = json.loads((await endpoint(answers="echo").respond(post(chat("a" * 100, max_tokens=5)))).body)
        assert cut["choices"][0]["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] == 5

    asyncio.run(main())


def test_completions_and_embeddings_are_served_too() -> None:
    """Completions answer one choice per prompt; embeddings are unit vectors that depend on the input alone."""

    async def main() -> None:
        served = endpoint()
        completion = await served.respond(post({"model": "m", "prompt": ["one", "two"]}, "/v1/completions"))
        assert [c["index"] for c in json.loads(completion.body)["choices"]] == [0, 1]

        url = "/v1/embeddings"
        body = {"model": "m", "input": ["cat", "dog", "cat"], "dimensions": 8}
        cat, dog, again = (d["embedding"] for d in json.loads((await served.respond(post(body, url))).body)["data"])
        assert cat == again != dog
        assert math.isclose(math.hypot(*cat), 1.0)
        packed = await served.respond(post({**body, "encoding_format": "base64"}, url))
        unpacked = struct.unpack("<8f", base64.b64decode(json.loads(packed.body)["data"][0]["embedding"]))
        assert unpacked == pytest.approx(cat, rel=1e-6)

    asyncio.run(main())


def test_recorded_replies_are_found_by_prompt_or_hash(tmp_path: Path) -> None:
    """A reply file answers with what was recorded, and refuses a prompt it does not know with 422."""
    lines = [
        {"prompt": "What is 2 + 2?", "reply": "4, as ever."},
        {"prompt_hash": prompt_hash("hola"), "reply": "¡Hola!"},
    ]
    (tmp_path / "replies.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    spec = RehearsalEndpointSpec.model_validate({"model": "m", "answers": {"file": "replies.jsonl"}})

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        served = RehearsedEndpoint(spec, answer_source(spec, 0, tmp_path), clock=clock, random=Random(0))
        assert content(await served.respond(post(chat("What is 2 + 2?")))) == "4, as ever."
        assert content(await served.respond(post(chat("hola")))) == "¡Hola!"
        unknown = await served.respond(post(chat("adiós")))
        assert (unknown.status, error_of(unknown)["code"]) == (422, "no_reply")

    asyncio.run(main())


# Limits


@given(
    per_minute=st.floats(1, 6000),
    capacity=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=80),
)
def test_a_bucket_never_admits_more_than_its_limit(per_minute: float, capacity: int, gaps: list[float]) -> None:
    """In any window, at most the capacity plus the refill is taken, however the arrivals are spread."""
    clock = HandClock()
    bucket = TokenBucket(per_minute, capacity, clock)
    taken: list[float] = []
    for gap in gaps:
        clock.now += gap
        if bucket.wait(1) == 0.0:
            bucket.take(1)
            taken.append(clock.now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            window = taken[last] - taken[first]
            assert last - first + 1 <= capacity + per_minute * window / 60 + 1e-6


@given(per_minute=st.floats(0.5, 60_000), capacity=st.integers(1, 100), cost=st.integers(1, 100))
def test_a_request_that_waits_as_long_as_asked_is_admitted(per_minute: float, capacity: int, cost: int) -> None:
    """After exactly the wait, the tokens are there; for a cost beyond the capacity, the wait is infinite."""
    clock = HandClock()
    bucket = TokenBucket(per_minute, capacity, clock)
    bucket.take(capacity)
    wait = bucket.wait(cost)
    if cost > capacity:
        assert math.isinf(wait)
        return
    assert math.isclose(wait, cost * 60 / per_minute)
    clock.now += wait
    assert bucket.wait(cost) == 0.0


def test_beyond_the_limit_comes_429_with_an_exact_retry_after() -> None:
    """A burst of 5 at 60 rpm admits 5; the sixth request gets a `retry-after`, and is admitted after that time."""

    async def main() -> None:
        served = endpoint(limits={"rpm": 60, "burst": 5})
        answers = [await served.respond(post(chat(str(n)))) for n in range(6)]
        assert [a.status for a in answers] == [200] * 5 + [429]
        refusal = answers[5]
        assert error_of(refusal)["code"] == "rate_limit_exceeded"
        assert refusal.headers["x-ratelimit-limit-requests"] == "60"
        assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
        assert refusal.headers["x-ratelimit-reset-requests"] == "5000ms"
        retry_after = float(refusal.headers["retry-after"])
        await asyncio.sleep(retry_after - 0.01)
        assert (await served.respond(post(chat("5")))).status == 429
        await asyncio.sleep(0.01)
        assert (await served.respond(post(chat("5")))).status == 200
        assert served.counters.accepted == 6
        assert served.counters.throttled_by == {"rpm": 2, "tpm": 0, "max_in_flight": 0}

    run_in_virtual_time(main())


def test_unused_tokens_go_back_to_the_bucket() -> None:
    """max_tokens is taken on arrival, so a second request does not fit; after the short answer it does."""

    async def main() -> None:
        served = endpoint(
            limits={"tpm": 600, "burst_tokens": 200},
            latency={"median_seconds": 1},
            answer_tokens={"mean": 10, "sigma": 0},
        )
        first = asyncio.create_task(served.respond(post(chat("hi", max_tokens=150))))
        await asyncio.sleep(0.1)
        refused = await served.respond(post(chat("hi", max_tokens=150)))
        assert (refused.status, error_of(refused)["type"]) == (429, "tokens")
        assert (await first).status == 200
        assert (await served.respond(post(chat("hi", max_tokens=150)))).status == 200
        too_large = await served.respond(post(chat("hi", max_tokens=500)))
        assert (too_large.status, error_of(too_large)["code"]) == (413, "request_too_large")

    run_in_virtual_time(main())


def test_requests_in_flight_are_limited_and_counted() -> None:
    """With max_in_flight 2, a third request is refused; a cancelled one frees its place at once."""

    async def main() -> None:
        served = endpoint(limits={"max_in_flight": 2}, latency={"median_seconds": 5})
        under_way = [asyncio.create_task(served.respond(post(chat(str(n))))) for n in range(2)]
        await asyncio.sleep(1)
        assert (await served.respond(post(chat("x")))).status == 429
        under_way[0].cancel()
        await asyncio.wait(under_way[:1])
        assert served.counters.in_flight == 1
        assert (await served.respond(post(chat("x")))).status == 200
        assert served.counters.in_flight == 0
        assert served.counters.peak_in_flight == 2

    run_in_virtual_time(main())


# Latency and faults


def test_latency_grows_with_the_answer() -> None:
    """Without spread, an answer takes the median plus the time of its tokens."""

    async def main() -> None:
        latency = {"median_seconds": 0.5, "per_output_token_seconds": 0.01}
        served = endpoint(latency=latency, answer_tokens={"mean": 50, "sigma": 0})
        loop = asyncio.get_running_loop()
        started = loop.time()
        await served.respond(post(chat()))
        assert loop.time() - started == pytest.approx(1.0)

    run_in_virtual_time(main())


def test_faults_come_in_the_configured_shares() -> None:
    """Of 5,000 requests about a tenth fail in each of two ways, and the counters agree."""

    async def main() -> None:
        served = endpoint(faults={"error_500": 0.1, "bad_json": 0.1})
        answers = [await served.respond(post(chat(str(n)))) for n in range(5_000)]
        failed = sum(a.status == 500 for a in answers)
        broken = sum(a.status == 200 and not _is_json(a.body) for a in answers)
        assert served.counters.errors == {"error_500": failed, "drop": 0, "timeout": 0, "bad_json": broken}
        assert 400 < failed < 600
        assert 400 < broken < 600

    asyncio.run(main())


def test_a_rehearsed_timeout_holds_its_place_until_the_client_gives_up() -> None:
    """The answer never comes, and a client that gives up frees the place of its request."""

    async def main() -> None:
        served = endpoint(faults={"timeout": 1.0}, limits={"max_in_flight": 1})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await served.respond(post(chat()))
        assert served.counters.in_flight == 0
        assert served.counters.errors["timeout"] == 1

    run_in_virtual_time(main())


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


# Refusals


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (HttpRequest("POST", CHAT, {}, b"{"), 400, "invalid_body"),
        (HttpRequest("POST", CHAT, {}, b"[]"), 400, "invalid_body"),
        (post({"model": "m"}), 400, "invalid_body"),
        (post({"model": "m", "messages": ["hi"]}), 400, "invalid_body"),
        (post(chat(stream=True)), 400, "invalid_body"),
        (post(chat(max_tokens=0)), 400, "invalid_body"),
        (post({**chat(), "model": "gpt-9"}), 404, "model_not_found"),
        (post(chat(), "/v1/nothing"), 404, "unknown_path"),
        (HttpRequest("GET", CHAT, {}, b""), 405, "method_not_allowed"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(request_: HttpRequest, status: int, code: str) -> None:
    """Refusals have OpenAI's shape and a code, and use up no limit."""

    async def main() -> None:
        served = endpoint(limits={"rpm": 1})
        response = await served.respond(request_)
        assert (response.status, error_of(response)["code"]) == (status, code)
        assert (await served.respond(post(chat()))).status == 200

    asyncio.run(main())


def test_a_configured_key_is_required() -> None:
    """With a key, a request without it gets 401; with it, an answer."""

    async def main() -> None:
        served = endpoint(key="s3cret")
        refused = await served.respond(post(chat()))
        assert (refused.status, error_of(refused)["code"]) == (401, "invalid_api_key")
        assert (await served.respond(post(chat(), authorization="Bearer s3cret"))).status == 200
        assert served.counters.unauthorized == 1

    asyncio.run(main())


def test_responses_are_rehearsed_too() -> None:
    """`/v1/responses` counts instructions and input, and an answer that is cut at its limit is incomplete."""

    async def main() -> None:
        rehearsed = endpoint(answers="echo")
        asked = {"model": "m", "instructions": "Tag it.", "input": "Where is my parcel?"}
        whole = json.loads((await rehearsed.respond(post(asked, "/v1/responses"))).body)
        assert (whole["status"], whole["incomplete_details"]) == ("completed", None)
        assert whole["output"][0]["content"][0]["text"] == "Where is my parcel?"
        assert whole["usage"] == {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
        items = [{"role": "user", "content": [{"type": "input_text", "text": "Where is my parcel?"}]}]
        limited = {"model": "m", "input": items, "max_output_tokens": 1}
        cut = json.loads((await rehearsed.respond(post(limited, "/v1/responses"))).body)
        assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (await rehearsed.respond(post({"model": "m", "input": 5}, "/v1/responses"))).status == 400

    asyncio.run(main())


def test_each_token_id_counts_as_a_token() -> None:
    """A list of token ids is one prompt, and each id counts as a token, for completions and embeddings."""

    async def main() -> None:
        rehearsed = endpoint(answers="echo")
        ids = {"model": "m", "prompt": [[1, 15043, 3186], [5]]}
        answer = json.loads((await rehearsed.respond(post(ids, "/v1/completions"))).body)
        assert ([c["text"] for c in answer["choices"]], answer["usage"]["prompt_tokens"]) == (["1 15043 3186", "5"], 4)
        one = await rehearsed.respond(post({"model": "m", "input": [1, 2, 3]}, "/v1/embeddings"))
        assert len(json.loads(one.body)["data"]) == 1
        assert (await rehearsed.respond(post({"model": "m", "input": [[]]}, "/v1/embeddings"))).status == 400

    asyncio.run(main())
