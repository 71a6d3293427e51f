"""What was trained beside a checkpoint, in a folder of its own: branches as PEFT saves them, PaCA's columns, biases."""

import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import StrictStr

from bench.errors import UserError, install
from bench.reading import ANY_OBJECT, Count, Flag, Object, is_there, number, read_object, shape_of
from bench.train.formats import BITFIT, BITFIT_SHAPE, QPACA, QPACA_SHAPE
from bench.train.weights import reason

LORA, PACA = "adapter_config.json", "paca_config.json"
_ADVICE = "Copy the folder again."

_Names: Any = list[StrictStr] | StrictStr
_Rank: Any = number(1, 2**16)
_Amount: Any = number(0, 1e9)
# What LoRA of PEFT may say. Variants that need more than its plain layers would mean something else by them.
_SAID = {
    "r": _Rank,
    "lora_alpha": _Amount,
    "lora_dropout": number(0, 1),
    "target_modules": _Names,
    "exclude_modules": _Names,
    "modules_to_save": list[StrictStr],
    "layers_pattern": _Names,
    "layers_to_transform": list[Count] | Count,
    "rank_pattern": dict[StrictStr, _Rank],
    "alpha_pattern": dict[StrictStr, _Amount],
    "bias": Literal["none", "all", "lora_only"],
    "task_type": Literal["CAUSAL_LM"],
    "init_lora_weights": Flag | StrictStr,
    **dict.fromkeys(("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias"), Flag),
    **dict.fromkeys(
        ("megatron_config", "layer_replication", "alora_invocation_tokens", "arrow_config", "use_bdlora", "kasa_config",
         "monteclora_config", "velora_config"),
        Literal[False],
    ),
}  # fmt: skip
_LORA = shape_of({"peft_type": Literal["LORA"], "base_model_name_or_path": StrictStr, **_SAID})
_SHAPES = {LORA: _LORA, PACA: ANY_OBJECT, BITFIT: BITFIT_SHAPE, QPACA: QPACA_SHAPE}  # load_paca reads its own


def adapter_in(folder: Path) -> str | None:
    """The name of the file that makes a folder an adapter's, None for any other folder."""
    return next((name for name in _SHAPES if is_there((folder / name).is_file)), None)


def base_of(folder: Path, kind: str) -> str:
    """The checkpoint that was tuned, by the key under which PEFT or save_paca names it. Raises UserError where the file
    is damaged, or an adapter stands on another."""
    path = folder / kind
    told: Object = read_object(path, _SHAPES[kind], _ADVICE)
    base = told.get("base_model_name_or_path") or told.get("base_model")
    if not isinstance(base, str):
        raise UserError(f"{path}: does not say which checkpoint was tuned (base_model_name_or_path or base_model)")
    if other := adapter_in(Path(base)):
        raise UserError(
            f"{path}: stands on {base}, which is no whole checkpoint: it holds {other}. Merge that one first"
        )
    return base


def with_adapter(model: Any, folder: Path, kind: str, device: str) -> Any:
    """The model with what was trained: branches beside the weights, PaCA's columns inside of them, biases. Of QPaCA the
    weights are quantised, on `device`."""
    try:
        if kind == LORA:
            return _with_lora(model, folder)
        if kind == BITFIT:
            from bench.train.bitfit import load_bitfit

            return load_bitfit(model, folder)
        if kind == QPACA:
            from bench.train.quantised import load_qpaca

            return load_qpaca(model, folder, device)
        from kernels.paca import load_paca

        return load_paca(model, folder, trainable=False)
    except ImportError:
        raise UserError(
            f"{folder}: LoRA in PEFT's format needs the package peft. Install it: {install('train')}"
        ) from None
    except Exception as e:  # torn or missing files, or another model's: the libraries raise a dozen kinds
        raise UserError(f"{folder}: what was trained cannot be loaded ({reason(e)})") from e


def _with_lora(model: Any, folder: Path) -> Any:
    """Raises ValueError where PEFT would leave a branch as it was drawn, or leave something of the file aside."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    folder = folder.resolve()  # PEFT would take a relative path for a Hub id where the folder lacks the weights
    held = load_peft_weights(str(folder), device="cpu")
    for name, tensor in held.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected floats")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Found missing adapter keys")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)  # PEFT asks
        tuned = PeftModel.from_pretrained(model, str(folder))
    branches, expected = ({n for n in names if "lora_" in n} for names in (held, get_peft_model_state_dict(tuned)))
    if len(branches) != len(expected):
        odd = sorted(branches ^ expected)[0]
        raise ValueError(f"{odd} is {'missing' if odd in expected else 'of no layer of the model'}")
    return tuned.get_base_model()
