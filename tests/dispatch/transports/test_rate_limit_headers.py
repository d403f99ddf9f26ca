"""Rate-limit headers are parsed into numbers, without a server."""

import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.dispatch.transports.rate_limit_headers import (
    parse_rate_limits,
    parse_timestamp,
    seconds_until,
    window_reset_after,
)
from batch.limits import Allowance
from schemas.endpoints import Provider

NOW = 1_700_000_000.0
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
LONGEST_SECONDS = 31 * 86_400.0


def now() -> float:
    return NOW


def at(seconds: float) -> str:
    """A moment after NOW in RFC 3339 format."""
    return (datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("500µs", 0.0005),
        ("500μs", 0.0005),
        ("7us", 7e-6),
        ("120ns", 1.2e-7),
        ("1d", 86_400.0),
        (".5s", 0.5),
        ("0s", 0.0),
        ("60", 60.0),
        ("0.25", 0.25),
        ("0", 0.0),
        (str(NOW + 90), 90.0),
        (f"{(NOW + 90) * 1000:.0f}", 90.0),
        (str(NOW - 90), 0.0),
        (at(90), 90.0),
        (at(90.5), 90.5),
        (at(-90), 0.0),
        ("2023-11-14T22:14:20", 60.0),
        ("2023-11-15T00:14:20+02:00", 60.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("-5s", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("soon", None),
        ("5 minutes", None),
        ("1s 2", None),
        ("s", None),
        ("9" * 400 + "h", None),
        ("9999-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+14:00", 0.0),
        ("32d", None),
    ],
)
def test_a_reset_is_seconds_from_now(text: str | None, seconds: float | None) -> None:
    """A reset may be a Go duration, bare seconds, seconds or milliseconds since 1970, or a date; other text is none."""
    assert seconds_until(text, NOW) == (None if seconds is None else pytest.approx(seconds))


def go_duration(nanoseconds: int) -> str:
    """Print a duration as Go prints a `time.Duration`."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1_000 and nanoseconds < 1_000_000_000:
            return f"{nanoseconds / size:.9g}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(rest, 1_000_000_000)
    seconds = f"{whole}.{fraction:09d}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


@given(st.integers(0, int(LONGEST_SECONDS) * 1_000_000_000) | st.integers(0, 2_000_000_000))
@example(360_000_000_000)
@example(1_000_000)
def test_every_go_duration_is_read(nanoseconds: int) -> None:
    """Every duration that Go prints is read as the seconds it stands for."""
    assert seconds_until(go_duration(nanoseconds), NOW) == pytest.approx(nanoseconds / 1e9)


@given(st.integers(0, 7_000_000_000), st.integers(-14 * 60, 14 * 60))
def test_a_date_is_the_same_moment_in_every_zone(then: int, offset: int) -> None:
    """A date in RFC 3339 format with any offset is read as the moment it names."""
    local = datetime.fromtimestamp(then, timezone(timedelta(minutes=offset)))
    assert parse_timestamp(local.isoformat()) == then


def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date without a zone is read as UTC, whatever the local time zone."""
    try:
        with monkeypatch.context() as there:
            there.setenv("TZ", "JST-9")
            time.tzset()
            assert (parse_timestamp("1970-01-01T00:00:07"), parse_timestamp("Thu, 01 Jan 1970 00:00:08")) == (7.0, 8.0)
    finally:
        time.tzset()


@pytest.mark.parametrize("text", ["", "soon", "Jan +99999999999 1 12.30.40 GMT", "Mon, 32 Foo 2024 00:00:00 GMT"])
def test_what_is_no_date_is_none(text: str) -> None:
    """A text that is no date, or names a date that does not exist, gives no moment."""
    assert parse_timestamp(text) is None


def openai(what: str, limit: str, remaining: str, reset: str | None = None) -> dict[str, str]:
    """The headers of one limit as OpenAI sends them."""
    said = {f"x-ratelimit-limit-{what}": limit, f"x-ratelimit-remaining-{what}": remaining}
    return said | ({f"x-ratelimit-reset-{what}": reset} if reset is not None else {})


def anthropic(what: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    """The headers of one limit as Anthropic sends them."""
    stem = f"anthropic-ratelimit-{what}"
    return {f"{stem}-limit": limit, f"{stem}-remaining": remaining, f"{stem}-reset": reset}


@pytest.mark.parametrize(
    ("providers", "headers", "allowances"),
    [
        (PROVIDERS, {}, []),
        (PROVIDERS, {"content-type": "application/json", "date": formatdate(NOW, usegmt=True)}, []),
        (
            ("openai", "azure", "generic"),
            openai("requests", "60", "59", "1s") | openai("tokens", "150000", "149984", "12ms"),
            [Allowance("requests", 60, 59, 1), Allowance("tokens", 150_000, 149_984, 0.012)],
        ),
        (("anthropic",), openai("requests", "60", "59", "1s"), []),
        (
            ("anthropic", "generic"),
            anthropic("requests", "50", "49", at(1.2))
            | anthropic("tokens", "60000", "59000", at(2))
            | anthropic("input-tokens", "50000", "49000", at(3))
            | anthropic("output-tokens", "10000", "10000", at(-1)),
            [
                Allowance("requests", 50, 49, pytest.approx(1.2)),  # type: ignore[arg-type]
                Allowance("tokens", 60_000, 59_000, 2),
                Allowance("input", 50_000, 49_000, 3),
                Allowance("output", 10_000, 10_000, 0),
            ],
        ),
        (("openai", "azure"), anthropic("requests", "50", "49", at(1)), []),
        (
            ("azure", "openai"),
            {"x-ratelimit-remaining-requests": "9", "x-ratelimit-remaining-tokens": "950"},
            [Allowance("requests", None, 9, None), Allowance("tokens", None, 950, None)],
        ),
        (
            ("generic",),
            openai("req-minute", "720", "717") | openai("tokens-minute", "5000000", "4999911"),
            [Allowance("requests", 720, 717, None), Allowance("tokens", 5_000_000, 4_999_911, None)],
        ),
    ],
)
def test_each_provider_is_understood(
    providers: tuple[Provider, ...], headers: dict[str, str], allowances: list[Allowance]
) -> None:
    """Each provider's headers are read, other providers' headers are ignored, and `generic` reads them all."""
    for provider in providers:
        assert list(parse_rate_limits(headers.get, provider, now)) == allowances


def test_the_servers_own_clock_is_used() -> None:
    """A date in a header is compared with the answer's `date`; the local clock, which may be off, is the fallback."""
    headers = anthropic("requests", "50", "49", at(5))
    assert parse_rate_limits(headers.get, "anthropic", now)[0].reset_seconds == 5
    headers["date"] = formatdate(NOW + 3, usegmt=True)
    assert parse_rate_limits(headers.get, "anthropic", lambda: 0.0)[0].reset_seconds == 2


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("-1", "-1", "0"),
        ("-1", "0", "0"),
        ("0", "0", "0"),
        ("nan", "1", "1s"),
        ("1e999", "1", "1s"),
        ("1e13", "1", "1s"),
        ("", "", ""),
    ],
)
def test_what_is_no_limit_limits_nothing(limit: str, remaining: str, reset: str) -> None:
    """A limit that is no number, or not above 0, is ignored with what remains of it: Azure's Responses API sends -1."""
    headers = openai("tokens", limit, remaining, reset) | openai("requests", "60", "59")
    assert parse_rate_limits(headers.get, "openai", now) == (Allowance("requests", 60, 59, None),)


