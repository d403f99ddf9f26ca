"""Reads benchmarks: RouteLLM's response files, tables of the same responses, and other labelled files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

import numpy as np

from batch.arrays import Floats
from batch.errors import InputError
from batch.evaluation.benchmark import FEW_PROMPTS, Benchmark, judged_only, priced
from batch.evaluation.routellm_files import is_routellm, read_csv_benchmark, read_judgements
from batch.reading.labelled import PromptReader, default_name, plain_number
from batch.reading.rows import Row, read_files, read_rows
from schemas.evaluation_spec import BenchmarkSpec, Gsm8kSpec, LabelledSpec, MmluSpec, MtBenchSpec

_RELAXED = (
    "of the strong model's 186 failures in GSM8K's labels, 119 are parsing errors of the grader; the relaxed labels "
    "repair them"
)
_ODD_SUBJECT = "high_school_mathematics"
_ODD = (
    f"MMLU's {_ODD_SUBJECT} was graded on one token, which the strong model rarely gave; MMLU is also measured without "
    "this subject"
)
_MT_BENCH = (
    "too few questions to compare routers: on 72 of them the APGR of random routers has a standard deviation of .066"
)


def read_benchmarks(spec: BenchmarkSpec, key: str, prices: Mapping[str, float]) -> list[Benchmark]:
    """Read the benchmark that the evaluation file calls `key`; returns several if it is measured in several ways.

    Raises:
        InputError: a file cannot be read or used; the message is one line.
        SpecError: a prompt template cannot be used.
    """
    match spec:
        case Gsm8kSpec():
            found = _gsm8k(spec, key)
        case MmluSpec():
            found = _mmlu(spec, key)
        case MtBenchSpec():
            found = [_mt_bench(spec, key)]
        case LabelledSpec():
            found = _labelled(spec, key)
        case _:
            assert_never(spec)
    return [_with_warnings(priced(judged_only(one), dict(prices))) for one in found]


def _with_warnings(benchmark: Benchmark) -> Benchmark:
    count = len(benchmark.prompts)
    few = f"only {count} prompt{'s' if count > 1 else ''}: intervals are wide"
    return replace(benchmark, notes=(*benchmark.notes, few)) if count < FEW_PROMPTS else benchmark


def _gsm8k(spec: Gsm8kSpec, key: str) -> list[Benchmark]:
    name = spec.name or spec.kind
    if is_routellm(spec.path, "gsm8k_responses.csv"):
        return [read_csv_benchmark(spec, key, name).benchmark]
    table = _Table(spec.path, key, "prompt", _pair("correct"), optional=_pair("correct_relaxed"))
    strict = table.benchmark(name, spec.models, _pair("correct"))
    if not table.has(_pair("correct_relaxed")):
        return [strict]
    relaxed = table.benchmark(f"{name} relaxed", spec.models, _pair("correct_relaxed"))
    return [replace(strict, notes=(_RELAXED,)), relaxed]


def _mmlu(spec: MmluSpec, key: str) -> list[Benchmark]:
    name = spec.name or spec.kind
    if is_routellm(spec.path, "mmlu_*.csv", "responses/mmlu_*.csv"):
        read = read_csv_benchmark(spec, key, name)
        whole, subjects = read.benchmark, read.subjects
    else:
        table = _Table(spec.path, key, "prompt", _pair("correct"), optional=["domain"])
        whole, subjects = table.benchmark(name, spec.models, _pair("correct")), table.texts("domain")
    odd = np.array([subject == _ODD_SUBJECT for subject in subjects])
    if not odd.any() or odd.all():
        return [whole]
    return [replace(whole, notes=(_ODD,)), whole.rows(~odd, f"{name} without {_ODD_SUBJECT}")]


def _mt_bench(spec: MtBenchSpec, key: str) -> Benchmark:
    name = spec.name or spec.kind
    if is_routellm(spec.path, "judgements.jsonl"):
        found = read_judgements(spec, key, name)
    else:
        table = _Table(spec.path, key, "turn1", _pair("score"))
        found = table.benchmark(name, spec.models, _pair("score"))
    return replace(found, grades=True, notes=(*found.notes, _MT_BENCH))


def _labelled(spec: LabelledSpec, key: str) -> list[Benchmark]:
    quality, costs = list(spec.quality.values()), [spec.costs[model] for model in spec.models if spec.costs]
    asked = {f"quality.{model}": column for model, column in spec.quality.items()}
    asked |= {f"costs.{model}": column for model, column in spec.costs.items()}
    asked |= {"by": spec.by} if spec.by is not None else {}
    table = _Table(spec.path, key, spec.prompt, [*quality, *costs], asked=asked, texts=[spec.by] if spec.by else [])
    whole = table.benchmark(spec.name or table.name, spec.models, quality, costs)
    known = whole.quality[np.isfinite(whole.quality)]
    whole = replace(whole, grades=bool(len(known)) and not (known.min() >= 0.0 and known.max() <= 1.0))
    if spec.by is None:
        return [whole]
    sets = np.array(table.texts(spec.by))
    # The rows with an empty set form a set too.
    return [
        whole.rows(sets == one, f"{whole.name} {one or f'without {spec.by}'}") for one in dict.fromkeys(sets.tolist())
    ]


def _pair(what: str) -> list[str]:
    """The two columns of a table of RouteLLM's responses that hold `what`, the weak model's first."""
    return [f"weak_{what}", f"strong_{what}"]


class _Table:
    """The prompts and some columns of labelled files."""

    def __init__(
        self,
        path: str | Sequence[str],
        key: str,
        prompt: str,
        numbers: Sequence[str],
        *,
        asked: Mapping[str, str] | None = None,
        optional: Sequence[str] = (),
        texts: Sequence[str] = (),
    ) -> None:
        """Read the files.

        Args:
            prompt: column of the prompt, or a template over columns.
            numbers: columns of numbers, each of which some row must have.
            asked: `numbers` and `texts` by the keys of the benchmark that name them, for messages; left out: `path`.
            optional: columns that no row needs to have.
            texts: columns of texts, each of which some row must have.
        """
        self._key = key
        files = read_files(path, f"{key}.path")
        self._files = tuple(file.sha256 for file in files)
        self.name = default_name(files)
        prompt_of = PromptReader(prompt, f"{key}.prompt")
        wanted = asked.items() if asked is not None else [("path", column) for column in (*numbers, *texts)]
        columns = [*prompt_of.columns, *((f"{key}.{by}", column) for by, column in wanted)]
        self._rows: list[Row] = []
        self._prompts: list[str] = []
        kept = dict.fromkeys((*numbers, *optional, *texts))
        for where, record in read_rows(path, f"{key}.path", columns):
            self._prompts.append(prompt_of(record, where))
            self._rows.append(Row(where, {column: record[column] for column in kept if column in record}))

    def has(self, columns: Sequence[str]) -> bool:
        """Does any row have all of these columns?"""
        return any(all(column in row.record for column in columns) for row in self._rows)

    def texts(self, column: str) -> list[str]:
        """The column's value in each row, as text; empty for a row without one."""
        return ["" if row.record.get(column) is None else str(row.record[column]) for row in self._rows]

    def benchmark(
        self, name: str, models: tuple[str, ...], quality: Sequence[str], costs: Sequence[str] = ()
    ) -> Benchmark:
        """Make a benchmark whose qualities and costs are in these columns, in the order of `models`.

        Raises InputError if one of their cells holds no number.
        """
        return Benchmark(
            name,
            self._prompts,
            models,
            self._numbers(quality),
            self._numbers(costs) if costs else None,
            files=self._files,
        )

    def _numbers(self, columns: Sequence[str]) -> Floats:
        return np.array([[self._number(row, column) for column in columns] for row in self._rows], dtype=np.float64)

    def _number(self, row: Row, column: str) -> float:
        number = plain_number(row.record.get(column))
        if number is None or np.isinf(number):
            raise InputError(f"{self._key}: {row.where}: column {column!r} holds neither a number, true nor false")
        return number
