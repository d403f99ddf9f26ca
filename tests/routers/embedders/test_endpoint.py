"""Prompts embedded by endpoints: servers of the rehearsal, over real HTTP."""

import asyncio
import gc
import struct
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from batch.environment import NO_ENVIRONMENT, Environment
from batch.errors import EmbedderError, SpecError, StorageError
from batch.routers.embedders.endpoint import EndpointEmbedder
from batch.routers.embedders.vector_cache import FILE, VectorCache, key_of
from batch.routers.registry import build_router
from jobs.rehearsal.answers import embed
from schemas.embedders import EndpointEmbedderSpec
from schemas.job import DispatchSpec
from schemas.routers import CorrectnessRouterSpec
from tests.dispatch.transports.raw_server import http, raw_server, says
from tests.rehearsed import Served, serve
from tests.routers.conftest import PAIR
from tests.routers.embedders.endpoint_checkpoint import DIMENSION, MODEL, write_checkpoint

TEXTS = [f"text {i}" for i in range(70)]

Spec = Callable[..., EndpointEmbedderSpec]


@pytest.fixture
def served() -> Iterator[Served]:
    with serve({"model": MODEL, "api_key_env": "SECRET"}, {"model": MODEL}, environ={"SECRET": "s3cret"}) as served:
        yield served


@pytest.fixture
def spec(served: Served) -> Spec:
    def build(**changes: Any) -> EndpointEmbedderSpec:
        values = {"kind": "endpoint", "model": MODEL, "url": served.urls[1], "dimensions": DIMENSION}
        return EndpointEmbedderSpec.model_validate(values | changes)

    return build


def embedder(spec: EndpointEmbedderSpec, environment: Environment = NO_ENVIRONMENT, **options: Any) -> EndpointEmbedder:
    return EndpointEmbedder(spec, **({"dimension": DIMENSION, "max_tokens": 100} | options), environment=environment)


def vectors(texts: list[str], dimension: int = DIMENSION) -> NDArray[np.float32]:
    return np.array([embed(text, dimension) for text in texts], dtype=np.float32)


def inputs(served: Served) -> list[str]:
    """Every text that the endpoints received."""
    sent: list[str] = []
    for post in served.posts:
        sent += [post["input"]] if isinstance(post["input"], str) else post["input"]
    return sent


def test_vectors_come_in_order_and_equal_texts_are_sent_once(served: Served, spec: Spec) -> None:
    """Each text gets its own vector, whatever was packed with it, and a repeated text is sent once."""
    asked = [*TEXTS, TEXTS[3], *TEXTS[::-1]]
    got = embedder(spec()).embed(asked)
    np.testing.assert_array_equal(got, vectors(asked))
    assert got.dtype == np.float32
    assert sorted(inputs(served)) == sorted(TEXTS)


def test_no_texts_send_no_request(served: Served, spec: Spec) -> None:
    """No texts give an array without rows, of the right width, and no request is sent."""
    assert embedder(spec()).embed([]).shape == (0, DIMENSION)
    assert served.posts == []


def test_a_pool_shares_the_work(served: Served) -> None:
    """`endpoints` embeds all texts with a key looked up by name, and no request exceeds `max_inputs`."""
    pool = [{"url": url, "limits": {"max_inputs": 4}} for url in served.urls]
    several = EndpointEmbedderSpec.model_validate(
        {
            "kind": "endpoint",
            "model": MODEL,
            "dimensions": DIMENSION,
            "endpoints": [{**pool[0], "api_key_env": "SECRET"}, pool[1]],
        }
    )
    environment = Environment(keys={"SECRET": "s3cret"}.get, wall=lambda: 0.0)
    np.testing.assert_array_equal(embedder(several, environment).embed(TEXTS), vectors(TEXTS))
    assert max(len(post["input"]) for post in served.posts) == 4


