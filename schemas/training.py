"""The training file, and the report of a training."""

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
    """The local encoder whose vectors the router will score."""

    layer: Annotated[int, Field(ge=0)] = 2
    """The hidden states after this layer are averaged. The second predicts more than the last, and costs a third."""

    max_tokens: Annotated[int, Field(gt=0)] = 256
    """The router reads so many tokens of a prompt, from its beginning."""


class TrainEndpointEmbedderSpec(EndpointEmbedderSpec):
    """The encoder behind `/v1/embeddings` whose vectors the router will score."""


TrainEmbedderSpec = Annotated[
    TrainLocalEmbedderSpec | TrainEndpointEmbedderSpec | ImportEmbedderSpec, Field(discriminator="kind")
]


class ExactJudgeSpec(Spec):
    """Judges an answer as good if it equals a reference."""

    kind: Literal["exact"]
    """Always `exact`."""

    column: str = "reference"
    """Column of the input with the right answer."""

    extract: str | None = None
    """Which part of the answer and of the reference is compared: `last_number`, or a regular expression, of which the
    last match counts (its first group, if it has one); left out: the whole text."""

    ignore_case: bool = False
    """`true`: upper and lower case are the same."""


class FunctionJudgeSpec(Spec):
    """Judges answers with a function of your own."""

    kind: Literal["function"]
    """Always `function`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:function`. It receives the prompt, the answer and the input's row (a dict), and returns true,
    false, a number from 0 to 1, or `None` if it cannot tell."""


class ModelJudgeSpec(Spec):
    """Judges answers by asking a model for a grade."""

    kind: Literal["model"]
    """Always `model`."""

    model: ModelSpec
    """The judge, as in a job's `models`."""

    prompt: str | None = None
    """The judge's request: a template over `{prompt}`, `{response}` and the input's columns; left out: a plain one."""

    extract: str = "last_number"
    """Where the grade is in the judge's reply: `last_number`, or a regular expression as in `exact`."""

    lowest: Number = 1.0
    """Grade of a useless answer. A number outside the scale counts as no grade."""

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
    """Name in figures and in the model card; left out: the first file's name."""


class _LabelledDataSpec(_DataSpec):
    path: Paths
    """File, glob, folder or a list of them, as in a job's input."""

    prompt: str = Field(default="prompt", min_length=1)
    """Column with the prompt (text or chat messages), or a template over columns, such as "{question}"."""


class JudgedDataSpec(_LabelledDataSpec):
    """Tells for each prompt whether each model answered it well."""

    kind: Literal["judged"]
    """Always `judged`."""

    models: dict[str, str] = Field(min_length=1)
    """For each model its column: true, false or a number from 0 to 1; empty if the answer was not judged."""


class ScoresDataSpec(_LabelledDataSpec):
    """Gives for each prompt each model's score, on a scale of your own."""

    kind: Literal["scores"]
    """Always `scores`."""

    models: dict[str, str] = Field(min_length=1)
    """For each model the column with its score; empty if there is none."""

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
    """Tells for each prompt which of two models' answers was preferred, as Chatbot Arena publishes it."""

    kind: Literal["preferences"]
    """Always `preferences`."""

    model_a: str = "model_a"
    """Column with the first model's name."""

    model_b: str = "model_b"
    """Column with the second model's name."""

    winner: str | None = None
    """Column with `model_a`, `model_b`, a name or a tie; left out: `winner`, else `winner_model_a` and the like."""


class ResultsDataSpec(_DataSpec):
    """Results of earlier runs, in which several models answered the same prompts; a judge grades them now."""

    kind: Literal["results"]
    """Always `results`."""

    input: InputSpec
    """The prompts: the `input` section of the job that was run."""

    runs: Paths
    """Result files (`jsonl` or `parquet`, not `openai_batch`) or run directories of that input."""

    judge: JudgeSpec
    """Decides how good an answer is."""


DataSpec = Annotated[
    JudgedDataSpec | ScoresDataSpec | PreferencesDataSpec | ResultsDataSpec, Field(discriminator="kind")
]


