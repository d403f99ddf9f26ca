"""What each case of an endpoint must show: claims about the results, the report and what the server counted.

A function here has the name of its case, runs it, and returns the claims that do not hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from benchmarks.field.inputs import Verdict
from benchmarks.field.outcome import Case, Command, failed_claims


def _run_ended_with(case: Case, run: Command, status: int, counts: Mapping[str, int], most_seconds: float) -> list[str]:
    """Claim that the run ended with this exit status within this time, with these counts of rows by status."""
    found = case.statuses()
    return [
        *failed_claims(
            (run.status == status, f"run ends with {run.status}, not {status}"),
            (found == dict(counts), f"rows: {found}, not {dict(counts)}"),
            (run.seconds <= most_seconds, f"took {run.seconds:.0f} s"),
        )
    ]


def _errors(case: Case) -> str:
    """The errors of all rows, joined by spaces."""
    return " ".join(str(row["error"]) for row in case.rows() if row["error"])


def _cost(case: Case) -> Decimal:
    """The run's cost in dollars, as the report gives it."""
    return Decimal(str(case.report().get("cost_usd") or 0))


def anthropic_400_no_credit(case: Case) -> Verdict:
    run = case.run()
    found = case.statuses()
    return failed_claims(
        (run.status in (1, 3), f"run ends with {run.status}"),
        (found.get("ok") == 20, f"rows: {found}, not 20 ok"),
        (found.get("failed", 0) == 0, f"{found.get('failed')} rows are burnt as failed"),
        (case.stats["400"] <= 40, f"{case.stats['400']} refused requests"),
        ("credit balance" in run.output, "the server's words are not printed"),
    )


def azure_classic_url(case: Case) -> Verdict:
    check, run = case.command("check"), case.run()
    return [
        *failed_claims((check.status == 0, f"check ends with {check.status}")),
        *_run_ended_with(case, run, 0, {"ok": 3}, 20),
    ]


def bad_answer_overspends_budget(case: Case) -> Verdict:
    run = case.run()
    billed = Decimal(case.stats["billed_usd_x1000"]) / 1000
    return failed_claims(
        (run.status == 1, f"run ends with {run.status}"),
        (billed <= Decimal("0.03"), f"${billed} billed under a budget of $0.03"),
        (billed <= _cost(case) <= Decimal("0.031"), f"${_cost(case)} reported, ${billed} billed"),
        (run.seconds < 30, f"took {run.seconds:.0f} s"),
    )


def gemini_embed_index_zero_omitted(case: Case) -> Verdict:
    run = case.run()
    billed = Decimal(4 * case.stats["inputs"]) / 1_000_000
    vectors = [row["response"]["data"][0]["embedding"][0] for row in case.rows() if row["status"] == "ok"]
    return [
        *_run_ended_with(case, run, 0, {"ok": 640}, 30),
        *failed_claims(
            (_cost(case) == billed, f"${_cost(case)} reported, ${billed} billed"),
            (vectors == [float(n) for n in range(640)], "vectors went to other rows"),
        ),
    ]


def gemini_empty_choices(case: Case) -> Verdict:
    run = case.run()
    billed = Decimal(10 * case.stats["empty"] + 15 * 90) / 1_000_000
    return [
        *_run_ended_with(case, run, 1, {"ok": 90, "failed": 10}, 30),
        *failed_claims(
            (case.stats["empty"] <= 20, f"{case.stats['empty']} requests for 10 blocked rows"),
            (_cost(case) == billed, f"${_cost(case)} reported, ${billed} billed"),
            ("choices" in _errors(case), f"errors say {_errors(case)[:100]}"),
        ),
    ]


def groq_413_too_large(case: Case) -> Verdict:
    run = case.run()
    return [
        *_run_ended_with(case, run, 1, {"ok": 19, "failed": 1}, 60),
        *failed_claims(("Request too large" in _errors(case), f"errors say {_errors(case)[:100]}")),
    ]


def groq_498(case: Case) -> Verdict:
    return _run_ended_with(case, case.run(), 0, {"ok": 30}, 60)


def hf_503_loading(case: Case) -> Verdict:
    return _run_ended_with(case, case.run("--limit", "1"), 0, {"ok": 1}, 100)


def mistral_content_list(case: Case) -> Verdict:
    run = case.run()
    contents = {row["content"] for row in case.rows()}
    return [
        *_run_ended_with(case, run, 0, {"ok": 3}, 20),
        *failed_claims((contents == {"The answer is 4."}, f"content {contents}")),
    ]


def nan_logprobs(case: Case) -> Verdict:
    run = case.run()
    asked = case.stats["requests"]
    return [*_run_ended_with(case, run, 0, {"ok": 4}, 20), *failed_claims((asked == 4, f"{asked} requests for 4 rows"))]


def ollama_404_model(case: Case) -> Verdict:
    run = case.run()
    return failed_claims(
        (run.status in (1, 3), f"run ends with {run.status}"),
        ("try pulling" in run.output, "the server's words are not printed"),
        ("try pulling" in str(case.report()), "the server's words are not in the report"),
        (case.statuses().get("failed", 0) == 0, f"rows: {case.statuses()}"),
        (run.seconds < 30, f"took {run.seconds:.0f} s"),
    )


