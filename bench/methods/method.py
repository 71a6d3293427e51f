"""What a method is: what trains, what that costs by closed form, how it is shown, and its implementations. No torch.

With M tokens, K inputs, N outputs and rank r, a frozen linear layer costs 2 M N K forward and, where its input requires
grad, as much again for dX. A method says what comes on top of that, layer by layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from bench.case import Case

INT64 = 8  # bytes

# What Method.kept says of methods whose backward needs no layer's input: attention, norms and activations alone.
# Counted with torch's saved-tensor hooks on transformers' blocks.
KEPT_WITHOUT_INPUTS = {
    "gpt2": (20, 8, 0, 0), "llama": (8, 6, 4, 4), "mistral": (8, 6, 4, 4), "qwen3": (8, 6, 8, 8),
    "gemma3_text": (16, 6, 8, 8), "phi3": (8, 6, 6, 6),
}  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """One linear layer, as far as a method's formulas go."""

    n: int  # outputs
    k: int  # inputs
    weights: int  # values, the bias among them


@dataclass(frozen=True)
class Widths:
    """Bytes of one value."""

    compute: int  # of GEMMs' operands, outputs and their gradients
    param: int  # of parameters, their gradients, and the residual stream
    adapter: int  # of what an adapter trains, and its gradient
    saved: int  # of S = x A^T, and of A and B as backward reads them
    x: int  # of a linear layer's input: at level linear a leaf of the parameters' dtype


def _nothing(_case: Case, _device: str) -> str | None:
    return None


@dataclass(frozen=True)
class Impl:
    """One way of computing a method.

    `module` has a function apply(model, case) -> [(name, parameter)], and where its rows need a remark a function
    note(model, case) -> str, asked after the model has run. By default it is the module of the impl's name beside the
    method's method.py.
    """

    says: str  # one line for people
    refuses: Callable[[Case, str], str | None] = _nothing  # (case, device) -> why it cannot be, or None
    cannot: Mapping[str, str] = field(default_factory=dict)  # passes that are not timed, with the reason
    fp32_adapters: bool = False  # whatever the model's dtype
    in_fp32: str = ""  # the impl that it is where the model is fp32, autocast included; a sweep means that one there
    in_place: bool = False  # writes into the result of a product, which selective checkpointing must not keep then
    tuned: bool = False  # runs this project's kernels, which do so too, and whose tiles a tuning may have chosen
    module: str = ""

    def load(self) -> Callable[..., Any]:
        """Imports the implementation, torch with it."""
        return import_module(self.module).apply

    def remark(self) -> Callable[..., str] | None:
        """Its function `note`, if it has one."""
        return getattr(import_module(self.module), "note", None)


class Method(ABC):
    """A way of fine-tuning. One instance, METHOD, stands in the method.py of a folder that has the method's name, with
    an underscore for a hyphen; its implementations and its reference, reference.py, lie beside it.

    Formulas count values, FLOPs and bytes of one linear layer whose weights the method adapts.
    """

    label: str  # in tables
    colours: tuple[str, ...]  # one hue, dark to light: of fused kernels in figures, of others, of textbook PyTorch
    axes: tuple[str, ...] = ("rank", "alpha", "targets", "adapter_dtype")  # those of the adapter that apply
    adapts: bool = True  # leaves the weights and adds to them; False: the weights themselves train
    reads_x: bool = True  # backward needs the layer's input
    quantises: bool = False  # the weights that it adapts are stored in fewer bits, and dequantised in every pass
    branch: bool = False  # computes S = x A^T beside the layer
    impls: Mapping[str, Impl]

    @abstractmethod
    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        """Values that train, of each tensor: an 8-bit optimizer keeps the state of small ones in fp32."""

    def trained(self, layer: Linear, rank: int) -> int:
        """Values that train in all."""
        return sum(self.tensors(layer, rank))

    @abstractmethod
    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        """Beyond the 2 M N K of x W^T."""

    @abstractmethod
    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        """Beyond the 2 M N K of dX; x_grad: the layer's input requires grad."""

    @abstractmethod
    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        """(fresh, inner): what is read beside x and W from outside, and what is written for backward."""

    @abstractmethod
    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        """(fresh, reused): gradients that are written, and what is read again beside x, W and dY."""

    def resting_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        """Backward, beyond the 2 M N K of dX, of an adapter that is there and does not train: in LISA, while other
        blocks do. By default as forward: what is linear in x costs as much in dX."""
        return self.forward_flops(layer, tokens, rank)

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        """What forward, or backward for dX, reads of an adapter that is there and does not train; width: of a value."""
        return 0

    def products(self, dropout: bool) -> int:
        """Products with the whole weight in forward, 2 M N K each; dX has as many."""
        return 1

    def weight_bytes(self, layer: Linear, width: Widths) -> int:
        """Of the layer's stored weight and bias; less than its values' where the base is quantised."""
        return layer.weights * width.param

    def refresh_bytes(self, layer: Linear, rank: int, width: Widths) -> tuple[int, int]:
        """(reused, fresh) of what is due after an optimizer step; mostly nothing."""
        return 0, 0

    def adapter_bytes(self, values: int, layers: int, rank: int, width: Widths) -> int:
        """Memory of the adapters in all: `values` that train, in so many layers."""
        return values * width.adapter

    def untrained_bytes(self, layer: Linear, rank: int, width: Widths) -> int:
        """Memory of what the adapter of one layer holds beside its trained values, as LoRA-FA's frozen A."""
        return 0

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        """Bytes that a decoder block keeps for backward, for each token, in 16 bit: factors of the hidden size, of the
        MLP's inner width, of q's and of k's width. None where that was never counted."""
        return None

    def complaint(self, case: Case) -> tuple[str, str] | None:
        """(axis, why) where no impl could express the case; None where the method has nothing against it."""
        return None