class FineTuningSpec(Spec):
    """How `bert` and `causal_llm` are fine-tuned."""

    base: str = Field(min_length=1)
    """Folder or hub id of the model to begin with, in safetensors."""

    epochs: Annotated[int, Field(gt=0)] = 3
    """Most passes over the data; the best pass by the validation part is kept."""

    layers: Annotated[int, Field(gt=0)] | None = None
    """`bert` only: trains only the last so many layers and the head; left out: all layers."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Highest step size; left out: 5e-5 for `bert`, 2e-4 for `causal_llm`."""

    batch_tokens: Annotated[int, Field(gt=0)] = 4096
    """Most tokens in one batch, padding included."""


class TrainSpec(Spec):
    """A router to train: its kind, its data and its output."""

    name: str | None = None
    """Title of the model card; left out: kind and models."""

    kind: TrainKind
    """Kind of router."""

    data: tuple[DataSpec, ...] = Field(min_length=1)
    """Labels, from one or more sources."""

    models: tuple[str, ...] | None = Field(default=None, min_length=2)
    """The models, weakest first; labels of other models are ignored. Left out: all, by mean quality."""

    matched_by: Literal["name", "position"] = "name"
    """`name`: a job that uses the router must have models with these names; `position`: the first and the last model
    stand for any cheap and any strong one."""

    embedder: TrainEmbedderSpec | None = None
    """Turns prompts into vectors, for mf, correctness, knn and cluster; left out: two layers of the packaged MiniLM."""

    fine_tuning: FineTuningSpec | None = None
    """How bert and causal_llm are fine-tuned; required for these."""

    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the prompts that is kept out of training to measure the router. Of the rest, the same share is used to
    choose settings."""

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
            raise ValueError(f"{twice!r} is given twice")
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
        """The judges of earlier runs' results, each with the position of its item in `data`."""
        for place, one in enumerate(self.data):
            if isinstance(one, ResultsDataSpec):
                yield place, one.judge


class FileRead(Spec):
    """A file that labels were read from."""

    name: str
    """Its name, without its folder."""

    sha256: str
    """SHA-256 of its bytes."""

    size: int
    """Its size in bytes."""


class DataReport(Spec):
    """What was read from one item of `data`."""

    name: str
    """Its name."""

    kind: str
    """Its kind."""

    files: tuple[FileRead, ...]
    """The files that were read."""

    rows: int
    """Rows with a prompt and a label."""

    skipped: int
    """Rows without a label, or about models that are ignored."""

    duplicates: int
    """Rows whose prompt occurred before in this item."""

    judged: dict[str, int]
    """Number of labels of each model."""


class HeldOut(Spec):
    """How well the router chooses between the strongest and the weakest model, on prompts not seen in training."""

    prompts: int
    """Prompts with a label of both models."""

    weakest: float
    """Mean quality of the weakest model."""

    strongest: float
    """Mean quality of the strongest."""

    apgr: float
    """Area under the curve of the share of the quality gap that is recovered, against the share of strong calls."""

    interval: tuple[float, float] | None
    """Interval with 95 % of the bootstrap samples of `apgr`; `None` if too many samples have no gap."""

    cpt50: float
    """Share of strong calls that recovers half of the gap."""

    cpt80: float
    """Share of strong calls that recovers 80 % of the gap."""

    apgr_length: float
    """APGR of routing by word count, which needs no training."""

    apgr_random: float = 0.5
    """APGR of routing at random, which is known without measuring."""


class TrainingReport(Spec):
    """The report of a training; `config.json` of the checkpoint holds it too."""

    kind: TrainKind
    """Kind of router."""

    name: str
    """Title of the model card."""

    models: tuple[str, ...]
    """The models, weakest first."""

    quality: dict[str, float]
    """Mean quality of each model over all labels."""

    seed: int
    """The seed."""

    data: tuple[DataReport, ...]
    """What was read, for each item of `data`."""

    prompts: int
    """Different prompts trained on."""

    held_out_prompts: int
    """Different prompts kept out of training."""

    chosen: dict[str, Any]
    """The settings that training chose."""

    held_out: dict[str, HeldOut]
    """Figures for the prompts that were held out, by data set."""

    cutoffs: dict[str, float]
    """Cutoff for each share of strong calls, from the prompts held out, or without any from those trained on."""

    warnings: tuple[str, ...]
    """What a user should know before using the router, one line each."""

    spent: tuple[str, ...] = ()
    """What judges and embedding endpoints cost in all calls for this output, one line each; not in `config.json`."""

    output: str
    """Folder of the checkpoint."""
