"""A strategy: what trains, by which method, on which schedule. strategies/ has Table 3 of the paper, and more."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from bench.case.schema import CHECKPOINTING, OPTIMIZERS
from bench.case.shapes import LAYER_WORDS, takes_turns, trainable_blocks
from bench.errors import UserError, did_you_mean, listed, one_of
from bench.methods.registry import methods
from bench.methods.requirements import PAGED_STAYS, paged
from bench.reading import is_there
from bench.yamlfile import Strict, read_strict

STRATEGIES = Path(__file__).parent / "strategies"

Count = Annotated[int, Field(gt=0, lt=2**31)]

Trained = Literal["none", "full", "lora", "dora", "lora-fa", "qlora", "qpaca", "bitfit", "paca"]
METHODS: tuple[str, ...] = get_args(Trained)
LISA_EVERY = 20  # optimizer steps: lisa_interval_steps of LMFlow's script for LISA


def _blocks(value: Any) -> Any:
    """A plain count of top blocks is meant as the word for it. The word itself is checked against no model yet."""
    word = str(value) if type(value) is int else value
    if isinstance(word, str):
        try:
            trainable_blocks(word, 2**31)
        except ValueError as e:
            raise ValueError(f"{e}. Valid: {LAYER_WORDS}.") from None
    return word


_TO_ZERO = "it would pull pretrained columns to zero"
_UNDECAYED = {"paca": _TO_ZERO, "qpaca": _TO_ZERO, "bitfit": "transformers' Trainer never decays biases"}


def adapter_axes(method: str) -> tuple[str, ...]:
    """The axes of its adapter that a method has, as bench/methods says; none where the weights themselves train."""
    found = methods().get(method)
    return found.axes if found is not None and found.adapts else ()


def _optimizer(value: Any) -> Any:
    if value not in OPTIMIZERS:
        raise ValueError(one_of("", value, OPTIMIZERS).removeprefix(": "))
    return value


def _checkpointing(value: Any) -> Any:
    """true and false are meant as full and none, and stand for them: what was trained before has them."""
    if value not in (True, False, *CHECKPOINTING):
        raise ValueError(one_of("", value, ("true", "false", *CHECKPOINTING)).removeprefix(": "))
    return {"none": False, "full": True}.get(value, value)


class Strategy(Strict):
    """One way of fine-tuning. Where a key is left out, Table 3's value common to all strategies stands."""

    description: str = ""
    method: Trained
    trainable_layers: Annotated[str, BeforeValidator(_blocks)] = "all"
    rank: Count | None = None
    alpha: Annotated[float, Field(gt=0, lt=1e6)] | None = None
    scaling: Literal["standard", "rslora"] = "standard"  # of the branch: alpha / rank, or alpha / sqrt(rank)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the adapter's input
    lisa_every: Count | None = None  # optimizer steps after which lisa-G changes its blocks
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    precision: Literal["amp-fp16", "amp-bf16", "bf16", "fp32"] = "amp-fp16"
    optimizer: Annotated[str, BeforeValidator(_optimizer)] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, lt=1e3)] | None = None
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, lt=1e6)] = 1.0
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] = 100
    epochs: Count = 1
    batch: Count = 8  # per process
    accumulation: Count = 4
    length: Annotated[int, Field(ge=2, lt=2**31)] = 512  # tokens; longer examples lose their beginning
    loss_on: Literal["answer", "all"] = "answer"
    gradient_checkpointing: Annotated[bool | str, BeforeValidator(_checkpointing)] = False  # or selective

    @property
    def checkpointing(self) -> str:
        """none, full or selective."""
        given = self.gradient_checkpointing
        return given if isinstance(given, str) else "full" if given else "none"

    @model_validator(mode="after")
    def _fits_its_method(self) -> "Strategy":
        axes = adapter_axes(self.method)
        for key in ("rank", "alpha"):
            if (getattr(self, key) is None) == (key in axes):
                raise ValueError(f"method {self.method} {'needs a' if key in axes else 'has no'} {key}")
        if self.method != "none" and self.learning_rate is None:
            raise ValueError(f"method {self.method} needs a learning_rate")
        for key in ("scaling", "dropout", "targets"):
            if getattr(self, key) != type(self).model_fields[key].default and key not in axes:
                having = [method for method in METHODS if key in adapter_axes(method)]
                raise ValueError(f"method {self.method} has no {key}. It is a key of {listed(having)}.")
        if self.weight_decay and (why := _UNDECAYED.get(self.method)):
            raise ValueError(f"method {self.method} takes no weight_decay: {why}")
        if self.lisa_every is not None and not takes_turns(self.trainable_layers):
            raise ValueError(
                f"trainable_layers is {self.trainable_layers}, which has no lisa_every. It is a key of lisa-G: G blocks"
                " at a time."
            )
        if takes_turns(self.trainable_layers) and paged(self.optimizer):
            raise ValueError(
                f"trainable_layers {self.trainable_layers} takes no optimizer {self.optimizer}: {PAGED_STAYS}. Take"
                f" {self.optimizer.removeprefix('paged-')}."
            )
        return self


def strategy_names() -> list[str]:
    """The strategies that come with the suite."""
    return sorted(p.stem for p in STRATEGIES.glob("*.yaml"))


def read_strategy(strategy: str, **changes: Any) -> tuple[str, Strategy]:
    """The name (the file's stem) and content of a strategy given by name or by path, with `changes` of single keys.

    Raises UserError naming file, line, key, what was found and what would be valid.
    """
    path = STRATEGIES / f"{strategy}.yaml" if strategy in strategy_names() else Path(strategy)
    if not is_there(path.is_file):
        names = strategy_names()
        hint = did_you_mean(strategy, names)
        raise UserError(f"--strategy {strategy}: no such file or strategy.{hint} Strategies: {', '.join(names)}.")
    read, _ = read_strict(path, Strategy, "a strategy")
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return path.stem, Strategy.model_validate({**read.model_dump(), **given})
    except ValidationError as e:  # the file was fine, so it is a change
        first = e.errors(include_url=False)[0]
        flag = f"--{first['loc'][0]}: {first['input']!r}: " if first["loc"] else ""
        raise UserError(f"{flag.replace('_', '-')}{first['msg'].removeprefix('Value error, ')}") from None
