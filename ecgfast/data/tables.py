"""Columns of equal length in a parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from ecgfast.data.records import DataError


def write_table(path: str | Path | IO[bytes], columns: Mapping[str, ArrayLike]) -> None:
    """Writes columns, in their order, to a path or an open file; NaN and None become missing."""
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)


def read_table(path: str | Path) -> dict[str, NDArray[Any]]:
    """Columns as arrays, in their order; a missing number is NaN, a missing text None.

    Raises:
        DataError: There is no such file, or it is no parquet.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"error[no_file] there is no {path}") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"error[corrupt_table] {path}: {str(error)[:200]}") from error
    return {name: table[name].to_numpy() for name in table.column_names}


def frame(columns: Mapping[str, ArrayLike]) -> pd.DataFrame:
    """The same as a table of pandas, for libraries that take nothing else."""
    return pd.DataFrame(dict(columns))
