"""Limits on tokens, with answers whose length nobody knows beforehand, charged in three ways."""

from collections.abc import Callable, Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import OURS, Batch, cookbook, litellm
from benchmarks.limits.comparing import compare, observe
from benchmarks.limits.figures import Seen
from benchmarks.limits.rates import used
from benchmarks.limits.rows import mean_answer_tokens, mean_prompt_tokens
from benchmarks.limits.servers.behaviour import Behaviour, BucketLimit, WindowLimit
from benchmarks.limits.servers.starting import answering, pool
from benchmarks.limits.settings import Settings
from schemas.endpoints import LimitsSpec, Provider

MAX_TOKENS = 400
ROWS_PER_MINUTE = 540
MINUTES = 3.5
_MANY = 256


def case_tokens(settings: Settings) -> None:
    """Tokens per minute: reserved for good, charged as used, reserved and refunded."""
    _reserved(settings)
    _used(settings)
    _refunded(settings)


def _reserved(settings: Settings) -> None:
    """As Azure does it: prompt and `max_tokens` on arrival, until the window ends."""
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + MAX_TOKENS))
    seconds = settings.longest_window
    amount = tpm * seconds // 60
    _compare(
        settings,
        f"reserved for good in windows of {seconds} s: {tpm:,} tokens a minute",
        Behaviour(limit=WindowLimit(strategy="fixed", amount=amount, seconds=seconds, charge="reserved")),
        LimitsSpec(tpm=tpm, max_in_flight=_MANY, window_seconds=seconds),
        "azure",
        lambda seen: figures.used_of_windows(seen, amount, seconds),
    )


def _used(settings: Settings) -> None:
    """As gateways do that count what they forwarded: prompt and answer at the end, refusing while a window is full."""
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + mean_answer_tokens(MAX_TOKENS)))
    seconds = settings.longest_window
    amount = tpm * seconds // 60
    _compare(
        settings,
        f"charged as used in windows of {seconds} s: {tpm:,} tokens a minute",
        Behaviour(limit=WindowLimit(strategy="fixed", amount=amount, seconds=seconds, charge="used")),
        LimitsSpec(tpm=tpm, max_in_flight=_MANY),
        "generic",
        lambda seen: figures.used_of_windows(seen, amount, seconds, at=lambda s: s.ended),
    )


def _refunded(settings: Settings) -> None:
    """As Anthropic does it: buckets that refill evenly, reserved on arrival and corrected at the end.

    A full bucket lets a minute's worth through at once, so a client may use more than all of the pace.
    """
    output_tpm = round(ROWS_PER_MINUTE * mean_answer_tokens(MAX_TOKENS))
    input_tpm = round(1.5 * ROWS_PER_MINUTE * mean_prompt_tokens())
    _compare(
        settings,
        f"reserved and refunded: {output_tpm:,} answer tokens a minute, of the pace",
        Behaviour(limit=BucketLimit(input_tpm=input_tpm, output_tpm=output_tpm)),
        LimitsSpec(input_tpm=input_tpm, output_tpm=output_tpm, max_in_flight=_MANY),
        "anthropic",
        lambda seen: figures.used_of_rate(seen, output_tpm / 60),
    )


def _compare(
    settings: Settings,
    title: str,
    server: Behaviour,
    limits: LimitsSpec,
    provider: Provider,
    share: Callable[[Sequence[Seen]], float],
) -> None:
    rows = round(ROWS_PER_MINUTE * MINUTES * settings.longest_window / 60)
    # One token takes 20 ms, as at many providers, so the longest answers take eight seconds.
    server = server.model_copy(update={"seconds": 0.2, "token_seconds": 0.02})
    clients = settings.chosen([OURS, litellm(32), cookbook(32)])
    logs = observe(
        clients,
        lambda: answering(server),
        lambda servers: Batch(endpoints=pool(servers, limits, provider), rows=rows, max_tokens=MAX_TOKENS),
        together=True,
    )
    compare(
        f"tokens {title}, {rows:,} rows",
        "used >= 97 %, refused <= 0.5 %",
        clients,
        logs,
        lambda seen: used(share(seen), seen),
    )
