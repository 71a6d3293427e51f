"""What a file of weights says of itself, before a library takes it: names, shapes and dtypes of its tensors."""

from pathlib import Path
from pickle import UnpicklingError

from bench.errors import UserError, short

_FLOATS = ("F64", "F32", "F16", "BF16")


def reason(e: Exception) -> str:
    """What a library raised over files, as a part of a sentence. torch's own words would have a person run a pickle."""
    said = "it holds more than tensors" if isinstance(e, UnpicklingError) else " ".join(str(e).split())[:300]
    return f"{type(e).__name__}: {said}"


def check_weights(path: Path) -> None:
    """Raises UserError where a .safetensors file is torn, or holds weights that are no plain floats.

    transformers and PEFT would cast whole or complex numbers to the model's dtype without a word.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, no dictionary
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be loaded ({type(e).__name__}: {e}); copy it again") from None
    for name, kind in kinds.items():
        if name.endswith("weight") and kind not in _FLOATS:  # masks and the like may have other dtypes
            raise UserError(f"{path}: {short(name)} has dtype {kind}. Weights should be of {', '.join(_FLOATS)}.")
