"""Reads RouteLLM's response files as its repository has them, and leaves out contaminated prompts as it does."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from batch.errors import InputError
from batch.evaluation.benchmark import Benchmark
from batch.reading.labelled import plain_number
from schemas.evaluation_spec import Gsm8kSpec, MmluSpec, MtBenchSpec

_CONTAMINATED = "contaminated_prompts.jsonl"


@dataclass(frozen=True)
class Responses:
    """A benchmark of response files."""

    benchmark: Benchmark
    """The benchmark."""
    subjects: list[str]
    """Of each prompt, the name of its file after `mmlu_`."""


def is_routellm(path: str | tuple[str, ...], *names: str) -> bool:
    """Is `path` a folder with files of such names, or such a file itself?"""
    if not isinstance(path, str) or "://" in path:
        return False
    place = Path(path)
    if place.is_dir():
        return any(next(iter(place.glob(name)), None) is not None for name in names)
    return any(place.match(name) for name in names)


def read_csv_benchmark(spec: Gsm8kSpec | MmluSpec, key: str, name: str) -> Responses:
    """Read CSV files with a prompt and, in a column of each model's name, whether it answered right.

    Raises InputError for a file that cannot be read and a column that is not there.
    """
    place = Path(str(spec.path))
    files = [place] if place.is_file() else _files(place, spec)
    contaminated = _contaminated(files[0].parent)
    prompts: list[str] = []
    subjects: list[str] = []
    quality: list[list[float]] = []
    digests = []
    for file in files:
        data = _read(file, key)
        digests.append(sha256(data).hexdigest())
        for number, record in enumerate(_records(data, file, key), 1):
            where = f"{key}: {file.name}, record {number}"
            if _cell(record, "prompt", where, key) in contaminated:
                continue
            prompts.append(record["prompt"])
            subjects.append(file.stem.removeprefix("mmlu_"))
            quality.append([_number(_cell(record, model, where, key), model, where) for model in spec.models])
    if not prompts:
        raise InputError(f"{key}.path: {place} holds no prompt")
    return Responses(Benchmark(name, prompts, spec.models, np.array(quality), files=tuple(digests)), subjects)


def read_judgements(spec: MtBenchSpec, key: str, name: str) -> Benchmark:
    """Read MT-Bench's questions and judgements: the mean grade of both turns, the first turn as prompt.

    Raises InputError for a file that cannot be read and a question without a judgement of both models.
    """
    place = Path(str(spec.path))
    folder = place if place.is_dir() else place.parent
    grades: dict[tuple[Any, str], list[float]] = defaultdict(list)
    for record in _lines(folder / "judgements.jsonl", key):
        grades[record.get("question_id"), str(record.get("model"))].append(_grade(record.get("score")))
    contaminated = _contaminated(folder)
    prompts: list[str] = []
    quality: list[list[float]] = []
    for record in _lines(folder / "question.jsonl", key):
        turns = record.get("turns") or [""]
        if not contaminated.isdisjoint(turns):
            continue
        row = [grades.get((record.get("question_id"), model), []) for model in spec.models]
        if not all(row):
            missing = spec.models[[bool(one) for one in row].index(False)]
            raise InputError(
                f"{key}: judgements.jsonl has no grade of {missing!r} for question {record['question_id']}"
            )
        prompts.append(turns[0])
        quality.append([float(np.mean(one)) for one in row])
    digest = sha256(_read(folder / "judgements.jsonl", key)).hexdigest()
    return Benchmark(name, prompts, spec.models, np.array(quality), grades=True, files=(digest,))


def _files(folder: Path, spec: Gsm8kSpec | MmluSpec) -> list[Path]:
    if isinstance(spec, Gsm8kSpec):
        return [folder / "gsm8k_responses.csv"]
    return sorted(folder.glob("mmlu_*.csv")) or sorted(folder.glob("responses/mmlu_*.csv"))


def _contaminated(folder: Path) -> frozenset[str]:
    """Prompts that a training set contains; their list is beside the files, or in the folder above."""
    listed = next((at / _CONTAMINATED for at in (folder, folder.parent) if (at / _CONTAMINATED).is_file()), None)
    if listed is None:
        return frozenset()
    return frozenset(str(record.get("eval_prompt")) for record in _lines(listed, "contaminated prompts"))


def _lines(file: Path, key: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read(file, key).splitlines(), 1):
        try:
            record = orjson.loads(line) if line.strip() else {}
        except orjson.JSONDecodeError as error:
            raise InputError(f"{key}: {file.name}:{number}: not JSON: {error.msg}") from error
        if record:
            yield record


def _records(data: bytes, file: Path, key: str) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(io.StringIO(data.decode(), newline=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{key}: {file.name}: not a CSV file in UTF-8: {error}") from error


def _read(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{key}.path: cannot read {file}: {error.strerror}") from error


def _cell(record: dict[str, str], column: str, where: str, key: str) -> str:
    if record.get(column) is None:
        known = ", ".join(name for name in record if name and not name.endswith("_response"))
        raise InputError(f"{where}: no column {column!r}; {key} names models as the files do: {known}")
    return record[column]


def _number(cell: str, model: str, where: str) -> float:
    number = plain_number(cell)
    if number is None:
        raise InputError(f"{where}: column {model!r} holds neither a number, true nor false")
    return number


def _grade(value: Any) -> float:
    # The judge's failures are written as -1.
    return float(value) if isinstance(value, int | float) and value >= 0 else nan
