"""LiteLLM's Router with its defaults but for retries and timeout, given the endpoints' limits.

A semaphore bounds the requests in flight.
"""

import asyncio
import sys

from benchmarks.limits.clients.batch import Batch
from benchmarks.limits.rows import prompt


async def main(batch: Batch) -> None:
    """Send the batch. Rows that fail are skipped: the servers' logs show which rows were never answered."""
    import litellm

    litellm.suppress_debug_info = True
    router = litellm.Router(
        model_list=[
            {
                "model_name": "m",
                "litellm_params": {
                    "model": "openai/m",
                    "api_base": endpoint.url,
                    "api_key": "unused",
                    "rpm": endpoint.limits.rpm and int(endpoint.limits.rpm),
                    "tpm": endpoint.limits.tpm and int(endpoint.limits.tpm),
                },
            }
            for endpoint in batch.endpoints
        ],
        num_retries=batch.attempts - 1,
        timeout=batch.timeout_seconds,
    )
    slots = asyncio.Semaphore(batch.in_flight)

    async def send(row: int) -> None:
        async with slots:
            messages = [{"role": "user", "content": prompt(row)}]
            await router.acompletion("m", messages, max_tokens=batch.max_tokens)

    await asyncio.gather(*(send(row) for row in range(batch.rows)), return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(Batch.model_validate_json(sys.stdin.read())))