def test_a_bad_remainder_leaves_the_limit() -> None:
    """An unreadable `remaining` and reset do not invalidate a readable limit."""
    assert parse_rate_limits(openai("requests", "60", "-3", "x").get, "openai", now) == (
        Allowance("requests", 60, None, None),
    )


def test_a_days_limit_is_no_minutes_limit() -> None:
    """Groq states a limit of requests per day: its remaining requests are kept, but it sets no limit per minute."""
    headers = openai("requests", "14400", "14370", "2m59.56s") | openai("tokens", "18000", "17997", "7.66ms")
    requests, tokens = parse_rate_limits(headers.get, "generic", now)
    assert requests == Allowance("requests", None, 14_370, pytest.approx(179.56))  # type: ignore[arg-type]
    assert tokens.limit == 18_000


KINDS_OF_TOKENS = ("tokens", "project-tokens", "tokens_usage_based")
counts = st.integers(1, 10**6)


@given(st.lists(st.tuples(counts, counts), min_size=3, max_size=3))
def test_limits_that_hold_at_once_are_as_the_tightest(said: list[tuple[int, int]]) -> None:
    """Of several token limits (organisation, project, usage-based) the smallest limit, the fewest remaining tokens
    and the reset of those are taken.
    """
    headers: dict[str, str] = {}
    for seconds, (what, (limit, remaining)) in enumerate(zip(KINDS_OF_TOKENS, said, strict=True), start=1):
        headers |= openai(what, str(limit), str(remaining), f"{seconds}s")
    (tokens,) = parse_rate_limits(headers.get, "openai", now)
    least = min(remaining for _, remaining in said)
    assert (tokens.limit, tokens.remaining) == (min(limit for limit, _ in said), least)
    assert tokens.reset_seconds in [1 + i for i, (_, remaining) in enumerate(said) if remaining == least]


def test_what_litellm_repeats_counts_once() -> None:
    """LiteLLM passes on Anthropic's headers and adds OpenAI's copy of them; both are read as one limit."""
    headers = openai("requests", "50", "49") | anthropic("requests", "50", "49", at(2))
    assert parse_rate_limits(headers.get, "generic", now) == (Allowance("requests", 50, 49, 2),)


