"""What was trained, or a plain checkpoint, loaded for inference."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError, short
from bench.reading import is_there
from bench.train.adapter import adapter_in, base_of, with_adapter
from bench.train.folder import MODEL, RESULT, SETTINGS
from bench.train.hub import check_checkpoint, check_plain, code_of_its_own, unreachable
from bench.train.plan import need_bitsandbytes
from bench.train.result import read_result
from bench.train.weights import reason

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_trained_model(
    source: str, device: str, dtype: "torch.dtype | None" = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A model in eval mode on `device`, and its tokenizer.

    source: a folder of `bench train`, of whatever method; a LoRA folder of PEFT; a PaCA folder; a checkpoint folder; a
    Hub id. LoRA's branches stay beside the weights, PaCA's columns lie inside of them. Weights are quantised as they
    were in training; a folder of PEFT's does not say that they were. dtype of the weights: by default the one in which
    they were trained, or else stored. No code of a checkpoint is run. Raises UserError where there is no such thing.
    """
    found = find(source)
    if dtype is None and found.precision is not None:
        import torch

        dtype = torch.bfloat16 if found.precision == "bf16" else torch.float32
    model, tokenizer = load_checkpoint(found.base, dtype or "auto", str(found.folder) if found.kind else found.base)
    if found.method == "qlora":
        from bench.train.quantised import quantise_qlora

        try:
            quantise_qlora(model, device, model.dtype)
        except ValueError as e:
            raise UserError(f"{source}: {e}; load it on a GPU") from e
    if found.kind:
        model = with_adapter(model, found.folder, found.kind, device)
    return model.to(device).eval(), tokenizer


@dataclass(frozen=True)
class Found:
    """Where a model lies: the checkpoint (a folder or a Hub id), what was trained beside it, and in which precision."""

    base: str
    folder: Path
    kind: str | None  # the name of the file that makes `folder` an adapter's
    precision: str | None = None  # of a folder of bench train
    method: str | None = None  # of such a folder with an adapter


def find(source: str) -> Found:
    """What load_trained_model would load, every file of it checked. Raises UserError."""
    folder = Path(source)
    precision = method = None
    if is_there((folder / SETTINGS).is_file):
        if not (folder / RESULT).is_file():
            raise UserError(f"{source}: its training is not finished; give the same bench train again")
        result = read_result(folder)
        if result["method"] == "none":
            folder = Path(result["model_path"])
        else:
            folder = folder / MODEL
            precision, method = result["precision"], result["method"]
    kind = adapter_in(folder)
    base = base_of(folder, kind) if kind else str(folder)
    check_checkpoint(base)
    if kind:
        check_plain(folder)
    if method == "qlora" and kind:
        need_bitsandbytes("a model that QLoRA trained")
    return Found(base, folder, kind, precision, method if kind else None)


def stands_on(source: str) -> str:
    """The checkpoint, a folder or a Hub id, that a folder with an adapter was trained from; any other source itself."""
    kind = adapter_in(Path(source))
    return base_of(Path(source), kind) if kind else source


def load_checkpoint(source: str, dtype: Any, tokenizer: str | None = None) -> tuple[Any, Any]:
    """The model of a checkpoint on the CPU, and its tokenizer or that of another folder, as transformers gives them.

    dtype: a torch.dtype, or 'auto' for the stored one. Raises UserError where either cannot be loaded, where the files
    lack a weight of the model, or where the tokenizer has tokens that the model does not know.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = tokenizer or source
    try:
        told = AutoTokenizer.from_pretrained(words, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
        model, info = loaded
        if lacking := sorted(info["missing_keys"]):  # transformers would draw them
            raise ValueError(f"no file holds {lacking[0]}")
        _check_tokens(told, model)
    except Exception as e:  # torn or foreign files, and the Hub: the libraries raise a dozen kinds
        if refused := code_of_its_own(source, e):
            raise refused from None
        if not is_there(Path(source).is_dir):
            raise unreachable("model", source, e) from None
        said = reason(e)
        if "ignore_mismatched_sizes" in said:
            said = "its weights have other sizes than its config.json says"
        raise UserError(f"model {source!r}: cannot be loaded ({said}); copy it again") from e
    return model, told


def _check_tokens(tokenizer: Any, model: Any) -> None:
    """Raises ValueError where a token has no row of embeddings, special ones aside: padding is never looked at."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ValueError(f"the tokenizer's model_max_length is {short(longest)}, no number of tokens")
    rows = model.get_input_embeddings().weight.shape[0]
    special = set(tokenizer.all_special_tokens)
    odd = next((t for t, i in tokenizer.get_vocab().items() if not 0 <= i < rows and t not in special), None)
    if odd is not None:
        raise ValueError(f"the tokenizer's token {short(odd)} is beyond the model's {rows} embeddings")
