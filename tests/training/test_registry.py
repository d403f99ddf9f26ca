"""The table of trainers agrees with the specs and with the table of routers."""

from typing import get_args

from batch.routers.registry import KINDS
from batch.training.kind import FineTuner, VectorTrainer
from batch.training.registry import TRAINERS
from schemas.training import EMBEDDING, FINE_TUNED, TrainKind

# Routers that have nothing to train, or whose weights this project only reads.
NOT_TRAINED = {"random", "constant", "length", "rules", "sw_ranking", "import"}


def test_every_kind_is_trained_or_listed_as_not_trained() -> None:
    """Each kind of router has a trainer or is in NOT_TRAINED; `train` takes exactly the kinds with a trainer."""
    assert set(TRAINERS) == set(get_args(TrainKind))
    assert set(KINDS) == {*TRAINERS, *NOT_TRAINED}


def test_the_spec_knows_which_kinds_take_an_embedder() -> None:
    """EMBEDDING lists the trainers that take their encoder from the file, FINE_TUNED those of whole networks."""
    trainers = TRAINERS.values()
    assert {t.kind for t in trainers if isinstance(t, VectorTrainer) and t.own_encoder is None} == set(EMBEDDING)
    assert {t.kind for t in trainers if isinstance(t, FineTuner)} == set(FINE_TUNED)
