"""Splits a CSV file into records, by RFC 4180 or with an escape character."""

import csv
import re
from collections.abc import Iterator

from batch.errors import InputError
from batch.reading.formats.csv_dialect import Opened
from schemas.job import CsvSpec

# Without this limit, a quote that is never closed would read the rest of the file into one field.
MAX_FIELD_CHARACTERS = 64 << 20

Field = str | None
Record = list[Field] | list[str]


def csv_records(name: str, opened: Opened, spec: CsvSpec) -> Iterator[tuple[int, int, Record]]:
    """Yield (first line, last line, fields) for each record that is not blank; `\\N` (MySQL's null) gives a field None.

    Raises InputError for wrong quoting. After it, the start of the next record would be a guess, and a wrong guess
    would send part of a record as a row, or lose records.
    """
    taken: list[str] = []  # lines of the current record
    lines = _noting(opened.lines, taken)
    escape = spec.escape if spec.escape != spec.quote else None
    reader: Iterator[Record] = (
        _escaped(lines, opened.delimiter, spec.quote or "", escape)
        if escape is not None
        else csv.reader(
            lines,
            delimiter=opened.delimiter,
            quotechar=spec.quote or None,
            quoting=csv.QUOTE_MINIMAL if spec.quote else csv.QUOTE_NONE,
            strict=True,
        )
    )
    spaced = f" {spec.quote}"
    spaced_later = opened.delimiter + spaced
    first = opened.skipped + 1
    while True:
        # The limit is global to the csv module, so it is restored after each record.
        before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise _refused(name, first, taken, opened.delimiter, spec, error) from error
        except UnicodeError as error:
            last = first + len(taken)
            raise InputError(
                f"{name}:{last}: not {opened.encoding}; set input.csv.encoding to what the file is in"
            ) from error
        finally:
            csv.field_size_limit(before)
        if record is None:
            return
        last = first + len(taken) - 1
        text = taken[0] if len(taken) == 1 else "".join(taken)
        if spec.quote and (spaced_later in text or text.startswith(spaced)):
            _check_spaces(name, first, text, opened.delimiter, spec)
        if record:
            yield first, last, record
        taken.clear()
        first = last + 1


def _noting(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """Pass lines on, and append each to `taken`."""
    for line in lines:
        taken.append(line)
        yield line


def _escaped(lines: Iterator[str], delimiter: str, quote: str, escape: str) -> Iterator[list[Field]]:
    """Yield records in which the escape character makes a quote, a delimiter, a line end or itself ordinary text.

    Before any other character it is ordinary text itself, so that `C:\\new` stays unchanged. But an unquoted field that
    is only the escape character and `N`, such as `\\N`, is read as `None`. Raises csv.Error.
    """
    inside = re.compile(f"[{re.escape(quote + escape)}]")
    outside = re.compile(f"[{re.escape(delimiter + escape)}\r\n]")
    special = delimiter + quote + escape
    null = f"{escape}N"
    for line in lines:
        text, at = line, 0
        fields: list[Field] = []
        while True:
            quoted = bool(quote) and text.startswith(quote, at)
            at += quoted
            pattern, pieces, size = (inside if quoted else outside), [], 0
            while True:
                found = pattern.search(text, at)
                end = len(text) if found is None else found.start()
                pieces.append(text[at:end])
                size += end - at
                if size > MAX_FIELD_CHARACTERS:
                    raise csv.Error("field larger than field limit")
                following = text[end + 1 : end + 2]
                if found is None and not quoted:
                    at = end
                    break
                if found is None:
                    text, at = _next(lines), 0
                elif found[0] == escape and following and following in "\r\n":
                    pieces.append(text[end + 1 :])
                    text, at = _next(lines), 0
                elif found[0] == escape:
                    pieces.append(following if following and following in special else escape + following)
                    at = end + 2
                elif quoted and following == quote:
                    pieces.append(quote)
                    at = end + 2
                else:
                    at = end + quoted
                    break
            value = "".join(pieces)
            fields.append(None if value == null and not quoted else value)
            if at < len(text) and text[at] == delimiter:
                at += 1
                continue
            if text[at : at + 1] not in ("", "\r", "\n"):
                raise csv.Error("text after a closing quote")
            break
        yield [] if fields == [""] and not quoted else fields


def _next(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise csv.Error("unexpected end of data")
    return line


def _refused(name: str, first: int, taken: list[str], delimiter: str, spec: CsvSpec, error: csv.Error) -> InputError:
    opened = first + _opening_line(taken, delimiter, spec)
    last = first + len(taken) - 1
    words = str(error)
    if "unexpected end" in words:
        what = f"a quote opens here and is never closed, so that lines {opened} to {last} would be one field"
    elif "limit" in words:
        most = f"{MAX_FIELD_CHARACTERS:,} characters"
        what = f"a field opens here and is longer than {most}, as where a quote is never closed"
    else:
        what = f"a quoted field opens here, and in line {last} text follows a quote within it that is not doubled"
    ways = "write quotes in a quoted field twice; if they are ordinary characters here, set input.csv.quote: ''"
    if spec.escape is None:
        ways += "; if a backslash stands before them, input.csv.escape: '\\'"
    return InputError(f"{name}:{opened}: {what}; {ways}")


def _opening_line(taken: list[str], delimiter: str, spec: CsvSpec) -> int:
    """Return the line, from 0 within a faulty record, in which the quote that caused the fault opened."""
    quote, escape = spec.quote or '"', spec.escape
    opened = 0
    inside = False
    for number, line in enumerate(taken):
        at = 0
        field_starts = not inside
        while at < len(line):
            character = line[at]
            if inside and escape is not None and character == escape:
                at += 2
                continue
            if inside and character == quote:
                if line[at + 1 : at + 2] == quote:
                    at += 1
                elif line[at + 1 : at + 2] in (delimiter, "\r", "\n", ""):
                    inside = False
                else:
                    return opened
            elif not inside and field_starts and character == quote:
                inside, opened = True, number
            field_starts = not inside and character == delimiter
            at += 1
    return opened


def _check_spaces(name: str, line: int, text: str, delimiter: str, spec: CsvSpec) -> None:
    """Refuse a quote that opens after a space and does not close in its field.

    CSV treats such a quote as ordinary text, so the delimiters and line ends inside the intended field would cut it
    into pieces, and these would be sent as rows.
    """
    quote, escape = re.escape(spec.quote or '"'), re.escape(spec.escape or spec.quote or '"')
    field = re.compile(
        rf"{quote}(?:{escape}.|{quote}{quote}|[^{quote}{escape}])*{quote}|[^{re.escape(delimiter)}\r\n]*", re.DOTALL
    )
    at = 0
    while at < len(text):
        found = field.match(text, at)
        assert found is not None, "a field may be empty"
        bare = found[0].lstrip(" ")
        if found[0].startswith(" ") and bare.startswith(spec.quote or '"') and bare.count(spec.quote or '"') % 2:
            raise InputError(
                f"{name}:{line}: a space stands before an opening quote, so that CSV takes it as it stands; "
                "remove the space after the delimiter, or set input.csv.quote: '' where quotes are ordinary characters"
            )
        at = found.end() + 1
