"""What the clocks drive: one forward, one backward, one optimizer step, and nothing of how they are timed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.refresh import Refreshed, refreshed_layers
from bench.methods.registry import impl_of
from bench.methods.requirements import paged
from bench.methods.stages import Stages
from kernels import parameter_groups

AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}

# What a forward returns: a loss, an output, or one output for each sibling of a group.
Out = Tensor | tuple[Tensor, ...]

# Steps are timed on one fixed batch, thousands of times over: at a useful rate the weights would run away.
LEARNING_RATE = 1e-8


def autocast(precision: str, device: torch.device, cache: bool = True) -> AbstractContextManager[object]:
    """The context in which a forward runs: autocast under amp-*, else none."""
    dtype = AUTOCAST.get(precision)
    return (
        nullcontext()
        if dtype is None or device.type == "meta"
        else torch.autocast(device.type, dtype=dtype, cache_enabled=cache)
    )


class _Seen(Exception):
    """Ends a forward whose arguments are all that is wanted."""


def called_with(module: nn.Module, forward: Callable[[], object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which `forward` calls a module first; the module itself does not run."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args, kwargs))
        raise _Seen

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad(), suppress(_Seen):
            forward()
    finally:
        hook.remove()
    return seen[0]


def make_optimizer(word: str | None, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of a word of the axis: torch's fused AdamW where it is None, torch's fused SGD without momentum, or
    one of bitsandbytes."""
    if word in (None, "sgd"):
        kind = torch.optim.SGD if word == "sgd" else torch.optim.AdamW
        return kind(groups, lr=LEARNING_RATE, fused=device.type in ("cpu", "cuda"))
    from bitsandbytes import optim

    of_bitsandbytes = optim.AdamW8bit if str(word).endswith("8bit") else optim.AdamW  # whose states are fp32
    made: torch.optim.Optimizer = of_bitsandbytes(groups, lr=LEARNING_RATE, is_paged=paged(word))
    return made


def set_checkpointing(model: nn.Module, case: Case, preserve_rng_state: bool = True) -> None:
    """Turns on what the axis gradient_checkpointing of a case says, in what was built for it."""
    if case.gradient_checkpointing is None:
        return
    from bench.models import checkpointing  # torch.utils.checkpoint, which most cases do without

    impl = impl_of(case)
    inside = not (impl.in_place or impl.tuned)  # the kernels write into what a product gave, too
    more = {"preserve_rng_state": preserve_rng_state, "inside": inside}
    if case.level == "model":
        checkpointing.checkpoint_blocks(model, case.gradient_checkpointing, **more)
    else:
        checkpointing.checkpoint_block(model.get_submodule("block"), case.gradient_checkpointing, **more)


@dataclass
class Prepared:
    """A model before any method is applied to it, and its forward."""

    model: nn.Module
    x: Tensor | None  # the input, where it requires grad
    call: Callable[[], Out]
    dropout: float  # the largest of the model's own, in training mode


