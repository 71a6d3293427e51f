"""A request to train, checked before anything heavy is loaded or anything is changed."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.case.shapes import takes_turns
from bench.devices import gpus
from bench.errors import UserError, install, listed, one_of, short
from bench.methods.requirements import optimizer
from bench.reading import is_there
from bench.record.environment import version
from bench.train.branches import FUSED
from bench.train.branches import METHODS as PEFTS
from bench.train.data import Item, read_items
from bench.train.hub import check_checkpoint, offline_where_all_is_here
from bench.train.strategy import Strategy, read_strategy

IMPLS = ("auto", "peft", "triton")
SAVES = ("delta", "full")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Request:
    """What the flags say. None where the strategy's own value stands."""

    strategy: str
    model: str
    data: str | None
    out: Path
    epochs: int | None = None
    learning_rate: float | None = None
    batch: int | None = None
    accumulation: int | None = None
    length: int | None = None
    precision: str | None = None
    seed: int = 0
    checkpoint_every: int = 50
    impl: str = "auto"
    save: str = "delta"
    device: str = "auto"
    fresh: bool = False
    warmup_steps: int | None = None


@dataclass(frozen=True)
class Plan:
    """A request that was checked, and everything it needs but the model."""

    request: Request
    name: str
    strategy: Strategy
    items: list[Item]
    on_cpu: bool
    impl: str
    world_size: int
    rank: int

    @property
    def settings(self) -> dict[str, Any]:
        """What makes the run what it is: a run with others is another run."""
        told = json.dumps([dataclasses.astuple(item) for item in self.items]).encode()
        return {
            "strategy": self.name,
            **self.strategy.model_dump(exclude={"description"}),
            "scaling": None if self.strategy.scaling == "standard" else self.strategy.scaling,  # as where it was no key
            "model": absolute(self.request.model),
            "data_sha256": hashlib.sha256(told).hexdigest(),
            "seed": self.request.seed,
            "impl": self.impl,
            "save": self.request.save,
            "device": "cpu" if self.on_cpu else "cuda",
            "world_size": self.world_size,
        }


def make_plan(request: Request, rank: int, say: Callable[[str], None]) -> Plan:
    """Raises UserError where the request cannot be carried out. Says what is asked before it reads or imports anything
    that takes its time."""
    for flag, value, valid in (
        ("--impl", request.impl, IMPLS),
        ("--save", request.save, SAVES),
        ("--device", request.device, DEVICES),
    ):
        if value not in valid:
            raise UserError(one_of(flag, value, valid))
    name, strategy = read_strategy(
        request.strategy,
        epochs=request.epochs,
        learning_rate=request.learning_rate,
        batch=request.batch,
        accumulation=request.accumulation,
        length=request.length,
        precision=request.precision,
        warmup_steps=request.warmup_steps,
    )
    model = called(request.model)
    if strategy.method == "none":
        say(f"{name}: {model}; nothing trains")
        check_checkpoint(request.model)
        return Plan(request, name, strategy, [], True, "auto", 1, rank)
    if takes_turns(strategy.trainable_layers) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"trainable_layers {strategy.trainable_layers} trains in one process: start one, or take other layers"
        )
    if request.data is None:
        raise UserError("--data: a JSONL file, a folder with train.jsonl, or the id of a Hub dataset is needed")
    _check_packages(strategy)
    say(f"{name}: {model}, {strategy.precision}, {device_word(request.device)}; reading {called(request.data)}")
    items = read_items(request.data, "train")
    say(f"{len(items):,} examples; loading")
    check_checkpoint(request.model)
    offline_where_all_is_here(request.model, request.data)
    on_cpu = _on_cpu(request.device)
    if on_cpu and strategy.precision == "amp-fp16":
        raise UserError("precision amp-fp16 needs a GPU; on the CPU pass --precision fp32, bf16 or amp-bf16")
    if why := optimizer(strategy.optimizer, "cpu" if on_cpu else "cuda"):
        raise UserError(f"{why}; or take optimizer adamw")
    impl = _impl(request.impl, strategy, on_cpu)
    return Plan(request, name, strategy, items, on_cpu, impl, int(os.environ.get("WORLD_SIZE", "1")), rank)


def _check_packages(strategy: Strategy) -> None:
    wanted = ["accelerate", "tensorboard", *(["peft"] if strategy.method in PEFTS else [])]
    missing = [package for package in wanted if version(package) is None]
    if missing:
        raise UserError(f"training needs {', '.join(missing)}. Install them: {install('train')}")
    if strategy.method == "qlora":
        need_bitsandbytes("method qlora")


def need_bitsandbytes(what: str) -> None:
    """Raises UserError where the package is not installed."""
    if version("bitsandbytes") is None:
        raise UserError(f"{what} needs bitsandbytes, which is not installed. Install it: {install('quant')}")


def called(name: str) -> str:
    """A folder, a file or a Hub id without what stands before its last part, for a line that tells what is going on."""
    word = Path(absolute(name)).name or name
    return word if len(word) <= 100 else short(word, 100)


def device_word(flag: str) -> str:
    """What --device comes to, told without torch, which takes seconds to import: 'cpu', or 'cuda:0 (NVIDIA H100)'."""
    found = [] if flag == "cpu" else gpus()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return f"cuda:{local} ({found[min(local, len(found) - 1)].name})" if found else "cpu" if flag == "auto" else flag


def _on_cpu(device: str) -> bool:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here. Pass --device cpu, or auto.")
    return device == "cpu" or not torch.cuda.is_available()


def _impl(impl: str, strategy: Strategy, on_cpu: bool) -> str:
    """How LoRA and its kin are computed: fused where there is a GPU for it. The other methods have one form."""
    if strategy.method not in FUSED:
        if impl != "auto":
            valid = f"for strategies of method {listed(FUSED)}"
            raise UserError(f"--impl {impl}: {valid}; this one is {strategy.method}")
        return "auto"
    if impl == "auto":
        return "peft" if on_cpu or version("triton") is None else "triton"
    return impl


def absolute(model: str) -> str:
    """A folder's full path, so that what was trained from it finds it from anywhere; a Hub id as it is."""
    path = Path(model)
    return str(path.resolve()) if is_there(path.is_dir) else model
