"""Labels from the results of earlier runs: several models' answers to the same prompts, judged."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batch.errors import InputError
from batch.reading.column_checks import check_column
from batch.reading.invalid import InvalidRow
from batch.reading.labelled import default_name
from batch.reading.read import read_shard
from batch.reading.records import shard_records
from batch.reading.rows import read_files, read_rows
from batch.reading.shards import find_shards
from batch.runs.manifest import is_run_directory
from batch.training.data import Judged
from batch.training.labels.files import Labels
from batch.training.labels.judging import AnswerToJudge, Judge
from schemas.training import ExactJudgeSpec, ResultsDataSpec

_NEEDED = ("id", "status", "model", "content")


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A good row of the input."""

    text: str
    row: Mapping[str, Any]
    where: str


def read_results(spec: ResultsDataSpec, key: str, judge: Judge) -> Labels:
    """Join results with their input by id, and judge each answer.

    A row that failed, or that has no text, is no label for its model and is left out. Several answers of one model to
    one row count as their mean.

    Args:
        key: what the user calls this item of `data`, for messages.

    Raises:
        InputError: something cannot be read, does not belong together, or no answer could be judged.
        SpecError: the input's template or parameters cannot be used.
    """
    paths = [part for run in _listed(spec.runs) for part in _result_files(run)]
    files = (*read_files(spec.input.path, f"{key}.input.path"), *read_files(paths, f"{key}.runs"))
    prompts = _prompts(spec, key)
    answers, strangers, unanswered = [], 0, 0
    for answer in _answers(paths, key, prompts):
        if answer is None:
            strangers += 1
        elif isinstance(answer, str):
            unanswered += 1
        else:
            answers.append(answer)
    if not answers:
        raise InputError(f"{key}.runs: no answer in them belongs to a row of `input`; is it the input of that job?")
    quality = np.asarray(judge([answer for _, answer in answers]), dtype=np.float64)
    models = tuple(dict.fromkeys(answer.model for _, answer in answers))
    ids = tuple(dict.fromkeys(own for own, _ in answers))
    means = _means(ids, models, answers, quality)
    labelled = ~np.isnan(means).all(axis=1)
    if not labelled.any():
        raise InputError(f"{key}.judge: none of {len(answers)} answers could be judged")
    kept = [own for own, keep in zip(ids, labelled, strict=True) if keep]
    judged = Judged(
        spec.name or default_name(list(files)), [prompts[own].text for own in kept], models, means[labelled]
    )
    notes = []
    if strangers:
        notes.append(f"{strangers} results have an id that the input does not have; they are left out")
    if unjudged := int(np.isnan(quality).sum()):
        notes.append(f"{unjudged} of {len(answers)} answers could not be judged; they are left out")
    return Labels(spec.kind, judged, files, strangers + unanswered + unjudged, tuple(notes))


def _means(
    ids: Sequence[str],
    models: Sequence[str],
    answers: Sequence[tuple[str, AnswerToJudge]],
    quality: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any]:
    """Mean quality of each model's answers to each row, shape (ids, models); NaN if none was judged."""
    row_of = {own: row for row, own in enumerate(ids)}
    column_of = {model: column for column, model in enumerate(models)}
    total = np.zeros((len(ids), len(models)))
    count = np.zeros_like(total)
    for (own, answer), value in zip(answers, quality, strict=True):
        if value == value:
            total[row_of[own], column_of[answer.model]] += value
            count[row_of[own], column_of[answer.model]] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _prompts(spec: ResultsDataSpec, key: str) -> dict[str, _Prompt]:
    """The input's good rows by id."""
    found: dict[str, _Prompt] = {}
    with tempfile.TemporaryDirectory(prefix="batchrouter-") as spool:
        shards = find_shards(spec.input, Path(spool))
        if isinstance(spec.judge, ExactJudgeSpec):
            check_column(f"{key}.judge.column", spec.judge.column, shards)
        for shard in shards:
            table = read_shard(shard, spec.input, lambda texts: [0] * len(texts))
            rows = zip(table["id"].to_pylist(), table["text"].to_pylist(), shard_records(shard), strict=True)
            for own, text, (line, record) in rows:
                if text is not None and not isinstance(record, InvalidRow):
                    found.setdefault(own, _Prompt(text, record, f"{shard.name}:{line}"))
    return found


def _answers(
    paths: Sequence[str], key: str, prompts: Mapping[str, _Prompt]
) -> Iterator[tuple[str, AnswerToJudge] | str | None]:
    """Yield for each result its id and answer; only the id if it has no answer; `None` if the input lacks its id."""
    for where, record in read_rows(paths, f"{key}.runs", [(f"{key}.runs", "status")]):
        if any(column not in record for column in _NEEDED):
            lacking = ", ".join(column for column in _NEEDED if column not in record)
            raise InputError(f"{key}.runs: {where}: not a result of a run: it has no {lacking}")
        own, model, content = record["id"], record["model"], record["content"]
        prompt = prompts.get(str(own))
        if prompt is None:
            yield None
        elif record["status"] != "ok" or not isinstance(content, str) or not isinstance(model, str):
            yield str(own)
        else:
            yield str(own), AnswerToJudge(where, model, prompt.text, content, prompt.row, prompt.where)


def _listed(paths: str | Sequence[str]) -> Sequence[str]:
    return (paths,) if isinstance(paths, str) else paths


def _result_files(path: str) -> list[str]:
    """The result files of a run directory; any other path unchanged."""
    if "://" in path or not is_run_directory(Path(path)):
        return [path]
    parts = sorted(Path(path, "output").glob("part-*"))
    found = [str(part) for part in parts if part.suffix in (".jsonl", ".parquet") and ".errors" not in part.suffixes]
    if not found:
        raise InputError(f"{path}: this run directory holds no results yet; `batchrouter status` says where it stands")
    return found
