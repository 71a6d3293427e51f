"""What was trained, or a plain checkpoint, loaded for inference."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError, install
from bench.train.folder import MODEL, RESULT, SETTINGS
from bench.train.hub import check_checkpoint, unreachable

_LORA, _PACA = "adapter_config.json", "paca_config.json"

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_trained_model(
    source: str, device: str, dtype: "torch.dtype | None" = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A model in eval mode on `device`, and its tokenizer.

    source: a folder of `bench train`, of whatever method; a LoRA folder of PEFT; a PaCA folder; a checkpoint folder; a
    Hub id. LoRA's branches stay beside the weights, PaCA's columns lie inside of them. dtype of the weights: by
    default the one in which they were trained, or else stored. Raises UserError where there is no such thing.
    """
    import torch

    folder = Path(source)
    wanted: Any = dtype or "auto"
    if (folder / SETTINGS).is_file():
        if not (folder / RESULT).is_file():
            raise UserError(f"{source}: its training is not finished; give the same bench train again")
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        if result["method"] == "none":
            return load_trained_model(result["model_path"], device, dtype)
        folder = folder / MODEL
        wanted = dtype or (torch.bfloat16 if result["precision"] == "bf16" else torch.float32)
    kind = next((name for name in (_LORA, _PACA) if (folder / name).is_file()), None)
    base = _base(folder / kind) if kind else str(folder) if folder.is_dir() else source
    check_checkpoint(base)
    model, tokenizer = load_checkpoint(base, wanted, str(folder) if kind else base)
    if kind:
        model = _with_adapter(model, folder, kind)
    return model.to(device).eval(), tokenizer


def _with_adapter(model: Any, folder: Path, kind: str) -> Any:
    try:
        if kind == _LORA:
            from peft import PeftModel

            return PeftModel.from_pretrained(model, str(folder)).get_base_model()
        from kernels.paca import load_paca

        return load_paca(model, folder, trainable=False)
    except ImportError:
        raise UserError(
            f"{folder}: LoRA in PEFT's format needs the package peft. Install it: {install('train')}"
        ) from None
    except Exception as e:  # torn or missing files, or another model's: the libraries raise a dozen kinds
        told = " ".join(str(e).split())[:300]
        raise UserError(f"{folder}: what was trained cannot be loaded ({type(e).__name__}: {told})") from e


def stands_on(source: str) -> str:
    """The checkpoint, a folder or a Hub id, that a folder with an adapter was trained from; any other source itself."""
    config = next((path for name in (_LORA, _PACA) if (path := Path(source) / name).is_file()), None)
    return _base(config) if config else source


def load_checkpoint(source: str, dtype: Any, tokenizer: str | None = None) -> tuple[Any, Any]:
    """The model of a checkpoint on the CPU, and its tokenizer or that of another folder, as transformers gives them.

    dtype: a torch.dtype, or 'auto' for the stored one. Raises UserError where either cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        words = AutoTokenizer.from_pretrained(tokenizer or source)
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype), words
    except Exception as e:  # torn or foreign files, and the Hub: the libraries raise a dozen kinds
        if not Path(source).is_dir():
            raise unreachable("model", source, e) from None
        told = " ".join(str(e).split())[:300]
        raise UserError(f"model {source!r}: cannot be loaded ({type(e).__name__}: {told}); copy it again") from e


def _base(config: Path) -> str:
    """The checkpoint that was tuned, by the key under which PEFT or save_paca names it."""
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as e:
        raise UserError(f"{config}: not valid JSON ({e}); copy the folder again") from None
    base = told.get("base_model_name_or_path") or told.get("base_model")
    if not isinstance(base, str):
        raise UserError(f"{config}: does not say which checkpoint was tuned (base_model_name_or_path or base_model)")
    return base
