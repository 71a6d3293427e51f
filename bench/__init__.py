"""lorabench: which way of fine-tuning is really faster on this GPU, and why. `bench.read` gives its results to
pandas."""

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"

# Where Hugging Face's package `kernels` is installed, transformers wraps functions of its models for it, and fetches
# code from the Hub while it builds some. Here models are the same with that package and without it.
os.environ["USE_HUB_KERNELS"] = "NO"
logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)  # it warns that this is so
# transformers imports torchao where it is installed, which then warns of libraries for GPUs that a CPU build of torch
# cannot load, and registers enums with torch in a way that torch warns of.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def read(folder: "str | os.PathLike[str]", **where: Any) -> "pd.DataFrame":
    """The rows of a results folder as a DataFrame: a line for each case, pass, clock and repeat.

    All columns of docs/columns.md are always there, in their order and with the types stated there, whatever the age
    of the folder. Each type knows a missing value: an empty cell means not measured.

    where: column=value, or column=[value, value]: only those rows. Python reserves the word `pass`, so write `pass_`
    here, and frame["pass"] where you would write frame.status for another column.

    The table of ratios to the baseline, which is Full-FT eager where it was measured, takes two lines:

        frame = bench.read("results/cpu/reference/table1", clock="cpu-time", pass_="forward-backward", status="ok")
        frame.pivot_table("ratio", index=["model", "method", "impl"], columns=["batch", "seq"])

    ratio_to is the baseline's case_id: where it equals case_id, the row is the baseline itself. To group rows that may
    be compared, group by `comparison`, `pass`, `clock` and `repeat`, which no row lacks; by an axis that may be empty,
    such as layer, only with dropna=False.

    Raises bench.errors.UserError for a damaged record, with its line, for a folder without one, and for an unknown
    column; warns where the last line is torn.
    """
    from pathlib import Path

    from bench.record.frame import read_frame

    return read_frame(Path(folder), where)
