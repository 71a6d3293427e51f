"""A results folder as a pandas DataFrame whose columns have types."""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.case.columns import COLUMNS, ROW
from bench.errors import UserError, one_of
from bench.reading import Object
from bench.record.budget import with_budget
from bench.record.ratios import with_ratios
from bench.record.read import KEY, ROWS, read_record, read_run, read_samples

if TYPE_CHECKING:
    import pandas as pd


def read_frame(folder: Path, where: dict[str, Any]) -> "pd.DataFrame":
    """See bench.read."""
    import pandas as pd

    chosen = {name.removesuffix("_"): _values(value) for name, value in where.items()}
    for name in chosen:
        if name not in COLUMNS:
            raise UserError(one_of("bench.read, column", name, COLUMNS))
    rows, torn = read_record(folder)
    if torn is not None:
        warnings.warn(f"{folder / ROWS}: its last line is torn and was passed over", stacklevel=3)
    latest: dict[tuple[Any, ...], Object] = {tuple(row[k] for k in KEY): row for row in rows}
    found = with_ratios(list(latest.values()), read_samples(folder)[0])
    found = with_budget(found, read_run(folder, needed=()))
    found = [row for row in found if all(row[name] in values for name, values in chosen.items())]
    return pd.DataFrame({c.name: _series(c.name, c.dtype, [row[c.name] for row in found]) for c in ROW})


def _values(value: Any) -> Collection[Any]:
    return value if isinstance(value, list | tuple | set) else (value,)


def _series(name: str, dtype: str, values: list[Any]) -> "pd.Series[Any]":
    import pandas as pd

    if dtype.startswith("datetime"):
        times = pd.to_datetime(pd.Series(values, dtype="string"), utc=True, format="ISO8601", errors="coerce")
        return times.dt.as_unit("us").rename(name)
    return pd.Series(values, dtype=dtype, name=name)
