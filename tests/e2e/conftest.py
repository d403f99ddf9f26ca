"""The servers that are not ours and take long to start: one of each for all tests of a process.

All tests that use them are in `test_servers.py`, since one test process runs a whole file of `real` tests.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.servers import Server, litellm_proxy, transformers_serve
from tests.e2e.tiny_llama import build_tiny_llama

REPLY = "Let me think step by step. The answer is 42."


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`transformers serve` with the tiny Llama."""
    folder = tmp_path_factory.mktemp("llama")
    with transformers_serve(build_tiny_llama(folder / "checkpoint"), folder / "log") as server:
        yield server


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A LiteLLM proxy that answers everything with REPLY."""
    folder = tmp_path_factory.mktemp("litellm")
    with litellm_proxy("model-b", REPLY, folder, folder / "log") as server:
        yield server
