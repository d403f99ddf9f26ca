"""The batched forward pass that all routers and embedders with torch share."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.network import forward
from batch.routers.network.forward import Forward, first_tokens
from batch.routers.network.pretrained import LOCAL_ONLY


def letters(texts: Sequence[str]) -> list[list[int]]:
    """One token per letter."""
    return [[ord(letter) for letter in text] for text in texts]


class Sums:
    """A network that gives each text the sum and the number of its tokens, and records the shapes of its batches."""

    def __init__(self, room: int = 10**9) -> None:
        self.shapes: list[tuple[int, int]] = []
        self._room = room

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if ids.numel() > self._room:
            raise torch.OutOfMemoryError
        self.shapes.append((ids.shape[0], ids.shape[1]))
        return torch.stack([(ids * mask).sum(1), mask.sum(1)], dim=1)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Let torch use this many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_core() -> Iterator[None]:
    """Run one batch at a time, as on a GPU."""
    with cores(1):
        yield


def expected(texts: Sequence[str]) -> np.ndarray:
    return np.array([[sum(map(ord, text)), max(len(text), 1)] for text in texts], dtype=np.float32).reshape(-1, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abc", max_size=12), max_size=60), st.integers(1, 100), st.integers(1, 9), st.integers(1, 3))
def test_every_text_gets_its_own_result(texts: list[str], batch_tokens: int, chunk: int, number: int) -> None:
    """Results keep the order of the texts, whatever the chunks and batches, and no batch exceeds the budget."""
    network = Sums()
    with pytest.MonkeyPatch.context() as patch, cores(number):
        patch.setattr(forward, "_CHUNK", chunk)
        results = Forward(letters, network, width=2, batch_tokens=batch_tokens)(texts)
    np.testing.assert_array_equal(results, expected(texts))
    assert all(rows == 1 or rows * length <= batch_tokens for rows, length in network.shapes)


def test_each_core_has_batches_of_its_own() -> None:
    """Batches run side by side, each with one of torch's threads; even two texts are spread over two cores."""
    together = threading.Barrier(2)
    threads: list[int] = []

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        together.wait(10)
        threads.append(torch.get_num_threads())
        assert torch.is_inference_mode_enabled()
        return mask.sum(1, keepdim=True)

    with cores(2):
        results = Forward(letters, network, width=1, batch_tokens=100)(["aaa", "bbb"])
        assert torch.get_num_threads() == 2
    assert threads == [1, 1]
    assert results.tolist() == [[3.0], [3.0]]


def test_cores_do_not_wait_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the network runs the first chunk, the second one is tokenized."""
    monkeypatch.setattr(forward, "_CHUNK", 2)
    second = threading.Event()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        if "second" in texts:
            second.set()
        return letters(texts)

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert second.wait(10)
        return mask.sum(1, keepdim=True)

    with cores(2):
        assert Forward(tokenize, network, width=1, batch_tokens=100)(["the first", "it too", "second"]).shape == (3, 1)


def test_an_interruption_does_not_wait_for_what_was_not_begun() -> None:
    """Running batches end, the chunk's other batches are dropped, and later threads get all of torch's threads."""
    begun: list[int] = []

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        begun.append(len(ids))
        if len(begun) == 3:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return mask.sum(1, keepdim=True)

    later: list[int] = []
    with cores(2):
        with pytest.raises(KeyboardInterrupt):
            Forward(letters, network, width=1, batch_tokens=3)(["abc"] * 500)
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert len(begun) < 50
    assert later == [2]


@pytest.mark.parametrize("number", [1, 2])
def test_what_a_network_raises_comes_out(number: int) -> None:
    """The network's exception reaches the caller, whichever thread runs the network."""

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("no such weights")

    with cores(number), pytest.raises(ArithmeticError, match="no such weights"):
        Forward(letters, network, width=1, batch_tokens=100)(["a", "bb", "ccc"])


@pytest.mark.usefixtures("one_core")
def test_padding_is_the_token_asked_for() -> None:
    """Rows are padded on the right with the given token, and a text without tokens becomes one such token."""
    seen: list[list[list[int]]] = []

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(ids.tolist())
        return mask.sum(1, keepdim=True)

    results = Forward(letters, network, width=1, batch_tokens=100, padding=7)(["", "\1\2\3"])
    assert seen == [[[1, 2, 3], [7, 7, 7]]]
    assert results.tolist() == [[1.0], [3.0]]


@pytest.mark.usefixtures("one_core")
def test_the_next_chunk_is_tokenized_while_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the network runs a chunk, another thread tokenizes the next one."""
    monkeypatch.setattr(forward, "_CHUNK", 2)
    tokenized = [threading.Event() for _ in range(3)]
    calls = iter(tokenized)
    ran: list[bool] = []

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        next(calls).set()
        return letters(texts)

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        following = len(ran) + 1
        ran.append(following == len(tokenized) or tokenized[following].wait(10))
        return mask.sum(1, keepdim=True)

    results = Forward(tokenize, network, width=1, batch_tokens=100)(["aaa", "b", "cc", "dd", "eeeee", "f"])
    assert ran == [True, True, True]
    assert results[:, 0].tolist() == [3, 1, 2, 2, 5, 1]


@pytest.mark.usefixtures("one_core")
def test_out_of_memory_halves_the_budget_for_good() -> None:
    """When memory runs out, the texts run in smaller batches, and later calls start with those."""
    network = Sums(room=40)
    run = Forward(letters, network, width=2, batch_tokens=128)
    texts = ["abcdefgh"] * 16 + ["xy"]
    np.testing.assert_array_equal(run(texts), expected(texts))
    network.shapes.clear()
    np.testing.assert_array_equal(run(texts[:4]), expected(texts[:4]))
    assert network.shapes == [(4, 8)]
    with pytest.raises(torch.OutOfMemoryError):
        run(["a" * 41])


def test_a_broken_tokenizer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of the tokenizer, which runs ahead, reaches the caller, and the call ends."""
    monkeypatch.setattr(forward, "_CHUNK", 1)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        if "bad" in texts:
            raise ValueError("bad text")
        return letters(texts)

    with pytest.raises(ValueError, match="bad text"):
        Forward(tokenize, Sums(), width=2, batch_tokens=100)(["longest", "bad", "a"])


def test_the_same_tokens_as_the_tokenizer_gives() -> None:
    """Calling the tokenizer's Rust half directly gives exactly the ids that the tokenizer gives."""
    from transformers import AutoTokenizer

    texts = ["", "Why?", "Añade 你好 🎉", "word " * 90, "a\x00b [SEP] c", " \n\t "]
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder(), **LOCAL_ONLY)
    assert list(first_tokens(tokenizer, 64)(texts)) == tokenizer(texts, truncation=True, max_length=64)["input_ids"]


def test_a_slow_tokenizer_is_refused() -> None:
    """A tokenizer without a Rust half is refused by name."""
    with pytest.raises(ValueError, match="object is no fast tokenizer"):
        first_tokens(object(), 8)
