"""Checks that results and run directory do not lie where the input is read from."""

from batch.errors import SpecError
from batch.reading.sources import input_matching
from batch.runs.layout import Layout, is_folder, local_path, run_path
from batch.runs.output.parts import suffixes
from schemas.job import JobSpec


def check_output_not_input(job: JobSpec) -> None:
    """Check, before anything is sent, that results neither replace the input nor are read as input next time.

    Raises:
        SpecError: they would.
    """
    suffix = suffixes(job.output)[0]
    path = job.output.path if local_path(job.output.path) is not None else job.output.path.partition("?")[0]
    asked = input_matching(job.input, f"{path.rstrip('/')}/part-00000.{suffix}" if is_folder(job.output) else path)
    if asked is not None:
        what = "replace the input" if asked == job.output.path else f"be read as input next time, from {asked}"
        raise SpecError(f"output.path {job.output.path}: the results would {what}; choose another output.path")
    layout = Layout(run_path(job.output))
    for file in (layout.part(0, suffix), layout.scored(0), layout.journal(0, job.models[0].name)):
        asked = input_matching(job.input, str(file))
        if asked is not None:
            raise SpecError(
                f"run directory {layout.path}: its files would be read as input next time, from {asked}; "
                "choose another output.run_dir"
            )
