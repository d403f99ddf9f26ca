"""The battles of `sw_ranking`: read, grouped into tiers, and weighted by their similarity to prompts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np

from batch.arrays import Float32s, Floats, Indices
from batch.errors import SpecError
from batch.routers.arena.battle_vectors import VECTOR_FILES, count_vectors, vector_blocks
from batch.routers.arena.battles import (
    BATTLE_FILES,
    MIN_CHARACTERS,
    Battles,
    data_files,
    read_battles,
    reading_errors_named,
)
from batch.routers.checkpoints.format import EncoderConfig
from batch.routers.checkpoints.hub import find_folder
from batch.routers.embedders.undeclared import assumed_encoder, assumed_fingerprint
from batch.routers.estimators.bradley_terry import are_connected, fit_strengths, group_by_strength
from schemas.routers import SwRankingRouterSpec

_BATTLES, _EMBEDDINGS = "router.battles", "router.embeddings"

_LOG_10 = np.float32(np.log(10.0))
_NO_LIKENESS = 1e-6
_WINS, _LOSES, _TIES = 0, 1, 2


@dataclass(frozen=True)
class Arena:
    """Battles between tiers of models, sorted into groups, and the vectors of their prompts.

    A group holds all battles between the same two tiers with the same end: one row of `first`, `second` and `end`.
    """

    vectors: Float32s
    """Shape (battles, dimension), each of length 1."""
    starts: Indices
    """Number of the first battle of each group, shape (groups,)."""
    first: Indices
    """The first model's tier, shape (groups,)."""
    second: Indices
    """The second model's tier, shape (groups,)."""
    end: Indices
    """Shape (groups,): 0 if the first model won, 1 if the second won, 2 for a tie."""
    tier: dict[str, int]
    """The tier of each model; 0 is the strongest."""

    def wins(self, weights: Float32s) -> Floats:
        """Sum the weights of battles by winner and loser; a tie counts half for each.

        Element `[p, i, j]` of the result is the weight, for prompt `p`, of the wins of tier `i` over tier `j`. In
        RouteLLM's regression a battle within one tier has an entry for the second model only, which makes it a battle
        between that tier and a player of strength 0. That player is the last one here, and takes the first model's
        place in such battles.

        Args:
            weights: of each battle for each prompt, shape (prompts, battles).

        Returns:
            Shape (prompts, tiers + 1, tiers + 1).
        """
        sums = np.add.reduceat(weights, self.starts, axis=1, dtype=np.float64)
        stranger = max(self.tier.values()) + 1
        first = np.where(self.first == self.second, stranger, self.first)
        wins = np.zeros((len(weights), stranger + 1, stranger + 1))
        for winner, loser, end, share in (
            (first, self.second, _WINS, 1.0),
            (self.second, first, _LOSES, 1.0),
            (first, self.second, _TIES, 0.5),
            (self.second, first, _TIES, 0.5),
        ):
            runs = np.flatnonzero(self.end == end)
            # Two groups with the same end are never between the same two tiers, so nothing is overwritten.
            wins[:, winner[runs], loser[runs]] += share * sums[:, runs]
        return wins

    def weights(self, prompts: Float32s) -> Float32s:
        """Weights of the battles for prompts, shape (prompts, battles), scaled so that each prompt's largest is 1.

        Only proportions matter to the fit. A battle's weight is proportional to `10**(s / max(s))`, where `s` is the
        cosine of its vector and the prompt's. If no cosine exceeds the noise of float32, all battles of that prompt
        weigh the same.

        Args:
            prompts: vectors of the prompts, shape (prompts, dimension).
        """
        exponents = _unit(prompts) @ self.vectors.T
        most = exponents.max(axis=1, keepdims=True)
        exponents /= np.where(np.abs(most) < _NO_LIKENESS, np.inf, most)
        exponents -= exponents.max(axis=1, keepdims=True)
        exponents *= _LOG_10
        weights: Float32s = np.exp(exponents, out=exponents)
        return weights

    def unweighted_wins(self) -> Floats:
        """As `wins`, for one prompt to which every battle weighs 1."""
        return self.wins(np.ones((1, len(self.vectors)), dtype=np.float32))

    def pair(self, strong: str, weak: str) -> tuple[int, int]:
        """Return the tiers of the strong and of the weak model.

        Raises SpecError if a model is in no battle, if both are in one tier, or if no chain of battles connects them.
        """
        for model, key in ((strong, "router.strong"), (weak, "router.weak")):
            if model not in self.tier:
                raise SpecError(f"{key}: {model!r} is in none of the battles, of {', '.join(sorted(self.tier))}")
        if self.tier[strong] == self.tier[weak]:
            raise SpecError(
                f"router.tiers: {strong} and {weak} are in one tier, and every score would be one half; ask for more"
            )
        if not are_connected(self.unweighted_wins()[0], self.tier[strong], self.tier[weak]):
            raise SpecError(f"router.strong: no battles connect {strong} and {weak}, not even through other models")
        return self.tier[strong], self.tier[weak]