def test_one_deployment_behind_a_proxy_does_not_speak_for_it() -> None:
    """LiteLLM's proxy repeats the headers of the deployment that answered, marked by a prefix. They are ignored, and
    the proxy's own limits are kept.
    """
    repeated = openai("requests", "60", "59", "1s")
    repeated |= {f"llm_provider-{name}": value for name, value in repeated.items()}
    assert parse_rate_limits(repeated.get, "generic", now) == ()
    own = repeated | openai("tokens", "1000", "900", "1s")
    assert [a.measure for a in parse_rate_limits(own.get, "generic", now)] == ["tokens"]


@pytest.mark.parametrize(
    ("limit", "policy", "per_minute"),
    [
        ("100", None, None),
        ("100", "100;w=60", 100),
        ("10", "10;w=1, 1000;w=3600", 600),
        ("1000", "10;w=1, 1000;w=3600", 1000 / 60),
        ("100, 100;window=60, 10000;window=86400", None, 100),
        ("10, 10;w=1", None, 600),
        ("7", "10;w=1", None),
        ("10", "10;w=0", None),
        ("10", "garbage", None),
    ],
)
def test_a_limit_of_another_time_is_made_a_minutes(limit: str, policy: str | None, per_minute: float | None) -> None:
    """A limit is converted to one per minute by the period that the IETF drafts state. Without a period, only what
    remains of it is kept.
    """
    for prefix in ("", "x-"):
        headers = {f"{prefix}ratelimit-limit": limit, f"{prefix}ratelimit-remaining": "5"}
        headers |= {f"{prefix}ratelimit-reset": "3"} | ({"ratelimit-policy": policy} if policy else {})
        assert parse_rate_limits(headers.get, "generic", now) == (Allowance("requests", per_minute, 5, 3),)


@pytest.mark.parametrize(
    ("provider", "headers", "wait"),
    [
        ("azure", openai("requests", "60", "0", "9s"), 9.0),
        ("azure", openai("requests", "60", "0", "9s") | openai("tokens", "1000", "0", "42"), 42.0),
        ("azure", openai("requests", "60", "1", "9s"), None),
        ("azure", openai("requests", "60", "0", "9s") | openai("tokens", "1000", "10", "42"), 9.0),
        ("azure", openai("requests", "60", "0"), None),
        ("azure", openai("requests", "60", "0", "0"), None),
        ("azure", openai("tokens", "-1", "-1", "0"), None),
        ("openai", openai("requests", "60", "0", "1m0s"), None),
        ("generic", openai("requests", "60", "0", "1m0s"), None),
        ("anthropic", anthropic("requests", "60", "0", at(60)), None),
        ("generic", {"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ("generic", {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{(NOW + 30) * 1000:.0f}"}, 30.0),
        ("openai", {"ratelimit-remaining": "0", "ratelimit-reset": "30"}, None),
    ],
)
def test_a_used_up_window_says_when_it_opens(provider: Provider, headers: dict[str, str], wait: float | None) -> None:
    """The wait is the latest reset of the windows that are used up. Limits that refill evenly give no wait, since they
    allow something long before their reset.
    """
    assert window_reset_after(headers.get, provider, now) == wait


ODD = ["-1", "0", "nan", "inf", "1e999", "1e308", "٣", "1_000", "9" * 500, "1h1h", "12:", "µs", "1;w=0", "\x00"]
ODD_DATES = [
    "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
    "Jan +99999999999 1 12.30",
]
odd_text = st.text(max_size=12) | st.sampled_from(ODD + ODD_DATES)


@given(st.data())
def test_nothing_that_a_header_may_say_is_a_failure(data: st.DataObject) -> None:
    """Whatever text the headers hold, parsing them raises nothing and gives sane numbers."""
    drawn: dict[str, str | None] = {}

    def header(name: str) -> str | None:
        if name not in drawn:
            drawn[name] = data.draw(st.none() | odd_text | st.integers(0, 10**13).map(str), label=name)
        return drawn[name]

    for provider in PROVIDERS:
        for said in parse_rate_limits(header, provider, now):
            assert said.limit is not None or said.remaining is not None
            assert said.limit is None or 0 < said.limit < float("inf")
            assert said.remaining is None or 0 <= said.remaining < float("inf")
            assert said.reset_seconds is None or 0 <= said.reset_seconds <= LONGEST_SECONDS
        wait = window_reset_after(header, provider, now)
        assert wait is None or 0 < wait <= LONGEST_SECONDS


@pytest.mark.parametrize("provider", PROVIDERS)
def test_silence_costs_next_to_nothing(provider: Provider) -> None:
    """For an answer without limits, as most servers send, at most six headers are looked up."""
    asked: list[str] = []

    def header(name: str) -> None:
        asked.append(name)

    assert parse_rate_limits(header, provider, now) == ()
    assert 0 < len(asked) <= 6
