"""What each case of an input must show: claims about what the commands printed and what requests were sent.

A function here has the name of its case, runs it, and returns the claims that do not hold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.field.outcome import Case, Command, failed_claims

Verdict = Sequence[str]
"""The claims that do not hold; empty if the case behaves as it should."""


def _message(recorded: tuple[str, dict[str, Any]], role: str) -> str | None:
    """The text of the request's first message of this role."""
    return next((m["content"] for m in recorded[1].get("messages", ()) if m["role"] == role), None)


def _all_ok(case: Case, rows: int, *settings: str) -> Verdict:
    """Claim that `check`, `estimate` and `run` accept every row, and that `run` answers all `rows` rows."""
    case.settings += settings
    check, estimate, run = case.command("check"), case.command("estimate"), case.run()
    return failed_claims(
        (check.status == 0, f"check ends with {check.status}"),
        (estimate.status == 0, f"estimate ends with {estimate.status}"),
        (run.status == 0, f"run ends with {run.status}: {run.output[-300:]}"),
        (case.statuses() == {"ok": rows}, f"rows: {case.statuses()}, not {rows} ok"),
    )


def _refused(case: Case, *words: str) -> Verdict:
    """Claim that all three commands refuse the job in one line with these words and exit status 2, and send nothing."""
    found: list[str] = []
    for name in ("check", "estimate", "run"):
        ended: Command = case.run() if name == "run" else case.command(name)
        found += failed_claims(
            (ended.status == 2, f"{name} ends with {ended.status}"),
            (len(ended.refusals) == 1, f"{name} refuses in {len(ended.refusals)} lines"),
            *((word.lower() in ended.output.lower(), f"{name} does not say {word!r}") for word in words),
        )
    return [*found, *failed_claims((not case.recorded, f"{len(case.recorded)} requests were sent"))]


def anthropic_batch_lines(case: Case) -> Verdict:
    found = [*_all_ok(case, 1, "input.row_models=ignore")]
    if case.recorded:
        (sent,) = case.recorded
        found += failed_claims(
            (_message(sent, "system") == "Be terse.", "the system prompt is not sent"),
            (sent[1].get("max_tokens") == 50, "max_tokens is not sent"),
        )
    return found


def azure_batch_url(case: Case) -> Verdict:
    return [*_all_ok(case, 1), *_paths(case, "/v1/chat/completions")]


def batch_lines_without_url(case: Case) -> Verdict:
    return [*_all_ok(case, 2), *_paths(case, "/v1/chat/completions")]


def _paths(case: Case, path: str) -> Verdict:
    asked = {sent[0] for sent in case.recorded}
    return failed_claims((asked == {path}, f"asked {asked}, not {path}"))


def check_all_rows_invalid(case: Case) -> Verdict:
    return _refused(case, "samples.jsonl", "git lfs")


def check_misses_duplicate_ids(case: Case) -> Verdict:
    """Without `input.id_column` the ids are an ordinary column; with it, all three commands count repeated ids."""
    found = [*_all_ok(case, 3)]
    case.settings += ("input.id_column=id",)
    check, estimate, run = case.command("check"), case.command("estimate"), case.run()
    found += failed_claims(
        (check.status == 1, f"with id_column, check ends with {check.status}"),
        (estimate.status == 1, f"with id_column, estimate ends with {estimate.status}"),
        (run.status == 1, f"with id_column, run ends with {run.status}"),
        (case.statuses() == {"ok": 1, "invalid": 2}, f"with id_column, rows: {case.statuses()}"),
        ("p.jsonl:2" in check.output and "id" in check.output, "check does not name the place of the second id"),
    )
    return found


def conversations_as_prompt(case: Case) -> Verdict:
    found = [*_all_ok(case, 1)]
    return [
        *found,
        *failed_claims((bool(case.recorded) and _message(case.recorded[0], "user") == "sky?", "not sent as a chat")),
    ]


def csv_broken_record_fragments(case: Case) -> Verdict:
    run = case.run()
    sent = [_message(one, "user") or "" for one in case.recorded]
    rows = len(case.rows())
    found = failed_claims(
        (not any("and he said" in text and "She asked" not in text for text in sent), "a fragment was sent"),
        (run.status == 2 or rows == 3, f"{rows} rows for three records"),
        (run.status != 2 or len(run.refusals) == 1, "the refusal has several lines"),
    )
    case.settings += ("input.csv.escape='\\'",)
    return [*found, *_all_ok(case, 3)]


def csv_headerless(case: Case) -> Verdict:
    found = _refused(case, "columns", "header")
    return [*found, *_all_ok(case, 2, "input.csv.columns=[question, a, b, c, d, answer]")]


def csv_open_quote_swallows(case: Case) -> Verdict:
    run = case.run()
    if run.status == 2:
        return _refused(case, "q.csv", "2", "quote")
    return failed_claims((len(case.rows()) == 200, f"{len(case.rows())} rows for 200 records"))


def csv_trailing_commas(case: Case) -> Verdict:
    return _all_ok(case, 2)