def test_what_is_cached_is_not_asked_for_again(served: Served, spec: Spec, tmp_path: Path) -> None:
    """A cached text is not sent again for the same model and dimensions; the file is private and holds no text."""
    cached = spec(cache=str(tmp_path / "cache"))
    embedder(cached).embed(TEXTS[:5])
    served.forget()
    np.testing.assert_array_equal(embedder(cached).embed(TEXTS[:7]), vectors(TEXTS[:7]))
    assert sorted(inputs(served)) == TEXTS[5:7]
    served.forget()
    other = spec(cache=str(tmp_path / "cache"), dimensions=4)
    np.testing.assert_array_equal(embedder(other, dimension=4).embed(TEXTS[:1]), vectors(TEXTS[:1], 4))
    assert inputs(served) == TEXTS[:1]
    file = tmp_path / "cache" / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert b"text 1" not in file.read_bytes()


def test_long_prompts_are_cut(served: Served, spec: Spec) -> None:
    """A prompt is cut at two bytes a token, never within a character; a blank prompt is sent as a space."""
    texts = ["abcdefgh", "ääää", ""]
    embedder(spec(max_tokens=3)).embed([*texts, "abcdefzz"])
    assert sorted(inputs(served)) == [" ", "abcdef", "äää"]
    served.forget()
    embedder(spec(), max_tokens=1).embed(texts[:1])
    assert inputs(served) == ["ab"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dimensions": 3}, r"^router\.embedder: vec gives vectors of 3; .* trained on vectors of 8$"),
        ({"api_key_env": "ABSENT"}, r"the environment variable ABSENT is not set$"),
        (
            {"model": "other"},
            r"^router\.embedder: .*HTTP 404 for /v1/embeddings: model_not_found: this endpoint serves",
        ),
    ],
)
def test_faults_of_the_job_are_refused(changes: dict[str, Any], said: str, spec: Spec) -> None:
    """Vectors of another size, a missing key and an unknown model raise SpecError, so the run is not retried."""
    with pytest.raises(SpecError, match=said):
        embedder(spec(**changes)).embed(TEXTS[:3])


def test_a_refused_key_names_no_key(served: Served, spec: Spec) -> None:
    """The message does not contain the key's value."""
    environment = Environment(keys={"SECRET": "wr0ng"}.get, wall=lambda: 0.0)
    with pytest.raises(SpecError, match=r"HTTP 401") as caught:
        embedder(spec(url=served.urls[0], api_key_env="SECRET"), environment).embed(["a"])
    assert "wr0ng" not in str(caught.value)


def test_unreachable_endpoints_stop_the_run_for_now(spec: Spec) -> None:
    """If no endpoint has answered within the time allowed, the error says that the same command may be rerun."""
    silent = embedder(spec(url="http://127.0.0.1:9/v1"), dispatch=DispatchSpec(timeout_seconds=0.1))
    for _ in range(2):
        with pytest.raises(EmbedderError, match=r"no endpoint has answered .*; rerun the same command to resume$"):
            silent.embed(["a"])


def test_answered_texts_are_kept_when_others_fail(tmp_path: Path) -> None:
    """A call that fails returns nothing, but the vectors it received are in the cache and are not paid for again."""
    with serve({"model": MODEL, "faults": {"error_500": 0.5}}) as served:
        flaky = EndpointEmbedderSpec.model_validate(
            {
                "kind": "endpoint",
                "model": MODEL,
                "url": served.urls[0],
                "dimensions": DIMENSION,
                "cache": str(tmp_path),
                "limits": {"max_inputs": 1},
            }
        )
        with pytest.raises(EmbedderError, match=r"^router\.embedder: HTTP 500.*; rerun the same command to resume$"):
            embedder(flaky, dispatch=DispatchSpec(max_attempts=1)).embed(TEXTS[:20])
        cache = VectorCache(tmp_path)
        kept = {text for text in TEXTS[:20] if cache.get([key_of(MODEL, DIMENSION, text)])}
        assert 0 < len(kept) < 20
        served.forget()
        got = embedder(flaky, dispatch=DispatchSpec(max_attempts=50)).embed(TEXTS[:20])
    np.testing.assert_array_equal(got, vectors(TEXTS[:20]))
    assert set(inputs(served)) == set(TEXTS[:20]) - kept


