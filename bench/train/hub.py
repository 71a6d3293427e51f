"""Where checkpoints and data come from: a folder, or the Hugging Face Hub, and what to say where neither has them."""

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from pydantic import StrictStr

from bench.case.config_json import read_config
from bench.case.shapes import looks_like_hub_id
from bench.errors import UserError, short
from bench.reading import is_there, read_object, shape_of
from bench.train.adapter import adapter_in
from bench.train.weights import check_weights

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def unreachable(what: str, name: str, reason: Exception) -> UserError:
    """The error for a Hub id that cannot be had. what: data, or model."""
    told = " ".join(str(reason).split())
    kind = " --repo-type dataset" if what == "data" else ""
    return UserError(
        f"{what} {name!r}: no such folder here, and the Hugging Face Hub did not give it"
        f" ({type(reason).__name__}: {told[:200]}). Pass a local folder; where there is network, this makes one:"
        f" hf download {name}{kind} --local-dir {name.rpartition('/')[2]}"
    )


def offline_where_all_is_here(*names: object) -> None:
    """Where all of them are files or folders, no library shall ask the network, and wait for it."""
    if all(is_there(Path(str(name)).exists) for name in names):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


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


def code_of_its_own(model: str, reason: Exception) -> UserError | None:
    """The error for a checkpoint that transformers could only load by running the checkpoint's own Python."""
    if "trust_remote_code" not in str(reason):
        return None
    return UserError(
        f"model {short(model, 300)}: its config.json or its tokenizer's names a class that transformers does not have,"
        " and the code that the checkpoint brings (auto_map) is not run here. Pass a checkpoint of an architecture that"
        " transformers has"
    )


def check_checkpoint(model: str) -> None:
    """Raises UserError where `model` is no checkpoint with config, weights and tokenizer, before anything is loaded."""
    folder = Path(model)
    if is_there(folder.is_dir):
        _check_folder(folder)
    elif is_there(folder.exists):
        raise UserError(f"model {short(model, 300)}: this is no folder. {_CHECKPOINT}.")
    elif not looks_like_hub_id(model):
        raise UserError(f"model {short(model, 300)}: no such folder, and not the id of a model on the Hub (owner/name)")
    else:
        offline_without_network()
        from transformers import AutoConfig
        from transformers.utils import cached_file, find_adapter_config_file

        try:
            AutoConfig.from_pretrained(model, trust_remote_code=False)
            config = Path(str(cached_file(model, "config.json")))
            adapter = find_adapter_config_file(model)
        except Exception as e:  # the libraries raise a dozen kinds: no network, no such id, gated, too old
            raise code_of_its_own(model, e) or unreachable("model", model, e) from None
        _check_whole(model, Path(adapter).name if adapter else None)
        _check_config(config)


_CHECKPOINT = "A checkpoint is the folder that save_pretrained writes or `hf download` makes"


def _check_folder(folder: Path) -> None:
    for what, names in (("config", ("config.json",)), ("weights", _WEIGHTS), ("tokenizer", _TOKENIZERS)):
        if not any(any(folder.glob(name)) for name in names):
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise UserError(
                f"model {str(folder)!r}: holds no {what} ({' or '.join(names)}; found: {there}). {_CHECKPOINT}."
            )
    check_plain(folder)
    _check_whole(str(folder), adapter_in(folder))
    _check_config(folder / "config.json")
    for index in folder.glob("*.index.json"):
        parts = set(read_object(index, _INDEX, "Copy the checkpoint again.")["weight_map"].values())
        for part in sorted(parts):
            if not _is_name(part):
                raise UserError(
                    f"{index}: names {short(part)}, which is no file of its folder; copy the checkpoint again"
                )
        missing = sorted(part for part in parts if not is_there((folder / part).is_file))
        if missing and not _whole_elsewhere(folder, index):
            raise UserError(f"{index}: names {short(missing[0])}, which is not there; copy the checkpoint again")
    for path in folder.glob("*.safetensors"):
        check_weights(path)


def _check_whole(model: str, adapter: str | None) -> None:
    if adapter:  # transformers would load it too, and say nothing
        raise UserError(f"model {model!r}: no whole checkpoint: it holds {adapter}. Merge that one first")


def check_plain(folder: Path) -> None:
    """Raises UserError for a named pipe or a device in a folder, at which a library would wait."""
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: neither file nor folder. A checkpoint has plain files; copy it again.")


_INDEX = shape_of({"weight_map": dict[StrictStr, StrictStr]}, ("weight_map",))


def _check_config(path: Path) -> None:
    found = read_config(path)
    weights = found.get("transformers_weights")
    if weights is not None and not (isinstance(weights, str) and _is_name(weights)):
        raise UserError(f"{path}: transformers_weights is {short(weights)}. It should be the name of a file beside it.")
    if found.get("quantization_config"):
        raise UserError(
            f"{path}: quantization_config is {short(found['quantization_config'])}, and quantized weights are neither"
            " trained nor evaluated here. Pass a checkpoint with plain weights"
        )


def _is_name(part: str) -> bool:
    """Whether it can only be the name of something inside of a folder."""
    return part not in ("", ".", "..") and Path(part).name == part and "\0" not in part


def _whole_elsewhere(folder: Path, index: Path) -> bool:
    """Whether the other of the two formats is there: a copy without the .bin files keeps their index."""
    return "bin" in index.name and any(folder.glob("*.safetensors"))
