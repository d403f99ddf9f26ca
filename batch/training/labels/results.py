"""Makes labels from the results of earlier runs: judges several models' answers to the same prompts."""

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
    """A valid row of the input."""

    text: str
    """The prompt's text, as routers score it."""
    row: Mapping[str, Any]
    """The row's columns."""
    where: str
    """`<file>:<line>` of the row."""


def read_results(spec: ResultsDataSpec, key: str, judge: Judge) -> Labels:
    """Join results with their input by id, and judge each answer.

    A result that failed or has no text is left out, because it gives no label for its model. If a model answered a row
    several times, its quality is the mean.

    Args:
        key: the training file's key of this item of `data`, for messages.

    Raises:
        InputError: a file cannot be read, lacks a column or holds no results, no answer belongs to a row of the input,
            or no answer could be judged.
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
        raise InputError(
            f"{key}.runs: no answer belongs to a row of `input`; give the input of the job that made these results"
        )
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
    """Return the mean quality of each model's answers to each row, shape (ids, models); NaN if none was judged."""
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
    """Read the valid rows of the input, by id; of rows with the same id, the first."""
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
    """Yield each result's id and answer, or only its id if it has no answer.

    Yields `None` for a result whose id no row of the input has.
    """
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
    """Return the result files of a run directory; any other path is returned as it is."""
    if "://" in path or not is_run_directory(Path(path)):
        return [path]
    parts = sorted(Path(path, "output").glob("part-*"))
    found = [str(part) for part in parts if part.suffix in (".jsonl", ".parquet") and ".errors" not in part.suffixes]
    if not found:
        raise InputError(f"{path}: this run directory holds no results yet; `batchrouter status` shows its progress")
    return found
