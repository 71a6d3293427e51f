"""Models and their shapes, without torch: what `list` shows and what trainable counts are made of."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from bench.case.architectures import CLOSED_FORMS, LLAMA_LIKE, ModelShape, Projection, window_of
from bench.case.config_json import read_config
from bench.errors import UserError
from bench.reading import is_there
from bench.yamlfile import load_yaml

HERE = Path(__file__).parent
LONGEST_S = 300  # that transformers may take to build a model without memory; Llama 2 7B takes 3 s, most of it imports

__all__ = ["LLAMA_LIKE", "ModelShape", "Projection"]  # of architectures.py, for everybody


@cache
def _models() -> dict[str, tuple[Mapping[str, Any], tuple[str, ...]]]:
    """The fields of each model of models.yaml, and its ids on the Hub."""
    found = load_yaml(HERE / "models.yaml").value
    return {
        name: ({key: value for key, value in fields.items() if key != "hub"}, tuple(fields.get("hub", ())))
        for name, fields in found.items()
    }


def named_models() -> dict[str, Mapping[str, Any]]:
    """The models of models.yaml, by name."""
    return {name: fields for name, (fields, _) in _models().items()}


def known_name(model: str) -> str | None:
    """The name in models.yaml of a model that is called by it or by its id on the Hub, in any case; None of others."""
    names = {word.casefold(): name for name, (_, ids) in _models().items() for word in (name, *ids)}
    return names.get(model.casefold())


def config_file(model: str) -> Path | None:
    """The config.json at a path, of a file or of its folder; None where there is none."""
    path = Path(model)
    if is_there(path.is_dir):
        path = path / "config.json"
    return path if is_there(path.is_file) else None


def looks_like_hub_id(text: str) -> bool:
    """Whether `text` has the form of a Hub id: owner/name, or the one name of an old model (gpt2)."""
    part = r"[A-Za-z0-9][\w.-]{0,95}"  # as long as huggingface_hub takes it
    return re.fullmatch(f"{part}(/{part})?", text, re.ASCII) is not None


def config_of_hub(model: str) -> Path | None:
    """The config.json of a Hub id as huggingface_hub keeps it on this machine; None where it was never fetched."""
    if "/" not in model or not looks_like_hub_id(model):
        return None
    from huggingface_hub import try_to_load_from_cache  # takes 0.1 s

    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) and is_there(Path(found).is_file) else None


@cache
def model_shape(model: str) -> ModelShape:
    """The shape of a named model, of the config.json at a path, or of a Hub id whose config.json was fetched before.

    Raises UserError where it is none of these, or the file is not a config that transformers understands.
    """
    if model in named_models():
        return _from_config(model, named_models()[model])
    if path := config_file(model) or config_of_hub(model):
        return _from_config(model, read_config(path), path)
    raise UserError(
        f"model: {model!r} is neither a known model ({', '.join(named_models())}) nor the path of a config.json"
    )


def _from_config(name: str, config: Mapping[str, Any], path: Path | None = None) -> ModelShape:
    closed_form = CLOSED_FORMS.get(config["model_type"])
    return ask_transformers(name, path) if closed_form is None else closed_form(name, config)


def ask_transformers(name: str, path: Path | None) -> ModelShape:
    """The shape of an architecture this file has no closed form for, read off the model on the meta device.

    In a process of its own, so that this one stays without torch.
    """
    command = [sys.executable, "-m", "bench.models.inspect", str(path)]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], env=env, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: transformers was still building this model after {LONGEST_S} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{path}: transformers cannot build this model ({last[:300]})")
    found = json.loads(done.stdout)
    projections = tuple(Projection(**p) for p in found.pop("projections"))
    return ModelShape(name=name, projections=projections, window=window_of(found["config"]), **found)


def square(layer: str) -> Projection | None:
    """The projection that `square-N` names, or None for any other layer."""
    head, _, size = layer.partition("-")
    if head != "square" or not (size.isascii() and size.isdigit() and len(size) < 10) or int(size) == 0:
        return None
    return Projection(layer, int(size), int(size), bias=False)


def trainable_blocks(trainable_layers: str, num_layers: int) -> int:
    """How many blocks train, counted from the top: all, upper-1/2, upper-3/4 or a count.

    A fraction rounds to the nearest whole block, up on a tie. Raises ValueError on anything else.
    """
    if trainable_layers == "all":
        return num_layers
    if trainable_layers.startswith("upper-"):
        share = Fraction(trainable_layers.removeprefix("upper-"))
        if not 0 < share <= 1:
            raise ValueError(f"{trainable_layers!r}: the fraction must be above 0 and at most 1")
        return int(share * num_layers + Fraction(1, 2))  # int() cuts, so adding a half rounds up on a tie
    count = int(trainable_layers)
    if not 1 <= count <= num_layers:
        raise ValueError(f"{trainable_layers!r}: the model has {num_layers} blocks")
    return count
