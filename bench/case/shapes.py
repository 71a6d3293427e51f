"""Models and their shapes, without torch: what `list` shows and what trainable counts are made of."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from math import lcm
from pathlib import Path
from random import Random
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


LISA = "lisa-"
_PERMUTATIONS = 32  # among which that of lisa-G is chosen

# What trainable_layers may say, for people.
LAYER_WORDS = (
    "all, upper-1/2, upper-3/4, every-2nd (every-Nth: the top block and every Nth below it), lisa-1 (lisa-G: G blocks"
    " at a time, by turns), or a count of top blocks"
)


def layer_words(num_layers: int) -> str:
    """What trainable_layers may say of a model with so many blocks."""
    return f"{LAYER_WORDS} up to {num_layers}"


def trainable_blocks(trainable_layers: str, num_layers: int) -> int:
    """How many blocks train at a time: all, upper-1/2, upper-3/4 or a count of top ones; every-Nth: the top block and
    every Nth below it; lisa-G: G of them, and others at another time (lisa_stages).

    A fraction rounds to the nearest whole block, up on a tie. Raises ValueError on anything else.
    """
    if trainable_layers == "all":
        return num_layers
    if trainable_layers.startswith("upper-"):
        try:
            share = Fraction(trainable_layers.removeprefix("upper-"))
        except ZeroDivisionError:
            share = Fraction(0)
        if not 0 < share <= 1:
            raise ValueError(f"{trainable_layers!r}: the fraction must be above 0 and at most 1")
        return int(share * num_layers + Fraction(1, 2))  # int() cuts, so adding a half rounds up on a tie
    if trainable_layers.startswith("every-"):
        return -(-num_layers // _every(trainable_layers, num_layers))
    count = _number(trainable_layers, trainable_layers.removeprefix(LISA))
    if count < 1:
        raise ValueError(f"{trainable_layers!r}: at least 1 block trains")
    if count > num_layers:
        raise ValueError(f"{trainable_layers!r}: {_has(num_layers)}")
    return count


def trained_block_indices(trainable_layers: str, num_layers: int) -> tuple[int, ...]:
    """The blocks that train, ascending, 0 being the lowest; of lisa-G those of the first stage. Raises ValueError as
    trainable_blocks does."""
    return lisa_stages(trainable_layers, num_layers)[0]


def adapted_block_indices(trainable_layers: str, num_layers: int) -> tuple[int, ...]:
    """The blocks that train at some time, and so carry an adapter at all times."""
    stages = lisa_stages(trainable_layers, num_layers)
    return tuple(sorted({i for stage in stages for i in stage}))


def takes_turns(trainable_layers: str) -> bool:
    """Whether it is lisa-G, whose blocks train by turns."""
    return trainable_layers.startswith(LISA)


def trains_ends(trainable_layers: str) -> bool:
    """Whether full fine-tuning trains embeddings, final norm and head too: of the whole model, and in LISA, which
    leaves them out of its turns (Pan et al., 2024, section 3.2)."""
    return trainable_layers == "all" or takes_turns(trainable_layers)


@cache
def lisa_stages(trainable_layers: str, num_layers: int) -> tuple[tuple[int, ...], ...]:
    """The sets of blocks that train one after the other, each ascending, as one cycle; a single set but for lisa-G.

    LISA (Pan et al., 2024, algorithm 1) draws G blocks anew every few steps. Here they come from one permutation of the
    blocks, G after G and from its beginning again, until it ends with the end of a set: every set has G blocks, and
    over the cycle every block trains equally often. Of some seeded permutations it is the one whose lowest trained
    blocks lie, on average, nearest to where those of random sets lie: how far down gradients must go is the cost of it.
    """
    count = trainable_blocks(trainable_layers, num_layers)
    if trainable_layers.startswith("every-"):
        step = _every(trainable_layers, num_layers)
        return (tuple(range((num_layers - 1) % step, num_layers, step)),)
    if not takes_turns(trainable_layers):
        return (tuple(range(num_layers - count, num_layers)),)
    wanted = (num_layers - count) / (count + 1)  # the mean of the least of `count` different numbers from 0 on
    drawn = [_cycle(seed, count, num_layers) for seed in range(_PERMUTATIONS)]
    return min(drawn, key=lambda stages: abs(sum(stage[0] for stage in stages) / len(stages) - wanted))


def _cycle(seed: int, count: int, num_layers: int) -> tuple[tuple[int, ...], ...]:
    random = Random(seed)
    order = sorted(range(num_layers), key=lambda _: random.random())  # random() alone is the same in every Python
    return tuple(
        tuple(sorted(order[(start + i) % num_layers] for i in range(count)))
        for start in range(0, lcm(num_layers, count), count)
    )


def _every(trainable_layers: str, num_layers: int) -> int:
    """N of every-Nth."""
    word = trainable_layers.removeprefix("every-")
    n = _number(trainable_layers, word[:-2])
    if word != (right := ordinal(n)):
        raise ValueError(f"{trainable_layers!r}: write every-{right}")
    if n < 2:
        raise ValueError(f"{trainable_layers!r}: every-2nd is the first of its kind")
    if n > num_layers:
        raise ValueError(f"{trainable_layers!r}: {_has(num_layers)}")
    return n


def _has(num_layers: int) -> str:
    return f"the model has {num_layers} block{'s' * (num_layers != 1)}"


def _number(trainable_layers: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise ValueError(f"{trainable_layers!r}: there is no such word")
    return int(digits)


def ordinal(n: int) -> str:
    """'1st', '2nd', '11th', '22nd'."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def layers_text(trainable_layers: str) -> str:
    """'the top 12 blocks', 'every 2nd block', '2 blocks at a time (LISA)'; other words as they are."""
    if trainable_layers.isdigit():
        return f"the top {trainable_layers} blocks"
    if trainable_layers.startswith("every-"):
        return f"every {trainable_layers.removeprefix('every-')} block"
    if takes_turns(trainable_layers):
        count = trainable_layers.removeprefix(LISA)
        return f"{count} block{'s' * (count != '1')} at a time (LISA)"
    return trainable_layers
