"""Builds the limiters of an endpoint, from the limits in its spec or in the headers of its answers."""

from typing import assert_never

from batch.clock import Clock
from batch.dispatch.limits.requests import Limiter, RequestPace, RequestWindow
from batch.dispatch.limits.tokens import TokenPace, TokenReserve, TokenWindow
from batch.dispatch.providers.base import Provider
from batch.dispatch.providers.registry import PROVIDERS
from batch.limits import Measure
from schemas.endpoints import LimitsSpec
from schemas.endpoints import Provider as ProviderName

# A pace above the window's, and a second request at once, make up for late timers.
_AHEAD = 1.05
_AT_ONCE = 0.05


def build_limiters(spec: LimitsSpec, provider: ProviderName, clock: Clock) -> list[Limiter]:
    """Build the limiters of an endpoint, except the one for its concurrency.

    A request may be sent only when every one of them allows it.
    """
    record = PROVIDERS[provider]
    request_window = spec.window_seconds or record.request_window
    token_window = spec.window_seconds or record.token_window
    limiters: list[Limiter] = []
    if spec.rpm is not None:
        limiters += _requests(spec.rpm, spec.burst, request_window, clock)
    if spec.tpm is not None:
        limiters += _tokens(spec.tpm, record, token_window, clock)
    if spec.input_tpm is not None:
        limiters.append(
            TokenPace(spec.input_tpm, clock, measure="input", count=lambda c: c.input, refunds=record.refunds)
        )
    if spec.output_tpm is not None:
        limiters += _output(spec.output_tpm, record, clock)
    return limiters


def limiter_from_header(measure: Measure, limit: float, provider: ProviderName, clock: Clock) -> Limiter:
    """Build the limiter for a limit, per minute, that the spec does not set and that the server's headers state."""
    record = PROVIDERS[provider]
    match measure:
        case "requests":
            return RequestPace(limit, None, clock)
        case "tokens":
            window = record.token_window or 60.0
            return TokenPace(limit, clock, count=record.count_tokens, refunds=record.refunds, window=window)
        case "input":
            return TokenPace(limit, clock, measure=measure, count=lambda c: c.input, refunds=record.refunds)
        case "output":
            return TokenPace(limit, clock, measure=measure, count=lambda c: c.output, refunds=record.refunds)
        case _:
            assert_never(measure)


def _requests(rpm: float, burst: int | None, window: float | None, clock: Clock) -> list[Limiter]:
    """Build the limiters for `rpm` requests per minute; `window` is the server's window in seconds, if it has one."""
    if window is None or burst is not None:
        return [RequestPace(rpm, burst, clock)]
    if rpm * window < 60:
        return [RequestPace(rpm, None, clock)]
    # Requests are spread evenly within the window too, as servers ask for. The pace is a little above the limit, so
    # that only the window holds requests back.
    at_once = max(2, int(rpm * window / 60 * _AT_ONCE))
    return [RequestPace(rpm * _AHEAD, at_once, clock), RequestWindow(rpm, window, clock)]


def _tokens(tpm: float, provider: Provider, window: float | None, clock: Clock) -> list[Limiter]:
    """Build the limiters for `tpm` tokens per minute.

    If the provider refunds the tokens that an answer does not use, there are two limiters: an even pace for the tokens
    that answers really use, and the server's own limit, which reserves the most that a request may use. With the
    server's limit alone, twice the limit would be sent in the first minute; with the pace alone, long answers in flight
    would use up the server's limit.
    """
    if not provider.refunds:
        return [TokenPace(tpm, clock, count=provider.count_tokens, refunds=False, window=window or 60.0)]
    pace = TokenPace(tpm, clock, window=window or 60.0)
    if window is None:
        return [pace, TokenReserve(tpm, clock, measure="tokens", count=provider.count_tokens)]
    return [pace, TokenWindow(tpm, window, clock, count=provider.count_tokens)]


def _output(tpm: float, provider: Provider, clock: Clock) -> list[Limiter]:
    """Build the limiters for `tpm` output tokens per minute: as for `_tokens`, two if the provider refunds tokens."""
    if not provider.refunds:
        return [TokenPace(tpm, clock, measure="output", count=lambda c: c.output, refunds=False)]
    return [
        TokenPace(tpm, clock, measure="output", count=lambda c: c.expected),
        TokenReserve(tpm, clock, measure="output", count=lambda c: c.output),
    ]
