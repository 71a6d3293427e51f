"""What TensorBoard shows of a finished run beside its curves: hyperparameters and results, in its HPARAMS tab."""

from pathlib import Path
from typing import Any

from bench.reading import Number, Text, read_object, shape_of
from bench.train.folder import ACCURACY, BOARD
from bench.train.result import read_result

_SUFFIX = ".summary"  # of the name of the one event file that is written here
_HYPERPARAMETERS = (
    "strategy", "method", "trainable_layers", "rank", "alpha", "scaling", "learning_rate", "warmup_steps", "epochs",
    "batch", "accumulation", "length", "precision", "impl", "seed", "world_size", "model",
)  # fmt: skip
_RESULTS = ("final_loss", "wall_s", "tokens_per_s", "peak_mib")
_SHARES = shape_of({"average": Number, "categories": dict[Text, Number | None]})


def write_board(folder: Path) -> None:
    """Writes train.json's hyperparameters and results, and accuracy.json's shares in percent where it is there, into
    tensorboard/ of a folder of `bench train`: one file, in place of the one of an earlier call. Raises OSError."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    told = read_result(folder)
    results = {f"result/{name}": told[name] for name in _RESULTS if told.get(name) is not None}
    results |= _accuracy(folder / ACCURACY)
    # TensorBoard takes the columns of the first run that it reads, so each has all of them: 0 where a method has none.
    given: dict[str, Any] = {name: 0 if told.get(name) is None else told[name] for name in _HYPERPARAMETERS}
    for old in (folder / BOARD).glob(f"*{_SUFFIX}"):
        old.unlink()
    columns = {**dict.fromkeys(f"result/{name}" for name in _RESULTS), "accuracy/average": None, **results}
    with SummaryWriter(str(folder / BOARD), filename_suffix=_SUFFIX) as writer:
        for part in hparams(given, columns):
            writer.file_writer.add_summary(part)
        for tag, value in results.items():
            writer.add_scalar(tag, value, told.get("steps") or 0)


def _accuracy(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    found = read_object(path, _SHARES)
    shares = {"average": found.get("average"), **(found.get("categories") or {})}
    return {f"accuracy/{name}": share for name, share in shares.items() if share is not None}
