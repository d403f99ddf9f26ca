"""Reads battles: which of two models' answers to a prompt was preferred, in the layout of the arena's data sets."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.arrays import Floats
from batch.errors import SpecError

BATTLE_FILES = (".parquet", ".csv", ".jsonl", ".json")

# The split that a file belongs to, if its path says so, by the rules of the library that the data sets were made for.
_TRAIN = re.compile(r"(^|[^a-z0-9])train(ing)?([^a-z0-9]|$)")
_OTHER_SPLIT = re.compile(
    r"(^|[^a-z0-9])(test|testing|eval|evaluation|dev|development|val|valid|validation)([^a-z0-9]|$)"
)

# RouteLLM leaves out shorter prompts, which are hardly questions.
MIN_CHARACTERS = 16
# Answers of both models are in one row; the default of 1 MiB is too small for some.
_CSV_BLOCK_BYTES = 32 << 20

_TEXTS = ("model_a", "model_b", "winner", "prompt")
_COLUMNS = (*_TEXTS, "winner_model_a", "winner_model_b")
_OUTCOMES = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5}

BattleRow = dict[str, Any]


@dataclass(frozen=True)
class Battles:
    """Battles in the order of their files."""

    first: list[str]
    """A model's name for each battle."""
    second: list[str]
    """The other model's."""
    outcome: Floats
    """Shape (battles,): 1 where the first was preferred, 0 where the second was, one half for a tie."""
    long_enough: NDArray[np.bool_]
    """Shape (battles,): has the prompt's first turn at least 16 characters?"""


def data_files(place: Path, kinds: Sequence[str], key: str) -> list[Path]:
    """Return the files of the training split in a folder, sorted by path, or the one file that `place` is.

    A file belongs to a split by a word in its path, as `data/train-00000-of-00002.parquet` does; where no path has
    such a word, all files are for training. Hidden files do not count.

    Args:
        kinds: extensions, each with its dot.
        key: of the job file, for messages.

    Raises:
        SpecError: there is none.
    """
    if place.is_file():
        if place.suffix.lower() not in kinds:
            raise SpecError(f"{key}: {place} is of an unknown kind; give {', '.join(kinds)}")
        return [place]
    inside = {path.relative_to(place).as_posix().lower(): path for path in sorted(place.rglob("*"))}
    data = {
        name: path
        for name, path in inside.items()
        if path.suffix.lower() in kinds and path.is_file() and not any(p.startswith(".") for p in name.split("/"))
    }
    training = [path for name, path in data.items() if _TRAIN.search(name)]
    found = training or [path for name, path in data.items() if not _OTHER_SPLIT.search(name)]
    if not found:
        raise SpecError(f"{key}: no {', '.join(kinds)} of a training split in {place}")
    return found


def read_battles(files: Sequence[Path], key: str) -> Battles:
    """Read `model_a`, `model_b`, who won, and the prompt's length where there are prompts.

    The winner is `winner_model_a` and `winner_model_b`, 0 or 1 each, or `winner`, one of `model_a`, `model_b`, `tie`
    and `tie (bothbad)`. A `prompt` is a JSON list of turns or the one turn itself; without the column, every
    battle is long enough. Raises SpecError, naming the file and its row, counted from 1, for anything else.
    """
    first, second, outcome, long_enough = [], [], [], []
    for path in files:
        with reading_errors_named(path, key):
            for number, row in enumerate(_rows(path), 1):
                where = f"{key}: {path}: row {number}"
                first.append(_model(row, "model_a", where))
                second.append(_model(row, "model_b", where))
                outcome.append(_outcome(row, where))
                long_enough.append("prompt" not in row or len(_first_turn(row, where)) >= MIN_CHARACTERS)
    return Battles(first, second, np.array(outcome, dtype=np.float64), np.array(long_enough, dtype=np.bool_))


@contextmanager
def reading_errors_named(path: Path, key: str) -> Iterator[None]:
    """Turn an error of reading a file into a SpecError of one line that names the key and the file."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SpecError(f"{key}: {path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def json_rows(path: Path) -> Iterator[BattleRow]:
    """Yield the rows of a JSON array or of JSON lines. Raises ValueError for anything else."""
    with path.open(encoding="utf-8") as file:
        start = file.read(1)
        file.seek(0)
        # Not orjson: prompts of the arena hold halves of surrogate pairs, which it refuses.
        rows = json.load(file) if start == "[" else (json.loads(line) for line in file if line.strip())
        for row in rows:
            if not isinstance(row, dict):
                raise ValueError(f"a row is {type(row).__name__}, not an object")  # noqa: TRY004 - as for all files
            yield row


def _rows(path: Path) -> Iterator[BattleRow]:
    if path.suffix.lower() in (".jsonl", ".json"):
        yield from json_rows(path)
    elif path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
    else:
        yield from _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[BattleRow]:
    reading = {
        "read_options": pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
    }
    with pa.csv.open_csv(path, **reading) as file:
        columns = [name for name in _COLUMNS if name in file.schema.names]
    wanted = pa.csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(_TEXTS, pa.string()))
    with pa.csv.open_csv(path, **reading, convert_options=wanted) as file:
        for batch in file:
            yield from batch.to_pylist()


def _model(row: BattleRow, column: str, where: str) -> str:
    name = row.get(column)
    if not isinstance(name, str) or not name:
        raise SpecError(f"{where}: `{column}` must name a model, not {name!r}")
    return name


def _outcome(row: BattleRow, where: str) -> float:
    if "winner_model_a" in row and "winner_model_b" in row:
        if row["winner_model_a"] == 1:
            return 1.0
        return 0.0 if row["winner_model_b"] == 1 else 0.5
    winner = row.get("winner")
    if winner not in _OUTCOMES:
        known = ", ".join(_OUTCOMES)
        raise SpecError(f"{where}: give winner_model_a and winner_model_b, or `winner` as one of {known}")
    return _OUTCOMES[winner]


def _first_turn(row: BattleRow, where: str) -> str:
    prompt = row["prompt"]
    turns = prompt
    if isinstance(prompt, str):
        if not prompt.lstrip().startswith("["):
            return prompt.strip()
        try:
            turns = json.loads(prompt)
        except ValueError:
            return prompt.strip()
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
        raise SpecError(f"{where}: `prompt` must be a text or a list of turns")
    return turns[0].strip()