def build_arena(battles: Battles, vectors: Iterable[Float32s], count: int, tiers: int) -> Arena:
    """Group the models of `battles` into tiers, and sort the battles with their vectors.

    Args:
        vectors: in blocks, in the order of the battles; each block is looked at once.
        count: of vectors: as many as battles, or as battles whose prompts are long enough, without the others'.
        tiers: how many, at most.

    Raises:
        SpecError: there are other than so many vectors, they are not of one length, or no battle is left.
    """
    kept = np.flatnonzero(battles.long_enough)
    if not len(kept):
        raise SpecError(f"{_BATTLES}: no battle whose prompt has {MIN_CHARACTERS} characters or more")
    if count not in (len(kept), len(battles.first)):
        raise SpecError(
            f"{_EMBEDDINGS}: {count} vectors do not fit {len(battles.first)} battles, "
            f"{len(kept)} of them with prompts that are long enough"
        )
    pairs = [(battles.first[i], battles.second[i]) for i in kept]
    names = sorted({name for pair in pairs for name in pair})
    number = {name: i for i, name in enumerate(names)}
    first, second = np.array([(number[a], number[b]) for a, b in pairs], dtype=np.intp).T
    outcome = battles.outcome[kept]
    tier_of = _tiers(first, second, outcome, len(names), tiers)
    ends = np.where(outcome == 1.0, _WINS, np.where(outcome == 0.0, _LOSES, _TIES))
    keys = np.stack([tier_of[first], tier_of[second], ends], axis=1)
    order = np.lexsort(keys.T)
    keys = keys[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)])
    place = np.full(count, -1, dtype=np.intp)
    place[kept[order] if count != len(kept) else order] = np.arange(len(kept))
    return Arena(
        vectors=_sorted_vectors(vectors, place, len(kept)),
        starts=starts,
        first=keys[starts, 0],
        second=keys[starts, 1],
        end=keys[starts, 2],
        tier={name: int(tier_of[i]) for i, name in enumerate(names)},
    )


def open_arena(spec: SwRankingRouterSpec) -> Arena:
    """Read what the router names. Raises SpecError where it is missing, damaged or does not fit together."""
    battles = read_battles(_files(spec.battles, BATTLE_FILES, _BATTLES), _BATTLES)
    files = _files(spec.embeddings, VECTOR_FILES, _EMBEDDINGS)
    count = 0
    for path in files:
        with reading_errors_named(path, _EMBEDDINGS):
            count += count_vectors(path)
    return build_arena(battles, _blocks(files), count, spec.tiers)


def arena_encoder(spec: SwRankingRouterSpec) -> EncoderConfig:
    """The encoder that prompts' vectors must come from, which is known by their length only. Raises SpecError."""
    block = next(_blocks(_files(spec.embeddings, VECTOR_FILES, _EMBEDDINGS)), None)
    if block is None:
        raise SpecError(f"{_EMBEDDINGS}: there is no vector in {', '.join(spec.embeddings)}")
    return assumed_encoder(spec.embedder, block.shape[1])


def arena_fingerprint(spec: SwRankingRouterSpec) -> str:
    """Hash that changes with anything on disk that affects scores. Raises SpecError where it cannot be read."""
    whole = sha256(assumed_fingerprint(spec.embedder).encode())
    for path in (
        *_files(spec.battles, BATTLE_FILES, _BATTLES),
        *_files(spec.embeddings, VECTOR_FILES, _EMBEDDINGS),
    ):
        with reading_errors_named(path, _EMBEDDINGS), path.open("rb") as file:
            whole.update(file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _files(places: Sequence[str], kinds: Sequence[str], key: str) -> list[Path]:
    found = []
    for place in places:
        path = Path(place)
        try:
            is_file = path.is_file()
        except OSError as error:  # a name that no system has
            raise SpecError(f"{key}: {place}: {error.strerror}") from error
        found += data_files(path if is_file else find_folder(place, key, holds="dataset"), kinds, key)
    return found


def _blocks(files: Sequence[Path]) -> Iterator[Float32s]:
    for path in files:
        with reading_errors_named(path, _EMBEDDINGS):
            yield from vector_blocks(path)


def _tiers(first: Indices, second: Indices, outcome: Floats, models: int, tiers: int) -> Indices:
    """Each model's tier, from its strength where all battles weigh the same."""
    # A model against itself is one against a stranger, as for tiers.
    one = np.where(first == second, models, first)
    wins = np.zeros((1, models + 1, models + 1))
    np.add.at(wins[0], (one, second), outcome)
    np.add.at(wins[0], (second, one), 1.0 - outcome)
    strengths = fit_strengths(wins)[0, :models]
    strongest_first = np.argsort(-strengths, kind="stable")
    tier_of = np.empty(models, dtype=np.intp)
    tier_of[strongest_first] = group_by_strength(strengths[strongest_first], tiers)
    return tier_of


def _sorted_vectors(blocks: Iterable[Float32s], place: Indices, count: int) -> Float32s:
    """Bring vectors to length 1, each to its place; those whose place is negative are left out."""
    vectors, done = None, 0
    for block in blocks:
        if vectors is None:
            vectors = np.empty((count, block.shape[1]), dtype=np.float32)
        if block.shape[1] != vectors.shape[1]:
            raise SpecError(
                f"{_EMBEDDINGS}: vectors of {vectors.shape[1]} and of {block.shape[1]} numbers; use one encoder's"
            )
        to = place[done : done + len(block)]
        vectors[to[to >= 0]] = _unit(block[to >= 0])
        done += len(block)
    assert vectors is not None, "there are as many as battles, and those are not none"
    return vectors


def _unit(vectors: Float32s) -> Float32s:
    lengths: Float32s = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    unit: Float32s = np.divide(vectors, np.where(lengths > 0.0, lengths, 1.0), dtype=np.float32)
    return unit