def test_answered_texts_are_kept_while_a_call_goes_on(tmp_path: Path) -> None:
    """Vectors are cached as they arrive, so a process killed within a long call loses only those in flight."""

    async def kept_meanwhile() -> int:
        answered = 0
        looked = asyncio.Event()

        async def three_answers(request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal answered
            if answered == 3:
                await looked.wait()
                writer.write(http(401, b"{}", "connection: close"))
                await writer.drain()
                return
            answered += 1
            vector = [0.5] * DIMENSION
            writer.write(http(200, orjson.dumps({"data": [{"index": 0, "embedding": vector}]}), "connection: close"))
            await writer.drain()

        async with raw_server(three_answers) as server:
            limits = {"max_inputs": 1, "max_in_flight": 1}
            spec = EndpointEmbedderSpec.model_validate(
                {"kind": "endpoint", "model": MODEL, "url": server.url, "cache": str(tmp_path), "limits": limits}
            )
            asking = embedder(spec, dispatch=DispatchSpec(max_attempts=1))
            call = asyncio.ensure_future(asyncio.to_thread(asking.embed, TEXTS[:20]))
            cache = VectorCache(tmp_path)
            kept = 0
            while kept < 3 and not call.done():
                await asyncio.sleep(0.05)
                kept = sum(bool(cache.get([key_of(MODEL, None, text)])) for text in TEXTS[:20])
            assert not call.done(), "the call has ended, so nothing was kept before its end"
            looked.set()
            with pytest.raises(SpecError, match="HTTP 401"):
                await call
            return kept

    assert asyncio.run(kept_meanwhile()) == 3


def said_by_a_server(status: int, body: object) -> NDArray[np.float32]:
    """The vectors that an embedder reads from this answer to one text."""

    async def asked() -> NDArray[np.float32]:
        async with raw_server(says(http(status, orjson.dumps(body)))) as server:
            spec = EndpointEmbedderSpec(kind="endpoint", model=MODEL, url=server.url)
            return await asyncio.to_thread(embedder(spec, dimension=2).embed, ["a prompt"])

    return asyncio.run(asked())


def test_a_refused_prompt_is_not_shown() -> None:
    """The message says what can be done, but does not quote the prompt."""
    with pytest.raises(
        SpecError, match=r"a prompt is refused: HTTP 400: \[\.\.\.\] is too long; router\.embedder\.max_tokens cuts"
    ) as caught:
        said_by_a_server(400, {"error": {"message": "a prompt is too long"}})
    assert "a prompt is too" not in str(caught.value)


def test_vectors_in_base64_are_read() -> None:
    """Some servers send the vector as little-endian float32 in base64."""
    numbers = b64encode(struct.pack("<2f", 0.5, -3.0)).decode()
    np.testing.assert_array_equal(said_by_a_server(200, {"data": [{"index": 0, "embedding": numbers}]}), [[0.5, -3.0]])


@pytest.mark.parametrize("data", [[{}], [1], [{}, {}]])
def test_an_answer_without_an_embedding_may_come_right_later(data: object) -> None:
    """Such an answer may be a passing fault, so the error says that the same command may be rerun."""
    with pytest.raises(
        EmbedderError, match=r"an item of the answer has no embedding; rerun the same command to resume$"
    ):
        said_by_a_server(200, {"data": data})


@pytest.mark.parametrize("data", [[{"embedding": "?"}], [{"embedding": ["x", 1]}], [{"embedding": [None, 1]}]])
def test_an_answer_without_numbers_is_refused(data: object) -> None:
    """An embedding that holds anything but numbers raises SpecError and becomes no score."""
    with pytest.raises(SpecError, match=r"vec gives no numbers; the checkpoint was trained on vectors of 2$"):
        said_by_a_server(200, {"data": data})


def test_the_thread_ends_with_its_embedder(spec: Spec) -> None:
    """An embedder that is garbage-collected leaves no thread behind."""
    before = threading.active_count()
    one = embedder(spec())
    one.embed(["a"])
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "embedder" and thread.is_alive()][-1:]
    del one
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert threading.active_count() <= before + 1


