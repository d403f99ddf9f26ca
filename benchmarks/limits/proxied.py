"""Limits of a virtual key at LiteLLM's proxy."""

from collections.abc import Callable, Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import OURS, Batch, cookbook, litellm
from benchmarks.limits.comparing import compare, observe
from benchmarks.limits.figures import Seen
from benchmarks.limits.rates import used
from benchmarks.limits.rows import mean_answer_tokens, mean_prompt_tokens, prompt, prompt_tokens
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.proxy import litellm_proxy
from benchmarks.limits.servers.starting import pool
from benchmarks.limits.settings import Settings
from benchmarks.limits.tokens import MAX_TOKENS, MINUTES, ROWS_PER_MINUTE
from schemas.endpoints import LimitsSpec


def case_proxy(settings: Settings) -> None:
    """LiteLLM's proxy holding a key's requests, then its tokens, per minute."""
    seconds = settings.longest_window
    requests = ROWS_PER_MINUTE * seconds // 60
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + mean_answer_tokens(MAX_TOKENS)))
    amount = tpm * seconds // 60
    _proxied(
        settings,
        f"{requests} requests in {seconds} s",
        LimitsSpec(rpm=ROWS_PER_MINUTE, window_seconds=seconds),
        lambda seen: figures.used_of_windows([s._replace(charged=1) for s in seen], requests, seconds),
    )
    _proxied(
        settings,
        f"{amount:,} tokens in {seconds} s",
        LimitsSpec(tpm=tpm, max_in_flight=256),
        lambda seen: figures.used_of_windows(
            [s._replace(charged=s.charged + prompt_tokens(prompt(s.row))) for s in seen],
            amount,
            seconds,
            at=lambda s: s.ended,
        ),
    )


def _proxied(settings: Settings, title: str, limits: LimitsSpec, share: Callable[[Sequence[Seen]], float]) -> None:
    seconds = settings.longest_window
    rows = round(ROWS_PER_MINUTE * MINUTES * seconds / 60)
    rpm = None if limits.rpm is None else round(limits.rpm * seconds / 60)
    tpm = None if limits.tpm is None else round(limits.tpm * seconds / 60)
    behind = Behaviour(seconds=0.2, token_seconds=0.02)
    clients = settings.chosen([OURS, litellm(32), cookbook(32)])
    logs = observe(
        clients,
        lambda: litellm_proxy(behind, seconds, rpm=rpm, tpm=tpm),
        lambda servers: Batch(endpoints=pool(servers[:1], limits), rows=rows, max_tokens=MAX_TOKENS),
    )
    compare(
        f"LiteLLM's proxy, {title}, {rows:,} rows",
        "used >= 98 % (tokens 97 %), refused <= 0.5 %",
        clients,
        logs,
        lambda seen: used(share(seen), seen),
    )
