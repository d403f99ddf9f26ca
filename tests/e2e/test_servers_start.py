"""The servers of the end-to-end checks start and answer, so that a failure further up is ours."""

from pathlib import Path

import pytest

from tests.e2e.servers import ServerFailedError, ask, constant_nginx, litellm_proxy, nginx_path, transformers_serve
from tests.e2e.tiny_llama import build_tiny_llama

pytestmark = pytest.mark.real


def test_transformers_serve_answers_with_the_tiny_llama(tmp_path: Path) -> None:
    """A checkpoint built here loads, and generates the tokens asked for, the same twice."""
    checkpoint = build_tiny_llama(tmp_path / "llama")
    with transformers_serve(checkpoint, tmp_path / "serve.log") as server:
        first, second = (ask(server, "Why is the sky blue?", max_tokens=16) for _ in range(2))
    assert first["choices"] == second["choices"]
    assert first["usage"]["completion_tokens"] == 16


def test_litellm_proxy_answers_with_its_mock(tmp_path: Path) -> None:
    """The proxy gives its mock response for the model it was told to serve."""
    with litellm_proxy("model-b", "Because of Rayleigh.", tmp_path, tmp_path / "proxy.log") as server:
        answer = ask(server, "Why is the sky blue?")
    assert answer["choices"][0]["message"]["content"] == "Because of Rayleigh."


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
