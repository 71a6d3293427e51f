"""DoRA (Liu et al., 2024): y = g (x W^T + s (x A^T) B^T) + b, g = m / ||W + s B A|| by row; A, B and m (N,) train.

W is frozen, and so is the norm as autograd sees it: dm = sum over tokens of dY z / norm for z = x W^T + s x A^T B^T.
"""

from bench.methods.lora.method import of_peft
from bench.methods.method import Impl, Linear, Method, Widths
from bench.methods.requirements import all_of, no_dropout, triton

_kernels = all_of(
    triton, no_dropout("what g adds reads drop(x), a second product with W, for which the kernels have no form")
)


class DoRA(Method):
    """LoRA's products, and B A for the norm; backward scales dY by g and sums dY z over the tokens."""

    label = "DoRA"
    colours = ("#5c1a6b", "#8e3aa3", "#b463c6")
    branch = True
    axes = ("rank", "alpha", "scaling", "dropout", "targets", "adapter_dtype")
    impls = {
        "eager": Impl("textbook PyTorch in PEFT's order, with W + sBA as a tensor for its norm"),
        "triton": Impl(
            "this project's kernels: norms in one pass over W, LoRA's products, one pass for g", _kernels, tuned=True
        ),
        **of_peft(" (use_dora)", _kernels),
    }

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return rank * layer.k, rank * layer.n, layer.n  # A, B, m

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        """LoRA's two products and B A, whatever the number of tokens."""
        return 2 * tokens * rank * (layer.n + layer.k) + 2 * layer.n * layer.k * rank

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * rank * (2 * layer.n + layer.k * (1 + x_grad))

    def resting_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        """The norm is no part of dX."""
        return 2 * tokens * rank * (layer.n + layer.k)

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        return self.trained(layer, rank) * width  # A, B and m, or g in its place

    def products(self, dropout: bool) -> int:
        """With dropout the magnitude scales drop(x) W^T, which is a product of its own beside x W^T."""
        return 2 if dropout else 1

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        """A, B and m; S for dB, z for dm, and the norm."""
        kept = tokens * rank * width.saved + tokens * layer.n * width.compute + layer.n * width.saved
        return self.trained(layer, rank) * width.adapter, kept

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        """The gradients; B, A, S, z, and m and the norm, whose quotient is g."""
        read = (rank * (layer.n + layer.k * x_grad + tokens) + 2 * layer.n) * width.saved
        return self.trained(layer, rank) * width.adapter, read + tokens * layer.n * width.compute

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        """Counted as LoRA's were: beside what that keeps, the two factors of g in every layer, x W^T and the branch."""
        if dropout:
            return {
                "gpt2": (48, 16, 0, 0), "llama": (36, 18, 12, 12), "mistral": (36, 18, 12, 12),
                "qwen3": (36, 18, 16, 16), "gemma3_text": (44, 18, 16, 16), "phi3": (24, 18, 14, 14),
            }.get(model_type)  # fmt: skip
        return {
            "gpt2": (40, 14, 0, 0), "llama": (20, 16, 8, 12), "mistral": (20, 16, 8, 12), "qwen3": (20, 16, 12, 16),
            "gemma3_text": (28, 16, 12, 16), "phi3": (20, 16, 12, 14),
        }.get(model_type)  # fmt: skip


METHOD = DoRA()
