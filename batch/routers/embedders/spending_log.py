"""A log of what an embedder's calls cost; a run's budget covers them too.

The file has one JSON object a line; lines are only appended:

    {"model": "text-embedding-3-small", "usd_per_token": "2E-8"}      each time it is opened; null: unknown price
    {"sent": 32, "sent_at_most": 5120}                                 in the page cache before the request goes out
    {"ended": 32, "ended_at_most": 5120, "tokens": 900}                after its answer

`sent` and `ended` count inputs (texts), `tokens` counts tokens, and `*_at_most` are upper bounds of tokens. A request
without an `ended` line when the log is opened again was in flight when a process was killed: it may have been billed,
so it is charged at its bound.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from batch.costs.prices import EXACT, Price
from batch.errors import StorageError
from batch.storage.atomic import make_folder, read_bytes, storage_error
from schemas.reports import EmbeddingReport, Report


@dataclass(slots=True)
class Spending:
    """The sums of a log."""

    model: str | None = None
    """The embedding model; `None`: nothing was sent."""
    inputs: int = 0
    """Texts that were answered, refused or lost."""
    tokens: int = 0
    """Prompt tokens, as the provider counted them; an upper bound for answers without a count."""
    in_doubt: int = 0
    """Of `inputs`, texts that were in flight when a process was killed."""
    usd: Decimal = field(default_factory=Decimal)
    """Dollars, of tokens whose price is known."""
    is_complete: bool = True
    """False: tokens were used whose price is not known."""

    def lost(self, inputs: int, tokens_at_most: int, usd_per_token: Decimal | None) -> None:
        """Add texts that were in flight when a process was killed."""
        self.inputs += inputs
        self.in_doubt += inputs
        self.charge(tokens_at_most, usd_per_token)

    def charge(self, tokens: int, usd_per_token: Decimal | None) -> None:
        """Add tokens that were used."""
        self.tokens += tokens
        if usd_per_token is not None:
            self.usd = EXACT.add(self.usd, EXACT.multiply(usd_per_token, Decimal(tokens)))
        elif tokens:
            self.is_complete = False


class SpendingLog:
    """Appends to a log. One process writes to it at a time.

    `flush` is called before a request goes out, so no request is unknown to the log after a kill.
    """

    def __init__(self, path: Path, model: str, price: Price | None) -> None:
        """Open it, or raise StorageError.

        Args:
            price: of the model's prompt tokens; `None`: unknown.
        """
        self._path = path
        self._waiting: dict[str, int] = {}
        header = {"model": model, "usd_per_token": None if price is None else str(price.input)}
        try:
            make_folder(path.parent)
            self._file = path.open("ab", buffering=0)
            os.chmod(path, 0o600)  # noqa: PTH101  the file that is open, whatever its name means by now
        except OSError as error:
            raise storage_error(self._path, error) from error
        # A kill may have torn the last line; an empty line is passed over.
        self._write(b"\n" + orjson.dumps(header) + b"\n")

    def sent(self, inputs: int, tokens_at_most: int) -> None:
        """Record that a request with so many texts is about to go out."""
        self._add(sent=inputs, sent_at_most=tokens_at_most)

    def ended(self, inputs: int, tokens_at_most: int, tokens: int) -> None:
        """Record that the request ended and that `tokens` may be billed; the other two are those of `sent`."""
        self._add(ended=inputs, ended_at_most=tokens_at_most, tokens=tokens)

    def flush(self) -> None:
        """Hand all records to the kernel: a kill of this process loses none of them any more. Raises StorageError."""
        if self._waiting:
            line = orjson.dumps(self._waiting) + b"\n"
            self._waiting = {}
            self._write(line)

    def close(self) -> None:
        """Flush, and sync the file to disk. Raises StorageError."""
        try:
            self.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self._path, error) from error
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self._waiting[name] = self._waiting.get(name, 0) + number

    def _write(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
        except OSError as error:
            raise storage_error(self._path, error) from error
        if written != len(line):
            raise StorageError(
                f"cannot write {self._path}: the disk is full; make room, then rerun the same command to resume"
            )


def read_spending(path: Path) -> Spending:
    """Sum up the log at `path`; without a log nothing was spent.

    Raises:
        StorageError: it cannot be read, or a line is damaged that no kill can have torn.
    """
    lines = [line for line in (read_bytes(path) or b"").split(b"\n") if line]
    entries = [_entry(line) for line in lines]
    for number, entry in enumerate(entries):
        # A kill tears the last line of a sitting; the next sitting, if there was one, began with its header.
        followed = next(iter(entries[number + 1 :]), None)
        torn = number + 1 == len(entries) or (followed is not None and "model" in followed)
        if entry is None and not torn:
            raise StorageError(
                f"{path} is damaged in its {number + 1}. line, so what embeddings cost is not known; "
                "delete it to go on without counting them"
            )
    return _summed([entry for entry in entries if entry is not None])


def with_embeddings(report: Report, spending: Spending) -> Report:
    """The report of a run with what its router's embedder cost: in `embeddings`, the total and what was saved."""
    if spending.model is None:
        return report
    embeddings = EmbeddingReport(
        model=spending.model,
        inputs=spending.inputs,
        in_doubt=spending.in_doubt,
        prompt_tokens=spending.tokens,
        cost_usd=spending.usd if spending.is_complete else None,
    )
    saved = report.counterfactual.saved_usd
    if saved is not None:
        # Every row by the strongest model would have needed no vectors.
        saved = EXACT.subtract(saved, spending.usd) if spending.is_complete else None
    return report.model_copy(
        update={
            "embeddings": embeddings,
            "cost_usd": EXACT.add(report.cost_usd, spending.usd),
            "cost_is_complete": report.cost_is_complete and spending.is_complete,
            "counterfactual": report.counterfactual.model_copy(update={"saved_usd": saved}),
        }
    )


def _summed(entries: Iterable[dict[str, Any]]) -> Spending:
    spending = Spending()
    price: Decimal | None = None
    in_flight = in_flight_at_most = 0
    for entry in entries:
        if "model" in entry:
            spending.lost(in_flight, in_flight_at_most, price)
            in_flight = in_flight_at_most = 0
            spending.model = entry["model"]
            price = None if entry["usd_per_token"] is None else Decimal(entry["usd_per_token"])
            continue
        in_flight += entry.get("sent", 0) - entry.get("ended", 0)
        in_flight_at_most += entry.get("sent_at_most", 0) - entry.get("ended_at_most", 0)
        spending.inputs += entry.get("ended", 0)
        spending.charge(entry.get("tokens", 0), price)
    spending.lost(in_flight, in_flight_at_most, price)
    return spending


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's object; `None`: it is damaged."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(entry, dict):
        return None
    if "model" in entry:
        return entry if _is_price(entry.get("usd_per_token", "")) and isinstance(entry["model"], str) else None
    return entry if all(name in _NUMBERS and type(value) is int for name, value in entry.items()) else None


def _is_price(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and Decimal(value) >= 0
    except InvalidOperation:
        return False


_NUMBERS = frozenset({"sent", "sent_at_most", "ended", "ended_at_most", "tokens"})
