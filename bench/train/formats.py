"""What bitfit_config.json and qpaca_config.json say. Without torch, which who looks for them need not import."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictStr

from bench.reading import Count, number, shape_of

BITFIT, QPACA = "bitfit_config.json", "qpaca_config.json"

_BIASES: dict[str, Any] = {"format": Literal[1], "base_model": StrictStr, "biases": dict[StrictStr, Count]}
BITFIT_SHAPE = shape_of(_BIASES, _BIASES)
_COLUMNS: dict[str, Any] = {
    "format": Literal[1], "base_model": StrictStr, "rank": Annotated[Count, Field(gt=0)], "alpha": number(1e-9, 1e9),
    "layers": Annotated[dict[StrictStr, list[Count]], Field(min_length=1)],
}  # fmt: skip
QPACA_SHAPE = shape_of(_COLUMNS, _COLUMNS)
