"""The retry loop that OpenAI's cookbook advises: random exponential waits of 1 to 60 seconds after a failure.

A semaphore bounds the requests in flight. The endpoints take turns. The loop knows no limits.
"""

import asyncio
import json
import sys

import aiohttp
from tenacity import RetryError, retry, stop_after_attempt, wait_random_exponential

from benchmarks.limits.clients.batch import Batch
from benchmarks.limits.rows import prompt


async def main(batch: Batch) -> None:
    """Send the batch. A row whose attempts are used up is skipped; any other error is raised at the end."""
    slots = asyncio.Semaphore(batch.in_flight)
    timeout = aiohttp.ClientTimeout(total=batch.timeout_seconds)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout, raise_for_status=True
    ) as session:

        @retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(batch.attempts))
        async def ask(url: str, body: bytes) -> None:
            headers = {"content-type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                await response.read()

        async def send(row: int) -> None:
            message = {"role": "user", "content": prompt(row)}
            body = json.dumps({"model": "m", "messages": [message], "max_tokens": batch.max_tokens}).encode()
            async with slots:
                await ask(str(batch.endpoints[row % len(batch.endpoints)].url), body)

        ends = await asyncio.gather(*(send(row) for row in range(batch.rows)), return_exceptions=True)
    unexpected = next((end for end in ends if end is not None and not isinstance(end, RetryError)), None)
    if unexpected is not None:
        raise unexpected


if __name__ == "__main__":
    asyncio.run(main(Batch.model_validate_json(sys.stdin.read())))
