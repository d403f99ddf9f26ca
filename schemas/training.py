"""The file that says how a router is trained, and what came of it."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import Spec
from schemas.embedders import EndpointEmbedderSpec, ImportEmbedderSpec, LocalEmbedderSpec, local_where_no_kind
from schemas.endpoints import ModelSpec
from schemas.job import DispatchSpec, InputSpec

TrainKind = Literal["mf", "correctness", "static", "knn", "cluster", "bert", "causal_llm"]
FINE_TUNED: tuple[TrainKind, ...] = ("bert", "causal_llm")
EMBEDDING: tuple[TrainKind, ...] = ("mf", "correctness", "knn", "cluster")

Paths = str | tuple[str, ...]
Number = Annotated[float, Field(allow_inf_nan=False)]


class TrainLocalEmbedderSpec(LocalEmbedderSpec):
    """The local encoder whose vectors the router will go by."""

    layer: Annotated[int, Field(ge=0)] = 2
    """Hidden states after this layer are averaged; the second tells more than the last, and costs a third."""

    max_tokens: Annotated[int, Field(gt=0)] = 256
    """Tokens of a prompt that are looked at, from its beginning."""


class TrainEndpointEmbedderSpec(EndpointEmbedderSpec):
    """The encoder behind `/v1/embeddings` whose vectors the router will go by."""


TrainEmbedderSpec = Annotated[
    TrainLocalEmbedderSpec | TrainEndpointEmbedderSpec | ImportEmbedderSpec, Field(discriminator="kind")
]


class ExactJudgeSpec(Spec):
    """An answer is good where it is the reference."""

    kind: Literal["exact"]
    """Always `exact`."""

    column: str = "reference"
    """Column of the input that holds the right answer."""

    extract: str | None = None
    """`last_number`, or a regular expression whose last match (its first group, where it has one) is compared, of the
    answer and of the reference; left out: the whole text."""

    ignore_case: bool = False
    """Are upper and lower case the same?"""


class FunctionJudgeSpec(Spec):
    """An answer is as good as a function of your own says."""

    kind: Literal["function"]
    """Always `function`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:function`, called with the prompt, the answer and the input's row (a dict); it returns true,
    false, a number from 0 to 1, or `None` where it cannot say."""


class ModelJudgeSpec(Spec):
    """An answer is as good as a model says that is asked for a grade."""

    kind: Literal["model"]
    """Always `model`."""

    model: ModelSpec
    """The judge, as in a job's `models`."""

    prompt: str | None = None
    """What it is asked: a template over `{prompt}`, `{response}` and the input's columns; left out: a plain one."""

    extract: str = "last_number"
    """Where the grade is in what it says: `last_number`, or a regular expression as in `exact`."""

    lowest: Number = 1.0
    """Grade of a useless answer; what is outside the grades counts as no grade."""

    highest: Number = 10.0
    """Grade of a perfect answer."""

    params: dict[str, Any] = {"temperature": 0, "max_tokens": 512}
    """Request parameters."""

    dispatch: DispatchSpec = DispatchSpec()
    """How requests are sent, as in a job: attempts, timeout, budget."""

    @model_validator(mode="after")
    def _grades_rise(self) -> "ModelJudgeSpec":
        if not self.lowest < self.highest:
            raise ValueError(f"lowest {self.lowest:g} must be below highest {self.highest:g}")
        return self


JudgeSpec = Annotated[ExactJudgeSpec | FunctionJudgeSpec | ModelJudgeSpec, Field(discriminator="kind")]


class _DataSpec(Spec):
    name: str | None = None
    """What figures and the model card call it; left out: the first file's name."""


class _LabelledDataSpec(_DataSpec):
    path: Paths
    """File, glob, folder or a list of them, as in a job's input."""

    prompt: str = Field(default="prompt", min_length=1)
    """Column with the prompt (text or chat messages), or a template over columns, as "{question}"."""


class JudgedDataSpec(_LabelledDataSpec):
    """For each prompt, whether each model answered it well."""

    kind: Literal["judged"]
    """Always `judged`."""

    models: dict[str, str] = Field(min_length=1)
    """Column of each model: true, false or a number from 0 to 1; empty where nobody judged."""


class ScoresDataSpec(_LabelledDataSpec):
    """For each prompt, each model's score on a scale of your own."""

    kind: Literal["scores"]
    """Always `scores`."""

    models: dict[str, str] = Field(min_length=1)
    """Column of each model's score; empty where there is none."""

    lowest: Number
    """The score that counts as 0."""

    highest: Number
    """The score that counts as 1."""

    @model_validator(mode="after")
    def _scores_rise(self) -> "ScoresDataSpec":
        if self.lowest == self.highest:
            raise ValueError(f"lowest and highest are both {self.lowest:g}")
        return self


class PreferencesDataSpec(_LabelledDataSpec):
    """For each prompt, which of two models' answers was preferred, as Chatbot Arena publishes it."""

    kind: Literal["preferences"]
    """Always `preferences`."""

    model_a: str = "model_a"
    """Column with the first model's name."""

    model_b: str = "model_b"
    """Column with the second model's name."""

    winner: str | None = None
    """Column with `model_a`, `model_b`, a name or a tie; left out: `winner`, else `winner_model_a` and its like."""


class ResultsDataSpec(_DataSpec):
    """Results of earlier runs, of several models over the same prompts, judged now."""

    kind: Literal["results"]
    """Always `results`."""

    input: InputSpec
    """The prompts, as in the job that was run: its `input` block."""

    runs: Paths
    """Result files (jsonl or parquet, not openai_batch) or run directories of that input."""

    judge: JudgeSpec
    """How good an answer is."""


DataSpec = Annotated[
    JudgedDataSpec | ScoresDataSpec | PreferencesDataSpec | ResultsDataSpec, Field(discriminator="kind")
]


class FineTuningSpec(Spec):
    """How `bert` and `causal_llm` are fine-tuned."""

    base: str = Field(min_length=1)
    """Folder or hub id of the model to begin with, in safetensors."""

    epochs: Annotated[int, Field(gt=0)] = 3
    """Times the data is gone through at most; the best by the validation part is kept."""

    layers: Annotated[int, Field(gt=0)] | None = None
    """`bert`: only the last so many layers are trained, and the head; left out: all."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Highest step size; left out: what suits the kind."""

    batch_tokens: Annotated[int, Field(gt=0)] = 4096
    """Most tokens in one batch, padding included."""


class TrainSpec(Spec):
    """A router to train: which kind, on what, where to."""

    name: str | None = None
    """Title of the model card; left out: kind and models."""

    kind: TrainKind
    """Which router."""

    data: tuple[DataSpec, ...] = Field(min_length=1)
    """Labels, from one or more places."""

    models: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Weakest first; others are left out of the data. Left out: all, by mean quality."""

    matched_by: Literal["name", "position"] = "name"
    """`name`: a job's models must be these; `position`: the first and the last stand for any cheap and strong one."""

    embedder: TrainEmbedderSpec | None = None
    """What turns prompts into vectors (mf, correctness, knn, cluster); left out: two layers of the packaged MiniLM."""

    fine_tuning: FineTuningSpec | None = None
    """How it is fine-tuned (bert, causal_llm)."""

    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the prompts kept out of training to measure it; of the rest, the share that settings are chosen by."""

    seed: int = 0
    """Seed of everything random."""

    output: str = Field(min_length=1)
    """Folder for the checkpoint: weights, config.json and a model card."""

    @model_validator(mode="before")
    @classmethod
    def _embedders_are_local(cls, data: Any) -> Any:
        return local_where_no_kind(data)

    @field_validator("models")
    @classmethod
    def _models_differ(cls, models: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = next((name for name in models or () if (models or ()).count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice")
        return models

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "TrainSpec":
        if self.embedder is not None and self.kind not in EMBEDDING:
            raise ValueError(f"embedder is for {', '.join(EMBEDDING)}; leave it out of {self.kind}")
        if self.fine_tuning is not None and self.kind not in FINE_TUNED:
            raise ValueError(f"fine_tuning is for {', '.join(FINE_TUNED)}; leave it out of {self.kind}")
        if self.fine_tuning is None and self.kind in FINE_TUNED:
            raise ValueError(f"{self.kind} needs fine_tuning, with the base model to begin with")
        if self.fine_tuning is not None and self.fine_tuning.layers is not None and self.kind != "bert":
            raise ValueError("fine_tuning.layers is for bert; LoRA has no layers to choose")
        return self

    def judges(self) -> Iterator[tuple[int, JudgeSpec]]:
        """The judges of earlier runs, each with its place in `data`."""
        for place, one in enumerate(self.data):
            if isinstance(one, ResultsDataSpec):
                yield place, one.judge


class FileRead(Spec):
    """A file that labels came from."""

    name: str
    """Its name, without the folders of the machine it was on."""

    sha256: str
    """Of its bytes."""

    size: int
    """Bytes."""


class DataReport(Spec):
    """What one item of `data` gave."""

    name: str
    """Its name."""

    kind: str
    """Its kind."""

    files: tuple[FileRead, ...]
    """What was read."""

    rows: int
    """Rows with a prompt and a label."""

    skipped: int
    """Rows without a label, or about models that are left out."""

    duplicates: int
    """Rows whose prompt was there before, in this item."""

    judged: dict[str, int]
    """Labels of each model."""


class HeldOut(Spec):
    """How well prompts are told apart that training has not seen; of the strongest model against the weakest."""

    prompts: int
    """Prompts with a label of both."""

    weakest: float
    """Mean quality of the weakest model."""

    strongest: float
    """Mean quality of the strongest."""

    apgr: float
    """Area under the share of the gap that is recovered, against the share of strong calls."""

    interval: tuple[float, float] | None
    """95 % of bootstrap samples lie in it; `None` where too many of them have no gap."""

    cpt50: float
    """Share of strong calls that recovers half the gap."""

    cpt80: float
    """Share that recovers 80 % of it."""

    apgr_length: float
    """APGR of the word count, which needs no training."""

    apgr_random: float = 0.5
    """APGR of drawing lots, which is known."""


class TrainingReport(Spec):
    """What training gave; `config.json` holds it too."""

    kind: TrainKind
    """Which router."""

    name: str
    """Title of the model card."""

    models: tuple[str, ...]
    """Weakest first."""

    quality: dict[str, float]
    """Mean quality of each model over everything that was labelled."""

    seed: int
    """The seed."""

    data: tuple[DataReport, ...]
    """Where labels came from."""

    prompts: int
    """Different prompts trained on."""

    held_out_prompts: int
    """Different prompts kept out of training."""

    chosen: dict[str, Any]
    """What training settled on."""

    held_out: dict[str, HeldOut]
    """Figures by data set."""

    cutoffs: dict[str, float]
    """Cutoff for each share of strong calls, from the prompts held out, else from those trained on."""

    warnings: tuple[str, ...]
    """What to know before use."""

    spent: tuple[str, ...] = ()
    """What judges and embedding endpoints cost, in all calls for this output; not in `config.json`."""

    output: str
    """Folder of the checkpoint."""
