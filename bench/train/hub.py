"""Where checkpoints and data come from: a folder, or the Hugging Face Hub, and what to say where neither has them."""

import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

from bench.errors import UserError

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def looks_like_hub_id(text: str) -> bool:
    """Whether `text` has the form of a Hub id: owner/name, or the one name of an old model (gpt2)."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text) is not None


def unreachable(what: str, name: str, reason: Exception) -> UserError:
    """The error for a Hub id that cannot be had. what: data, or model."""
    told = " ".join(str(reason).split())
    kind = " --repo-type dataset" if what == "data" else ""
    return UserError(
        f"{what} {name!r}: no such folder here, and the Hugging Face Hub did not give it"
        f" ({type(reason).__name__}: {told[:200]}). Pass a local folder; where there is network, this makes one:"
        f" hf download {name}{kind} --local-dir {name.rpartition('/')[2]}"
    )


def offline_without_network(timeout_s: float = 10) -> None:
    """Where the Hub does not answer, makes its libraries use their caches at once instead of retrying for minutes."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout_s).close()
    except urllib.error.HTTPError:
        return  # it answered
    except (OSError, ValueError):
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in ("huggingface_hub.constants", "datasets.config"):  # these read it when they were imported
            if module in sys.modules:
                sys.modules[module].__dict__["HF_HUB_OFFLINE"] = True


def check_checkpoint(model: str) -> None:
    """Raises UserError where `model` is no checkpoint with config, weights and tokenizer, before anything is loaded."""
    folder = Path(model)
    if folder.is_dir():
        _check_folder(folder)
    elif not looks_like_hub_id(model):
        raise UserError(f"model {model!r}: no such folder, and not the id of a model on the Hub (owner/name)")
    else:
        offline_without_network()
        from transformers import AutoConfig

        try:
            AutoConfig.from_pretrained(model)
        except Exception as e:  # the libraries raise a dozen kinds: no network, no such id, gated, too old
            raise unreachable("model", model, e) from None


def _check_folder(folder: Path) -> None:
    for what, names in (("config", ("config.json",)), ("weights", _WEIGHTS), ("tokenizer", _TOKENIZERS)):
        if not any(any(folder.glob(name)) for name in names):
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise UserError(
                f"model {str(folder)!r}: holds no {what} ({' or '.join(names)}; found: {there}); a checkpoint is"
                " the folder that save_pretrained writes or `hf download` makes"
            )
    for index in folder.glob("*.index.json"):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"{index}: not an index of weights; copy the checkpoint again") from None
        missing = sorted(part for part in parts if not (folder / part).is_file())
        if missing and not _whole_elsewhere(folder, index):
            raise UserError(f"{index}: names {missing[0]}, which is not there; copy the checkpoint again")


def _whole_elsewhere(folder: Path, index: Path) -> bool:
    """Whether the other of the two formats is there: a copy without the .bin files keeps their index."""
    return "bin" in index.name and any(folder.glob("*.safetensors"))