def openai_max_tokens_400(case: Case) -> Verdict:
    run = case.run()
    said = run.output + str(case.report())
    return failed_claims(
        (run.status in (1, 3), f"run ends with {run.status}"),
        (case.stats["requests"] <= 30, f"{case.stats['requests']} requests for 50 rows that are all refused"),
        ("unsupported_parameter" in said, "the code is not said"),
        ("max_completion_tokens" in said, "the server's words are not said"),
        (run.seconds < 30, f"took {run.seconds:.0f} s"),
    )


def openrouter_200_error_429(case: Case) -> Verdict:
    run = case.run()
    refused = case.stats.get("refused", 0)
    return [
        *_run_ended_with(case, run, 0, {"ok": 200}, 75),
        *failed_claims((refused <= 30, f"{refused} refusals")),
    ]


def openrouter_402_in_flight(case: Case) -> Verdict:
    return _run_ended_with(case, case.run(), 0, {"ok": 60}, 60)


def openrouter_404_one_row(case: Case) -> Verdict:
    run = case.run()
    return [
        *_run_ended_with(case, run, 1, {"ok": 99, "failed": 1}, 30),
        *failed_claims(
            ("No endpoints found that support image input" in _errors(case), f"errors say {_errors(case)[:100]}")
        ),
    ]


def openrouter_choice_error(case: Case) -> Verdict:
    run = case.run()
    contents = {row["content"] for row in case.rows() if row["status"] == "ok"}
    return failed_claims(
        (run.status in (0, 1), f"run ends with {run.status}"),
        (contents == {"The answer is 42."}, f"ok rows hold {contents}"),
        (run.status == 0 or "Provider disconnected" in _errors(case), f"errors say {_errors(case)[:100]}"),
        (run.seconds < 30, f"took {run.seconds:.0f} s"),
    )


def reasoning_tokens_billed(case: Case) -> Verdict:
    run = case.run()
    costs = {Decimal(str(row["cost_usd"])) for row in case.rows()}
    return [
        *failed_claims((run.status == 0, f"run ends with {run.status}")),
        *failed_claims((costs == {Decimal("0.000515")}, f"{costs}")),
    ]


def retry_after_two_days(case: Case) -> Verdict:
    run = case.run()
    return failed_claims(
        (run.status == 3, f"run ends with {run.status}"),
        (run.seconds < 60, f"took {run.seconds:.0f} s"),
        ("Monthly usage limit" in run.output, "the server's words are not printed"),
        ("2 d" in run.output, f"how long is not said: {run.output[-300:]}"),
    )


def row_specific_500(case: Case) -> Verdict:
    return _run_ended_with(case, case.run(), 1, {"ok": 180, "failed": 20}, 60)


def sse_unless_stream_false(case: Case) -> Verdict:
    run = case.run()
    asked = case.stats["requests"]
    return [*_run_ended_with(case, run, 0, {"ok": 3}, 20), *failed_claims((asked == 3, f"{asked} requests for 3 rows"))]


def tgi_424(case: Case) -> Verdict:
    return _run_ended_with(case, case.run(), 0, {"ok": 20}, 60)


def two_keys_one_url(case: Case) -> Verdict:
    run = case.run()
    keys = [name for name in case.stats if name.startswith("auth=Bearer key-")]
    return [
        *failed_claims((run.status == 0, f"run ends with {run.status}: {run.output[-200:]}")),
        *failed_claims((len(keys) == 2, f"keys used: {keys}")),
    ]


def waf_403_one_row(case: Case) -> Verdict:
    run = case.run()
    return [
        *_run_ended_with(case, run, 1, {"ok": 99, "failed": 1}, 30),
        *failed_claims(("403" in _errors(case), f"errors say {_errors(case)[:100]}")),
    ]


@dataclass(frozen=True)
class EndpointClaim:
    """How to run and judge a case."""

    verdict: Callable[[Case], Verdict]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the case's server and of the program."""
    variant: str = ""
    """Printed after the case's name, if a case is run in several ways."""


_CLAIMS = [
    EndpointClaim(anthropic_400_no_credit),
    EndpointClaim(azure_classic_url, {"AZ_KEY": "azure-key-0123456789"}),
    EndpointClaim(bad_answer_overspends_budget),
    EndpointClaim(gemini_embed_index_zero_omitted),
    EndpointClaim(gemini_empty_choices),
    EndpointClaim(groq_413_too_large),
    EndpointClaim(groq_413_too_large, {"STATUS": "429"}, "as 429"),
    EndpointClaim(groq_498),
    EndpointClaim(hf_503_loading),
    EndpointClaim(mistral_content_list),
    EndpointClaim(nan_logprobs),
    EndpointClaim(ollama_404_model),
    EndpointClaim(openai_max_tokens_400),
    EndpointClaim(openrouter_200_error_429),
    EndpointClaim(openrouter_402_in_flight),
    EndpointClaim(openrouter_404_one_row),
    EndpointClaim(openrouter_choice_error),
    EndpointClaim(reasoning_tokens_billed),
    EndpointClaim(retry_after_two_days),
    EndpointClaim(row_specific_500),
    EndpointClaim(sse_unless_stream_false),
    EndpointClaim(tgi_424),
    EndpointClaim(two_keys_one_url, {"KEY_A": "key-a-0123456789abc", "KEY_B": "key-b-0123456789abc"}),
    EndpointClaim(waf_403_one_row),
]


def endpoint_claims(name: str) -> list[EndpointClaim]:
    """The ways in which the case of this name is run and judged; empty if there are no claims about it yet."""
    return [claim for claim in _CLAIMS if claim.verdict.__name__.replace("_", "-") == name]
