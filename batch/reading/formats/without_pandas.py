"""Arrow without pandas."""

import sys

import pyarrow as pa


class _Nowhere:
    """Finds pandas nowhere."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
        return


def leave_pandas_out() -> None:
    """Have Arrow not import pandas when it is handed its first values, just to see whether they are of pandas.

    That takes half a second and 27 MiB in each process of a run. Arrow looks once and remembers; where pandas is really
    asked of it, by `to_pandas` and `from_pandas`, it looks again. A process that has pandas already keeps it.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _Nowhere)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(_Nowhere)
