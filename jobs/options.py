"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run directory.", show_default=False)]

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key, as in plan.strong=0.3.")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Take the first N rows only.")]
Sample = Annotated[int | None, typer.Option("--sample", metavar="N", min=1, help="Look at about N rows.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

Verbose = Annotated[bool, typer.Option("--verbose", help="Print log records on standard error.")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="PATH", help="Append log records, with more detail, to this file."),
]
