"""Writes a tiny checkpoint whose encoder is behind an endpoint."""

from pathlib import Path
from typing import Any

import numpy as np

from batch.routers.checkpoints.format import EncoderConfig, save_checkpoint
from batch.routers.estimators.logistic_heads import Heads
from tests.routers.conftest import PAIR

MODEL = "vec"
DIMENSION = 8


def write_checkpoint(folder: Path, **encoder: Any) -> str:
    """Write heads of two models that read the first and the second number of a vector; return the folder."""
    config = EncoderConfig.model_validate(
        {"kind": "endpoint", "name": MODEL, "max_tokens": 50, "dimension": DIMENSION} | encoder
    )
    heads = Heads(np.eye(2, DIMENSION, dtype=np.float32), np.zeros(2, dtype=np.float32))
    save_checkpoint(folder, heads.tensors(), models=PAIR, matched_by="name", encoder=config, training={}, card="")
    return str(folder)
