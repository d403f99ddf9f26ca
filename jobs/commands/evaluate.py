"""`evaluate`: measures routers on judged answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from re import sub

from batch.arrays import Floats
from batch.dispatch.snapshot import ProgressSnapshot
from batch.environment import Environment, SpendingRecord
from batch.errors import SpecError
from batch.evaluation.benchmark import Benchmark
from batch.evaluation.figures import measure
from batch.evaluation.reading import read_benchmarks
from batch.evaluation.scores import ScoringSettings, score_prompts, trained_on
from batch.storage.atomic import write_bytes
from batch.storage.atomic_folder import check_folder_writable
from jobs.commands.spending import embeddings_spent
from jobs.environment import key, set_library_defaults, wall_clock
from jobs.resolve import resolve_embedder
from jobs.terminal.plots import plot_benchmark
from jobs.terminal.progress import ProgressDisplay
from schemas.embedders import EndpointEmbedderSpec
from schemas.evaluation_report import BenchmarkFigures, Evaluation
from schemas.evaluation_spec import EvalSpec
from schemas.routers import EmbeddingRouterSpec, RouterSpec, RulesRouterSpec

REPORT = "evaluation.json"

_IN_SAMPLE = "it was trained on this very file, so its figures are better than they will be elsewhere"
_BLIND_RULES = "rules see the prompt only: those about other columns never hold here"


def evaluate_routers(spec: EvalSpec, *, progress: ProgressDisplay | None = None) -> Evaluation:
    """Measure every router on every benchmark; write `evaluation.json` and a plot per benchmark into `spec.output`.

    If a router cannot be built here, the report names it with the reason, and the others are measured.

    Args:
        progress: shows how far scoring is.

    Raises:
        SpecError: a benchmark cannot be read, or no router can be built.
        EmbedderError: a router's embedder cannot be reached; the scores so far are kept, and the same command resumes.
        StorageError: something cannot be written.
    """
    set_library_defaults()
    check_folder_writable(Path(spec.output))
    benchmarks = [
        found
        for place, one in enumerate(spec.benchmarks)
        for found in read_benchmarks(one, f"benchmarks.{place}", spec.prices)
    ]
    cache = Path(spec.cache) if spec.cache is not None else Path(spec.output) / "cache"
    work = _Work(benchmarks, cache, spec.seed, progress)
    for name, router in spec.routers.items():
        work.score(name, router)
    if not work.predicted:
        raise SpecError("\n".join(f"routers.{name}: {reason}" for name, reason in work.refused.items()))
    if progress is not None:
        progress.stage("measuring")
    pictures = list(_names(benchmarks))
    found = Evaluation(
        benchmarks=tuple(
            work.figures(at, bootstrap=spec.bootstrap, plot=pictures[at].name) for at in range(len(benchmarks))
        ),
        not_evaluated=work.refused,
        scored=work.asked,
        spent=embeddings_spent(_log(cache), ", in all calls that shared this cache"),
        seed=spec.seed,
        bootstrap=spec.bootstrap,
        output=spec.output,
    )
    folder = Path(spec.output)
    write_bytes(folder / REPORT, found.model_dump_json(indent=2).encode() + b"\n")
    for one, picture in zip(found.benchmarks, pictures, strict=True):
        write_bytes(folder / picture, plot_benchmark(one))
    return found


@dataclass
class _Work:
    """Scores of every router on every benchmark, as they are found."""

    benchmarks: Sequence[Benchmark]
    cache: Path
    seed: int
    progress: ProgressDisplay | None
    predicted: dict[tuple[int, str], Floats] = field(default_factory=dict)
    """By the benchmark's position and the router's name."""
    notes: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def score(self, name: str, router: RouterSpec) -> None:
        """Score the prompts of all benchmarks with one router; benchmarks of the same models are scored together."""
        together: dict[tuple[str, ...], list[int]] = {}
        for at, benchmark in enumerate(self.benchmarks):
            together.setdefault(benchmark.models, []).append(at)
        for models, places in together.items():
            try:
                self._score(name, router, models, places)
            except SpecError as error:
                # The router may be measured on benchmarks of other models.
                where = f"on {', '.join(self.benchmarks[at].name for at in places)}: " if len(together) > 1 else ""
                reason = where + str(error).splitlines()[0]
                self.refused[name] = f"{self.refused[name]}; {reason}" if name in self.refused else reason

    def _score(self, name: str, router: RouterSpec, models: tuple[str, ...], places: Sequence[int]) -> None:
        wanted = _with_embedder(router, f"routers.{name}.embedder", self.cache)
        prompts = [prompt for at in places for prompt in self.benchmarks[at].prompts]
        scoring = ScoringSettings(
            self.seed,
            version("batchrouter"),
            self.cache,
            Environment(key, wall_clock, SpendingRecord(_log(self.cache))),
        )

        def show(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress.update(ProgressSnapshot(f"scoring with {name}", done, total))

        scored = score_prompts(wanted, models, prompts, scoring, show)
        notes = {at: tuple(_notes(router, self.benchmarks[at])) for at in places}
        self.asked += scored.asked
        start = 0
        for at in places:
            benchmark = self.benchmarks[at]
            end = start + len(benchmark.prompts)
            self.predicted[at, name] = scored.predicted[start:end]
            self.notes[at, name] = notes[at]
            start = end

    def figures(self, at: int, *, bootstrap: int, plot: str) -> BenchmarkFigures:
        """Measure the benchmark at this position."""
        mine = {name: scores for (place, name), scores in self.predicted.items() if place == at}
        found = measure(self.benchmarks[at], mine, seed=self.seed, bootstrap=bootstrap, plot=plot)
        noted = {
            name: figures.model_copy(update={"notes": self.notes.get((at, name), ())})
            for name, figures in found.routers.items()
        }
        return found.model_copy(update={"routers": noted})


def _log(cache: Path) -> Path:
    """The file that keeps what embedding endpoints cost, over all evaluations that share the cache."""
    return cache / "embeddings.jsonl"


def _with_embedder(router: RouterSpec, at: str, cache: Path) -> RouterSpec:
    """Fill in what the endpoints of a router's embedder leave to the environment. Raises SpecError."""
    if not isinstance(router, EmbeddingRouterSpec) or not isinstance(router.embedder, EndpointEmbedderSpec):
        return router
    embedder = resolve_embedder(router.embedder, at, cache)
    return router.model_copy(update={"embedder": embedder})


def _notes(router: RouterSpec, benchmark: Benchmark) -> Iterator[str]:
    if trained_on(router, benchmark.files):
        yield _IN_SAMPLE
    if isinstance(router, RulesRouterSpec) and any(
        rule.column is not None or rule.language is not None or rule.topic is not None for rule in router.rules
    ):
        yield _BLIND_RULES


def _names(benchmarks: Sequence[Benchmark]) -> Iterator[Path]:
    """A different file name for each benchmark's plot."""
    taken: set[str] = set()
    for benchmark in benchmarks:
        stem = sub(r"[^\w.-]+", "-", benchmark.name).strip("-.") or "benchmark"
        name, more = stem, 1
        while name in taken:
            more += 1
            name = f"{stem}-{more}"
        taken.add(name)
        yield Path(f"{name}.png")
