"""Arrow without pandas, in a process of its own: this one has pandas already."""

import subprocess
import sys

SCRIPT = """
import sys
import numpy as np
import batch.running.stages
import pyarrow as pa

mask = np.array([True, False, True])
table = pa.table({"a": np.array([1.0, np.nan, 3.0]), "b": pa.array(["x", None, "z"])}).filter(mask)
assert table["a"].to_numpy().tolist() == [1.0, 3.0]
assert "pandas" not in sys.modules

assert table.to_pandas()["b"].tolist() == ["x", "z"]
import pandas
assert pa.array(pandas.Series([1.0, np.nan])).null_count == 1
"""


def test_a_run_does_not_import_pandas_and_who_asks_for_it_has_it() -> None:
    """Tables are made of lists and arrays without it; `to_pandas` imports it, and from then on Arrow knows it."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
