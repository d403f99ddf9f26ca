"""Limits of a virtual key at LiteLLM's proxy."""

from collections.abc import Callable, Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import BATCHROUTER, Batch, cookbook, litellm
from benchmarks.limits.comparison import compare, observe
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.request_limits import usage_columns
from benchmarks.limits.rows import mean_answer_tokens, mean_prompt_tokens, prompt, prompt_tokens
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.processes import endpoint_specs
from benchmarks.limits.servers.proxy import litellm_proxy
from benchmarks.limits.settings import Settings
from benchmarks.limits.token_limits import MAX_TOKENS, MINUTES, ROWS_PER_MINUTE
from schemas.endpoints import LimitsSpec


def case_proxy(settings: Settings) -> None:
    """LiteLLM's proxy limits a key's requests per minute, then its tokens per minute."""
    seconds = settings.longest_window
    requests = ROWS_PER_MINUTE * seconds // 60
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + mean_answer_tokens(MAX_TOKENS)))
    tokens = tpm * seconds // 60
    _compare_clients(
        settings,
        f"{requests} requests in {seconds} s",
        LimitsSpec(rpm=ROWS_PER_MINUTE, window_seconds=seconds),
        lambda log: figures.windows_share_used([r._replace(charged=1) for r in log], requests, seconds),
    )
    _compare_clients(
        settings,
        f"{tokens:,} tokens in {seconds} s",
        LimitsSpec(tpm=tpm, max_in_flight=256),
        lambda log: figures.windows_share_used(
            [r._replace(charged=r.charged + prompt_tokens(prompt(r.row))) for r in log],
            tokens,
            seconds,
            at=lambda r: r.ended,
        ),
    )


def _compare_clients(
    settings: Settings, title: str, limits: LimitsSpec, share_used: Callable[[Sequence[LoggedRequest]], float]
) -> None:
    seconds = settings.longest_window
    rows = round(ROWS_PER_MINUTE * MINUTES * seconds / 60)
    # The proxy's window may be shorter than a minute; its limits are those of one window.
    rpm = None if limits.rpm is None else round(limits.rpm * seconds / 60)
    tpm = None if limits.tpm is None else round(limits.tpm * seconds / 60)
    behind = Behaviour(seconds=0.2, token_seconds=0.02)
    clients = settings.chosen([BATCHROUTER, litellm(32), cookbook(32)])
    logs = observe(
        clients,
        lambda: litellm_proxy(behind, seconds, rpm=rpm, tpm=tpm),
        lambda servers: Batch(endpoints=endpoint_specs(servers[:1], limits), rows=rows, max_tokens=MAX_TOKENS),
    )
    compare(
        f"LiteLLM's proxy, {title}, {rows:,} rows",
        "used >= 98 % (tokens 97 %), refused <= 0.5 %",
        clients,
        logs,
        lambda log: usage_columns(share_used(log), log),
    )
