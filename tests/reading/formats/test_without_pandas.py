"""Arrow without pandas, in a separate process because the tests' own process has already imported pandas."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json
import sys
from pathlib import Path

from jobs.commands.estimate import estimate_job
from schemas.job import JobSpec

Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"p{row}"}) + "\\n" for row in range(20)))
job = {
    "engine": "inline",
    "input": {"path": "prompts.jsonl"},
    "router": {"kind": "length"},
    "models": [{"name": "small"}, {"name": "large"}],
    "plan": {"strategy": "share", "strong": 0.5},
    "output": {"path": "results.jsonl"},
}
assert estimate_job(JobSpec.model_validate(job)).rows.total == 20
assert "pandas" not in sys.modules

import numpy as np
import pyarrow as pa

mask = np.array([True, False, True])
table = pa.table({"a": np.array([1.0, np.nan, 3.0]), "b": pa.array(["x", None, "z"])}).filter(mask)
assert table["a"].to_numpy().tolist() == [1.0, 3.0]
assert "pandas" not in sys.modules

assert table.to_pandas()["b"].tolist() == ["x", "z"]
import pandas
assert pa.array(pandas.Series([1.0, np.nan])).null_count == 1
"""


def test_reading_and_scoring_do_not_import_pandas_and_to_pandas_does(tmp_path: Path) -> None:
    """Tables of lists and arrays need no pandas; `to_pandas` imports it, and then Arrow recognises its objects."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60, cwd=tmp_path, env=environment)


def test_importing_the_stages_of_a_run_leaves_the_import_system_alone() -> None:
    """Only a process that is about to process rows hides pandas from Arrow."""
    script = "import sys; before = list(sys.meta_path); import batch.running.stages; assert sys.meta_path == before"
    script += "\nimport pyarrow, numpy; pyarrow.array([None]); assert 'pandas' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
