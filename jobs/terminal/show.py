"""Prints what a command found: as JSON, or as tables on a terminal."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from schemas.reports import Report

_Found = TypeVar("_Found", bound="BaseModel")


def print_line(text: str) -> None:
    """Print text and a line break on standard output."""
    sys.stdout.write(f"{text}\n")


def show(found: _Found, render: "Callable[[_Found, Console], object]", *, json: bool) -> None:
    """Print `found` as JSON, or have `render` print it on a console."""
    if json:
        print_line(found.model_dump_json(indent=2))
        return
    from jobs.terminal.printable import console

    render(found, console())


def show_report(report: "Report", run_dir: Path, *, json: bool) -> None:
    """Print the report of the run in `run_dir`."""
    if json:
        print_line(report.model_dump_json(indent=2))
        return
    from batch.runs.layout import Layout
    from jobs.terminal.printable import console
    from jobs.terminal.report import render_console

    render_console(report, console(), page=Layout(run_dir).report_html)
