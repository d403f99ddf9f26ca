"""Limits on tokens, which servers charge in three ways. No client knows the length of an answer beforehand."""

from collections.abc import Callable, Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import BATCHROUTER, Batch, cookbook, litellm
from benchmarks.limits.comparison import compare, observe
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.request_limits import usage_columns
from benchmarks.limits.rows import mean_answer_tokens, mean_prompt_tokens
from benchmarks.limits.servers.behaviour import Behaviour, BucketLimit, WindowLimit
from benchmarks.limits.servers.processes import aiohttp_servers, endpoint_specs
from benchmarks.limits.settings import Settings
from schemas.endpoints import LimitsSpec, Provider

MAX_TOKENS = 400
ROWS_PER_MINUTE = 540
MINUTES = 3.5
_MAX_IN_FLIGHT = 256


def case_tokens(settings: Settings) -> None:
    """Tokens per minute: reserved and kept, charged as used, reserved and refunded."""
    _compare_reserved(settings)
    _compare_charged_as_used(settings)
    _compare_refunded(settings)


def _compare_reserved(settings: Settings) -> None:
    """The server charges prompt and `max_tokens` on arrival and refunds nothing, as Azure does."""
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + MAX_TOKENS))
    seconds = settings.longest_window
    amount = tpm * seconds // 60
    _compare_clients(
        settings,
        f"reserved and kept, in windows of {seconds} s: {tpm:,} tokens a minute",
        Behaviour(limit=WindowLimit(strategy="fixed", amount=amount, seconds=seconds, charge="reserved")),
        LimitsSpec(tpm=tpm, max_in_flight=_MAX_IN_FLIGHT, window_seconds=seconds),
        "azure",
        lambda log: figures.windows_share_used(log, amount, seconds),
    )


def _compare_charged_as_used(settings: Settings) -> None:
    """The server charges prompt and answer when the answer ends, and refuses requests while the window is full.

    Gateways that count what they forwarded do so.
    """
    tpm = round(ROWS_PER_MINUTE * (mean_prompt_tokens() + mean_answer_tokens(MAX_TOKENS)))
    seconds = settings.longest_window
    amount = tpm * seconds // 60
    _compare_clients(
        settings,
        f"charged as used, in windows of {seconds} s: {tpm:,} tokens a minute",
        Behaviour(limit=WindowLimit(strategy="fixed", amount=amount, seconds=seconds, charge="used")),
        LimitsSpec(tpm=tpm, max_in_flight=_MAX_IN_FLIGHT),
        "generic",
        lambda log: figures.windows_share_used(log, amount, seconds, at=lambda request: request.ended),
    )


def _compare_refunded(settings: Settings) -> None:
    """The server has buckets that refill evenly, reserves on arrival and refunds at the end, as Anthropic does.

    A full bucket lets a minute's worth of tokens through at once, so a client may use more than the whole rate.
    """
    output_tpm = round(ROWS_PER_MINUTE * mean_answer_tokens(MAX_TOKENS))
    input_tpm = round(1.5 * ROWS_PER_MINUTE * mean_prompt_tokens())
    _compare_clients(
        settings,
        f"reserved and refunded: {output_tpm:,} answer tokens a minute; used is a share of this rate",
        Behaviour(limit=BucketLimit(input_tpm=input_tpm, output_tpm=output_tpm)),
        LimitsSpec(input_tpm=input_tpm, output_tpm=output_tpm, max_in_flight=_MAX_IN_FLIGHT),
        "anthropic",
        lambda log: figures.rate_share_used(log, output_tpm / 60),
    )


def _compare_clients(
    settings: Settings,
    title: str,
    server: Behaviour,
    limits: LimitsSpec,
    provider: Provider,
    share_used: Callable[[Sequence[LoggedRequest]], float],
) -> None:
    rows = round(ROWS_PER_MINUTE * MINUTES * settings.longest_window / 60)
    # One token takes 20 ms, as at many providers, so the longest answers take eight seconds.
    server = server.model_copy(update={"seconds": 0.2, "token_seconds": 0.02})
    clients = settings.chosen([BATCHROUTER, litellm(32), cookbook(32)])
    logs = observe(
        clients,
        lambda: aiohttp_servers(server),
        lambda servers: Batch(endpoints=endpoint_specs(servers, limits, provider), rows=rows, max_tokens=MAX_TOKENS),
        at_once=True,
    )
    compare(
        f"tokens {title}, {rows:,} rows",
        "used >= 97 %, refused <= 0.5 %",
        clients,
        logs,
        lambda log: usage_columns(share_used(log), log),
    )
