"""Curator, given the endpoint's limits. It runs in an interpreter of its own: it needs older packages than ours."""

import os
import sys

from benchmarks.limits.clients.batch import Batch
from benchmarks.limits.rows import prompt

# Curator demands a limit on tokens too; this one is never reached.
_NO_TOKEN_LIMIT = 1_000_000_000


def main(batch: Batch) -> None:
    """Send the batch to its one endpoint."""
    os.environ["OPENAI_API_KEY"] = "unused"
    # Importing this points tiktoken at the tokenizer file that LiteLLM ships; Curator would download it otherwise.
    import litellm.litellm_core_utils.default_encoding  # noqa: F401
    from bespokelabs import curator

    (endpoint,) = batch.endpoints
    assert endpoint.limits.rpm is not None
    llm = curator.LLM(
        model_name="gpt-4o-mini",
        backend="openai",
        generation_params={"max_tokens": batch.max_tokens},
        backend_params={
            "base_url": endpoint.url,
            "max_requests_per_minute": int(endpoint.limits.rpm),
            "max_tokens_per_minute": int(endpoint.limits.tpm or _NO_TOKEN_LIMIT),
            "max_retries": batch.attempts - 1,
            "require_all_responses": False,
        },
    )
    llm([prompt(row) for row in range(batch.rows)])


if __name__ == "__main__":
    main(Batch.model_validate_json(sys.stdin.read()))