def test_a_damaged_cache_is_refused_in_one_line(tmp_path: Path) -> None:
    """A file that is no database stops the run, and the message says that it may be deleted."""
    (tmp_path / FILE).write_bytes(b"nonsense" * 1000)
    with pytest.raises(StorageError, match=r"^cannot use .*embeddings\.sqlite: .*; it may be deleted$"):
        VectorCache(tmp_path)


def test_several_may_write_one_cache(tmp_path: Path) -> None:
    """Concurrent writers wait for each other and lose nothing."""

    def write(number: int) -> None:
        cache = VectorCache(tmp_path)
        for i in range(10):
            cache.put({b"%d/%d" % (number, i): np.full(4, number, dtype=np.float32)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [b"%d/%d" % (number, i) for number in range(4) for i in range(10)]
    assert VectorCache(tmp_path).get(keys).keys() == set(keys)


def test_a_checkpoint_scores_with_its_endpoint(spec: Spec, tmp_path: Path) -> None:
    """Each score is the sigmoid of the head applied to the vector that the endpoint gave."""
    router = build_router(CorrectnessRouterSpec(checkpoint=write_checkpoint(tmp_path), embedder=spec()), PAIR, seed=0)
    expected = 1 / (1 + np.exp(-vectors(TEXTS)[:, :2]))
    np.testing.assert_allclose(router.score(TEXTS), expected, rtol=1e-6)


def test_encoders_must_be_those_of_the_checkpoint(spec: Spec, tmp_path: Path) -> None:
    """A local encoder, another kind of checkpoint and another model are refused."""
    theirs = write_checkpoint(tmp_path)
    for router, said in (
        (CorrectnessRouterSpec(checkpoint=theirs), r"trained on vec, which is of kind 'endpoint', not 'local'$"),
        (CorrectnessRouterSpec(embedder=spec()), r"which is of kind 'local', not 'endpoint'$"),
        (CorrectnessRouterSpec(checkpoint=theirs, embedder=spec(model="ada")), r"trained on vec, not ada$"),
    ):
        with pytest.raises(SpecError, match=said):
            build_router(router, PAIR, seed=0)


@pytest.mark.parametrize(
    ("embedder", "said"),
    [
        ({"url": "http://a", "endpoints": [{"url": "http://b"}]}, "give url in `endpoints`"),
        ({"endpoints": [{"url": "http://b"}, {"url": "http://b/"}]}, "lists the endpoint http://b twice"),
        ({"url": "ftp://a"}, "starts with http:// or https://"),
        ({"api_key_env": "sk-123"}, "not the key"),
    ],
)
def test_a_wrong_endpoint_is_refused(embedder: dict[str, Any], said: str) -> None:
    """An embedder's endpoints are checked as the endpoints of models are."""
    with pytest.raises(ValueError, match=said):
        EndpointEmbedderSpec.model_validate({"kind": "endpoint", "model": MODEL, **embedder})


def test_one_actor_holds_the_limits(spec: Spec) -> None:
    """An embedder behind an endpoint allows only one scoring actor; other embedders allow more."""
    with pytest.raises(ValueError, match="actors 2: only one actor can keep the limits of an embedder's endpoints"):
        CorrectnessRouterSpec(embedder=spec(), actors=2)
    assert CorrectnessRouterSpec(actors=2).actors == 2
    assert CorrectnessRouterSpec(embedder=spec(), actors=1).actors == 1


def test_an_embedder_without_a_kind_is_local() -> None:
    """Job files from before `kind` existed stay valid."""
    assert CorrectnessRouterSpec.model_validate({"embedder": {"model": "x"}}).embedder.kind == "local"