@dataclass
class Work:
    """A model, its inputs, and exactly what should get gradients.

    leaves: the trained parameters by their names in the model, and 'x' where the input requires grad; where blocks take
    turns (lisa-G) those of the stage that `select` chose last, of the first at first.
    model: at level model the language model; at levels block and linear a container of `block` or `layer`.
    Autocast casts as usual for eager code; set `autocast_cache` to False to capture a CUDA graph.
    """

    case: Case
    device: torch.device
    model: nn.Module
    leaves: list[tuple[str, Tensor]]
    model_dropout: float  # largest dropout of the model itself, adapters aside
    call: Callable[[], Out] = field(repr=False)  # the forward alone, outside of autocast
    seed: int = 0
    autocast_cache: bool = True
    _grad_outs: tuple[Tensor, ...] = field(default=(), init=False, repr=False)
    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False, repr=False)
    _refreshed: list[Refreshed] = field(default_factory=list, init=False, repr=False)
    _stages: Stages = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._refreshed = refreshed_layers(self.model)
        trained = [(name, leaf) for name, leaf in self.leaves if isinstance(leaf, nn.Parameter)]
        self._stages = Stages(self.model, trained, self.case.trainable_layers if self.case.level == "model" else "all")
        if self.stages > 1:
            self.select(0)

    @property
    def stages(self) -> int:
        """How many sets of leaves take turns: one, but under lisa-G."""
        return self._stages.count

    @property
    def everything(self) -> list[tuple[str, nn.Parameter]]:
        """What trains in any stage, by name; x is none of it."""
        return self._stages.everything

    def select(self, stage: int) -> None:
        """The leaves are those of a stage from now on. The optimizer forgets what it kept of those that are left, as
        LISA does, and of the rest nothing is refreshed."""
        state = {} if self._optimizer is None else self._optimizer.state
        self.leaves = [*self._stages.select(stage, lambda p: state.pop(p, None))]
        due: list[Any] = refreshed_layers(self.model)
        self._refreshed = [layer for layer in due if any(p.requires_grad for p in layer.parameters())]

    def ready_optimizer(self) -> None:
        """Has the optimizer make the state of what trains now, as all but the first step after a change find it."""
        for _, leaf in self.leaves:
            leaf.grad = torch.zeros_like(leaf)
        self.optimizer_step()
        self.clear()

    def forward(self) -> Out:
        """The loss (a scalar) at level model, else y (batch, seq, N); of a group, a tuple with the y of each."""
        if self.case.makes_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the last iteration returned may be written over
        with autocast(self.case.precision, self.device, self.autocast_cache):
            return self.call()

    def backward(self, out: Out) -> None:
        """Gradients of all leaves into .grad; the graph is freed. The dX of siblings are summed by autograd.

        amp-fp16 has no GradScaler: it would add one multiplication here, and its check belongs to the step.
        """
        torch.autograd.backward(out, self.grad_out(out))

    def grad_out(self, out: Out) -> Out | None:
        """dY of the shape and dtype of `out`: fixed, N(0, 1) / sqrt(tokens), so that a weight's gradient is about 1.

        A tuple where `out` is one; None for a loss, whose gradient is 1.
        """
        outs = (out,) if isinstance(out, Tensor) else out
        if outs[0].dim() == 0:
            return None
        if [(dy.shape, dy.dtype) for dy in self._grad_outs] != [(y.shape, y.dtype) for y in outs]:
            generator = None if outs[0].is_meta else torch.Generator(self.device).manual_seed(self.seed + 1)
            drawn = [torch.randn(y.shape, generator=generator, device=y.device, dtype=torch.float32) for y in outs]
            self._grad_outs = tuple((dy / self.case.tokens**0.5).to(y.dtype) for dy, y in zip(drawn, outs, strict=True))
        return self._grad_outs[0] if isinstance(out, Tensor) else self._grad_outs

    def clear(self) -> None:
        """Drops the gradients of all leaves."""
        for _, leaf in self.leaves:
            leaf.grad = None

    def ready(self) -> None:
        """Gradients as a micro-step finds them: none, or where they accumulate zeros to add to, as all but a first do.

        x has none either way: in a model it is an inner tensor.
        """
        for name, leaf in self.leaves:
            if self.micro_steps == 1 or name == "x":
                leaf.grad = None
            elif leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            else:
                leaf.grad.zero_()

    def check_leaves(self) -> None:
        """After forward and backward: every leaf has a gradient of its shape, and nothing else in the model has one.

        Raises RuntimeError that names what is wrong.
        """
        for name, leaf in self.leaves:
            if leaf.grad is None:
                raise RuntimeError(f"{name} should get a gradient and has none")
            if leaf.grad.shape != leaf.shape:
                raise RuntimeError(f"{name} of shape {tuple(leaf.shape)} got a gradient of {tuple(leaf.grad.shape)}")
        declared = {id(leaf) for _, leaf in self.leaves}
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in declared and parameter.grad is not None:
                raise RuntimeError(f"{name} is frozen and got a gradient")

    @property
    def trainable_params(self) -> int:
        """Trained values, counted on what was built: under lisa-G those of this stage. x is none of them."""
        return sum(leaf.numel() for name, leaf in self.leaves if name != "x")

    @property
    def micro_steps(self) -> int:
        """Forward and backward passes whose gradients add up before an optimizer step."""
        return self.case.micro_steps

    def optimizer_step(self, learning_rate: float | None = None) -> None:
        """One step of the case's optimizer on the gradients that are there. A refresh is due after it, no part of it.

        The optimizer is made at the first call: AdamW's state takes two values for each trained one. learning_rate: in
        place of LEARNING_RATE, at which hardly a value moves, from this step on.
        """
        if self._optimizer is None:
            for _, parameter in self.everything:  # those of later stages are among its groups, and as yet have no state
                parameter.requires_grad_(True)
            groups = [g for g in parameter_groups(self.model, weight_decay=0.01) if g["params"]]
            self._stages.select(self._stages.current)
            self._optimizer = make_optimizer(self.case.optimizer, groups, self.device)
        for group in self._optimizer.param_groups if learning_rate is not None else ():
            group["lr"] = learning_rate
        self._optimizer.step()

    @contextmanager
    def capturable(self) -> Iterator[None]:
        """Inside of it a CUDA graph can be captured: autocast has no cache, whose casts would be missing from a replay,
        and checkpoints do not read the random state, which a capture forbids. Nothing may drop then."""
        cache, self.autocast_cache = self.autocast_cache, False
        set_checkpointing(self.model, self.case, preserve_rng_state=False)
        try:
            yield
        finally:
            self.autocast_cache = cache
            set_checkpointing(self.model, self.case)

    @property
    def uncapturable(self) -> str | None:
        """Why capturing it is not even tried, for people."""
        if self.case.makes_graphs:
            return f"compile {self.case.compile} makes CUDA graphs of its own, which no other graph can hold"
        if self.case.gradient_checkpointing and (self.model_dropout or self.case.dropout):
            return "what checkpoints drop must be drawn again, and a capture forbids to read the random state for that"
        return None

    @property
    def has_refresh(self) -> bool:
        return bool(self._refreshed)

    def refresh(self) -> None:
        """What is due once per optimizer step: PaCA's column refresh, the merge of a merged LoRA; mostly nothing."""
        for layer in self._refreshed:
            layer.refresh()
