"""The servers of the end-to-end checks start and answer, so that a failure further up is ours."""

from pathlib import Path

import pytest

from tests.e2e.conftest import REPLY
from tests.e2e.servers import Server, ServerFailedError, ask, constant_nginx, nginx_path

pytestmark = pytest.mark.real


def test_transformers_serve_answers_with_the_tiny_llama(llama: Server) -> None:
    """A checkpoint built here loads, and generates the tokens asked for, the same twice."""
    first, second = (ask(llama, "Why is the sky blue?", max_tokens=16) for _ in range(2))
    assert first["choices"] == second["choices"]
    assert first["usage"]["completion_tokens"] == 16


def test_litellm_proxy_answers_with_its_mock(proxy: Server) -> None:
    """The proxy gives its mock response for the model it was told to serve."""
    answer = ask(proxy, "Why is the sky blue?")
    assert answer["choices"][0]["message"]["content"] == REPLY


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_nginx_answers_with_its_constant(tmp_path: Path) -> None:
    """Whatever is asked, the constant comes back."""
    with constant_nginx("m", "yes", tmp_path, tmp_path / "nginx.log") as server:
        answer = ask(server, "Is it?")
    assert answer["choices"][0]["message"]["content"] == "yes"


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the server's own words."""
    with (
        pytest.raises(ServerFailedError, match="invalid variable name"),
        constant_nginx("m", "$", tmp_path, tmp_path / "nginx.log"),
    ):
        pass
