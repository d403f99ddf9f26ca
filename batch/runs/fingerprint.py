"""The fingerprint of a job: everything in it that affects answers, so that a run is only resumed by the same job."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

from schemas.embedders import EndpointEmbedderSpec
from schemas.job import CsvSpec, JobSpec

Parts = Mapping[str, Any]

INPUT_FILES = "input.files"
_FILES_SHOWN = 8

_ROUTER_FILES = frozenset({"router.checkpoint", "router.embedder.model", "router.battles", "router.embeddings"})

# Settings of a router that change how fast it scores, not what it scores: they are left out.
_VECTORS_DEPEND_ON = frozenset({"kind", "model", "dimensions", "max_tokens"})
_PACE_OF_ENDPOINTS = tuple(key for key in EndpointEmbedderSpec.model_fields if key not in _VECTORS_DEPEND_ON)
IGNORED_ROUTER_KEYS: Mapping[str, Any] = {
    "batch_tokens": True,
    "actors": True,
    "embedder": dict.fromkeys(_PACE_OF_ENDPOINTS, True),
}


# Keys of `input` that were added after some runs began, with the value that means what those runs did: at that value a
# key is left out.
_AS_BEFORE: Mapping[str, Any] = {
    "shape": "auto",
    "row_params": "auto",
    "id_scope": "input",
    "csv": CsvSpec().model_dump(mode="json"),
}
_UNSET = object()


@dataclass(frozen=True)
class Fingerprint:
    """Everything in a job that affects its answers, by dotted key, as plain JSON values.

    The plan is kept apart from the other parts: a changed plan decides anew from stored scores, within the same run.
    """

    parts: Parts = field(default_factory=dict)
    plan: Parts = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """32 hex digits over `parts`; the order of keys does not matter."""
        return blake2b(json.dumps(self.parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint(job: JobSpec, inputs: Sequence[Mapping[str, Any]], router_hash: str | None) -> Fingerprint:
    """The fingerprint of `job`.

    Args:
        job: the job file. Its limits, weights, balancer, timeouts, keys, URLs, prices, engine and budget are left out:
            they decide how fast a run is and what it costs, not what it answers.
        inputs: `path`, `size` and `mtime_ns` of each input file in order, and `partition` if the names of its folders
            are columns of its rows. Only the last part of the path counts, so that a folder may be moved or spelled
            differently.
        router_hash: hash of the router's checkpoint; `None` if it has none.
    """
    parts: dict[str, Any] = {
        "seed": job.seed,
        INPUT_FILES: [
            [PurePath(str(i["path"])).name, i["size"], i["mtime_ns"], *([i["partition"]] if "partition" in i else [])]
            for i in inputs
        ],
        "router.checkpoint.files": router_hash,
        "models": [model.name for model in job.models],
        "dispatch.dedup": job.dispatch.dedup,
        "output.format": job.output.format,
        "output.carry": job.output.carry,
    }
    input_keys = job.input.model_dump(mode="json", exclude={"path"})
    parts |= _flat("input", {key: value for key, value in input_keys.items() if _AS_BEFORE.get(key, _UNSET) != value})
    router = _flat("router", job.router.model_dump(mode="json", exclude=IGNORED_ROUTER_KEYS))
    parts |= {key: _without_folder(key, value) for key, value in router.items()}
    for model in job.models:
        parts[f"models.{model.name}.aliases"] = sorted(model.aliases)
        parts[f"models.{model.name}.endpoints.model"] = sorted({e.model or model.name for e in model.endpoints})
    return Fingerprint(parts, _flat("plan", job.plan.model_dump(mode="json")))


def changed(old: Parts, new: Parts) -> list[str]:
    """The dotted keys whose values differ, or that only one of the two has, sorted."""
    missing = object()
    # Older versions stored the whole path of a router's file.
    return sorted(
        k
        for k in old.keys() | new.keys()
        if _without_folder(k, old.get(k, missing)) != _without_folder(k, new.get(k, missing))
    )


def changed_files(old: Parts, new: Parts) -> str:
    """For messages: the names of the input files that differ between the two, or `their order`."""
    before, after = ([list(file) for file in parts.get(INPUT_FILES, ())] for parts in (old, new))
    names = [file[0] for file in (*before, *after) if file not in before or file not in after]
    different = list(dict.fromkeys(names)) or ["their order"]
    more = f" and {len(different) - _FILES_SHOWN} more" if len(different) > _FILES_SHOWN else ""
    return ", ".join(different[:_FILES_SHOWN]) + more


def _without_folder(key: str, value: Any) -> Any:
    """A router's file without its folder, so that a job may move with its files; a hash stands for their content."""
    return PurePath(value).name if key in _ROUTER_FILES and isinstance(value, str) and value.startswith("/") else value


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(f"{prefix}.{key}", value)
        else:
            flat[f"{prefix}.{key}"] = value
    return flat
