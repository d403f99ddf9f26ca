"""Has a model grade answers. It does so as a job, so limits, retries, budget and resuming work as in any run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import nan
from pathlib import Path
from typing import Any

import orjson

from batch.errors import InputError, SpecError
from batch.reading.invalid import InvalidRow
from batch.reading.template import PromptTemplate
from batch.storage.atomic import read_bytes, write_bytes
from batch.training.labels.judging import AnswerToJudge, Extract, Judge, exact_judge, extractor, function_judge
from jobs.commands.run import run_job
from jobs.terminal.progress import ProgressDisplay
from schemas.job import InputSpec, JobSpec, OutputSpec
from schemas.plans import PinPlanSpec
from schemas.routers import ConstantRouterSpec
from schemas.training import ExactJudgeSpec, FunctionJudgeSpec, JudgeSpec, ModelJudgeSpec

_PROMPT = """\
Grade how well a response answers a request.

Request:
{{prompt}}

Response:
{{response}}

Say in one or two sentences what is right and what is wrong with the response. Then give your grade on a last line of
its own: a number from {lowest:g} (useless) to {highest:g} (as good as it can be), and nothing else.
"""

Replies = Mapping[str, str]
"""The judge's replies, by the hash of the request."""


def build_judge(spec: JudgeSpec, key: str, folder: Path, progress: ProgressDisplay | None = None) -> Judge:
    """Build a judge from its spec, which the user's file calls `key`; nothing is sent yet.

    Args:
        folder: keeps the requests to a judge model and its replies.

    Raises:
        SpecError: it names something that is not there, or cannot be used.
    """
    match spec:
        case ExactJudgeSpec():
            return exact_judge(spec, key)
        case FunctionJudgeSpec():
            return function_judge(spec, key)
        case ModelJudgeSpec():
            return model_judge(spec, key, folder, progress)


def model_judge(spec: ModelJudgeSpec, key: str, folder: Path, progress: ProgressDisplay | None = None) -> Judge:
    """Build a judge that asks a model to grade each answer; equal answers to equal prompts are graded once.

    Each call of the judge is a run in `folder`, which resumes if it stopped; answers that earlier calls graded are not
    sent again. An answer has no grade (NaN) if its request failed, or if the reply has none within the scale.

    Raises:
        SpecError: the template or `extract` cannot be used.
    """
    template = PromptTemplate(spec.prompt or _PROMPT.format(lowest=spec.lowest, highest=spec.highest), f"{key}.prompt")
    grade_in = extractor(spec.extract, f"{key}.extract")
    if "response" not in template.columns:
        raise SpecError(f"{key}.prompt: it has no {{response}}, so the judge would not see what it grades")

    def judge(answers: Sequence[AnswerToJudge]) -> list[float]:
        keys, asked = [], {}
        for answer in answers:
            text = _judge_prompt(template, answer, f"{key}.prompt")
            keys.append(blake2b(text.encode(), digest_size=16).hexdigest())
            asked[keys[-1]] = text
        said = _replies(spec, key, asked, folder / _identity(spec), progress)
        return [_grade(said.get(own), spec, grade_in) for own in keys]

    return judge


def _judge_prompt(template: PromptTemplate, answer: AnswerToJudge, key: str) -> str:
    """What the judge is sent about an answer. Raises InputError, which names the template by its `key` and the row."""
    try:
        return template.render({**answer.row, "prompt": answer.prompt, "response": answer.content})
    except InvalidRow as fault:
        raise InputError(f"{key}: {answer.row_where}: {fault.message}") from fault


def _identity(spec: ModelJudgeSpec) -> str:
    """A folder name that depends on everything, besides the prompt, that decides a reply."""
    asked = [endpoint.model for endpoint in spec.model.endpoints]
    whole = orjson.dumps([spec.model.name, asked, spec.params], option=orjson.OPT_SORT_KEYS)
    return blake2b(whole, digest_size=8).hexdigest()


def _replies(
    spec: ModelJudgeSpec, key: str, asked: Mapping[str, str], folder: Path, progress: ProgressDisplay | None
) -> Replies:
    known = dict(_said(folder))
    missing = sorted(own for own in asked if own not in known)
    if not missing:
        return known
    lines = b"".join(orjson.dumps({"id": own, "prompt": asked[own]}) + b"\n" for own in missing)
    # Named by its content, so that the same command finds the same run again and resumes it.
    prompts = folder / f"asked-{blake2b(lines, digest_size=8).hexdigest()}.jsonl"
    if read_bytes(prompts) != lines:
        write_bytes(prompts, lines)
    results = prompts.with_suffix(".results.jsonl")
    job = JobSpec(
        name="judging",
        engine="inline",
        input=InputSpec(path=str(prompts), params=spec.params, row_models="ignore"),
        router=ConstantRouterSpec(kind="constant"),
        models=(spec.model,),
        plan=PinPlanSpec(strategy="pin", model=spec.model.name),
        dispatch=spec.dispatch,
        output=OutputSpec(path=str(results)),
    )
    report = run_job(job, retry_failed=True, progress=progress)
    if not report.rows.ok:
        error = next((row["error"] for row in _rows(results) if row["error"]), None) or {"kind": "", "message": ""}
        raise SpecError(
            f"{key}: {spec.model.name} graded none of {len(missing)} answers; the first: {error['kind']}, "
            f"{error['message']}"
        )
    return dict(_said(folder))


def _said(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("asked-*.results.jsonl")):
        for row in _rows(path):
            if row["status"] == "ok" and isinstance(row["content"], str):
                yield row["id"], row["content"]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def _grade(reply: str | None, spec: ModelJudgeSpec, grade_in: Extract) -> float:
    # Many models write 8/10 when they are asked for a number such as 8.
    out_of = re.compile(rf"\s*(?:/|out of)\s*{re.escape(f'{spec.highest:g}')}\b")
    found = grade_in(out_of.sub("", reply)) if reply is not None else None
    try:
        grade = float(found) if found is not None else nan
    except ValueError:
        return nan
    return (grade - spec.lowest) / (spec.highest - spec.lowest) if spec.lowest <= grade <= spec.highest else nan