def embedding_row_dimensions(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    bodies = [body for _, body in case.recorded]
    return [
        *found,
        *failed_claims(
            (all(body.get("dimensions") == 256 for body in bodies), "dimensions are not sent"),
            (any(body.get("encoding_format") == "float" for body in bodies), "encoding_format is not sent"),
        ),
    ]


def hive_partition_column_lost(case: Case) -> Verdict:
    found = [*_all_ok(case, len(case.rows()) or 2)]
    sent = {(_message(one, "user") or "")[:6] for one in case.recorded}
    carried = {row.get("lang") for row in case.rows()}
    return failed_claims(
        (sent == {"In en:", "In fi:"}, f"prompts begin with {sent}"),
        (carried == {"en", "fi"}, f"lang is carried as {carried}"),
    ) or [line for line in found if "rows:" not in line]


def input_column_becomes_embeddings(case: Case) -> Verdict:
    ended = case.run()
    embedded = [path for path, _ in case.recorded if path.endswith("/embeddings")]
    return failed_claims(
        (ended.status == 2 or not embedded, "rows are embeddings without being asked"),
        (ended.status != 2 or "input.prompt" in ended.output, "the refusal does not name input.prompt"),
    )


def jsonl_bigint_lossy(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    rows = case.rows()
    if len(rows) != 2:
        return found
    return [
        *found,
        *failed_claims(
            (rows[0]["id"] == "123456789012345678901234567890", f"id {rows[0]['id']}"),
            (str(rows[0].get("n")) == "18446744073709551617", f"n {rows[0].get('n')}"),
            (str(rows[1].get("n")) == "-9223372036854775809", f"n {rows[1].get('n')}"),
        ),
    ]


def parquet_ns_timestamp(case: Case) -> Verdict:
    found = [*_all_ok(case, 3)]
    carried = str(case.rows()[0].get("created")) if case.rows() else ""
    return [
        *found,
        *failed_claims(("20:13:20.123456717" in carried or "22:13:20.123456717" in carried, f"carried {carried}")),
    ]


def prompt_brace_hint(case: Case) -> Verdict:
    return _refused(case, "{{")


def prompt_row_own_params(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    for _, body in case.recorded:
        own = {key: body.get(key) for key in ("max_tokens", "temperature", "stop")}
        found += failed_claims((own == {"max_tokens": 5, "temperature": 0, "stop": ["\n"]}, f"sent with {own}"))
    return found


def responses_lines(case: Case) -> Verdict:
    found = [*_all_ok(case, 1), *_paths(case, "/v1/responses")]
    content = case.rows()[0]["content"] if case.rows() else None
    return [*found, *failed_claims((content == "ok", f"content is {content!r}"))]


def row_system_dropped(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    systems = {_message(sent, "system") for sent in case.recorded}
    return [
        *found,
        *failed_claims((systems == {"Answer in one word.", "Answer in French."}, f"system messages {systems}")),
    ]


system_template_literal = row_system_dropped


def template_list_column(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    case.settings += ("input.prompt='{turns[0]}'",)
    case.run()
    sent = {_message(one, "user") for one in case.recorded}
    return [*found, *failed_claims((sent == {"Write about lakes.", "What is 3*7?"}, f"with {{turns[0]}}: {sent}"))]


def template_null_column(case: Case) -> Verdict:
    run = case.run()
    found = failed_claims(
        (run.status == 1, f"run ends with {run.status}"),
        ("context?" in run.output or "context?" in str(case.rows()), "nothing says that {context?} is optional"),
    )
    case.settings += ("input.prompt='{instruction} {context?}'",)
    return [*found, *_all_ok(case, 2)]


def token_ids(case: Case) -> Verdict:
    found = [*_all_ok(case, 2)]
    bodies = dict(case.recorded)
    return [
        *found,
        *failed_claims(
            (bodies.get("/v1/completions", {}).get("prompt") == [1, 15043, 3186], "the prompt's ids are not sent"),
            (bodies.get("/v1/embeddings", {}).get("input") == [[1, 2], [3]], "the input's ids are not sent"),
        ),
    ]


def unasked_id_not_unique(case: Case) -> Verdict:
    found = [*_all_ok(case, 3)]
    ids = [row["id"] for row in case.rows()]
    run = case.run()
    return [
        *found,
        *failed_claims(
            (len(set(ids)) == 3, f"ids {ids}"),
            (any("id" in line and "repeat" in line for line in run.lines), "nothing says that the ids repeat"),
        ),
    ]


def utf16_file(case: Case) -> Verdict:
    run = case.run()
    return _refused(case, "q.csv", "utf-16") if run.status == 2 else _all_ok(case, 2)


_CLAIMS: tuple[Callable[[Case], Verdict], ...] = (
    anthropic_batch_lines,
    azure_batch_url,
    batch_lines_without_url,
    check_all_rows_invalid,
    check_misses_duplicate_ids,
    conversations_as_prompt,
    csv_broken_record_fragments,
    csv_headerless,
    csv_open_quote_swallows,
    csv_trailing_commas,
    embedding_row_dimensions,
    hive_partition_column_lost,
    input_column_becomes_embeddings,
    jsonl_bigint_lossy,
    parquet_ns_timestamp,
    prompt_brace_hint,
    prompt_row_own_params,
    responses_lines,
    row_system_dropped,
    template_list_column,
    template_null_column,
    token_ids,
    unasked_id_not_unique,
    utf16_file,
)
INPUTS: Mapping[str, Callable[[Case], Verdict]] = {
    **{claim.__name__.replace("_", "-"): claim for claim in _CLAIMS},
    "system-template-literal": system_template_literal,
}
"""The function that runs and judges each case, by the case's name."""
