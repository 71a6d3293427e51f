"""LoRA (Hu et al., 2021): y = x W^T + s (drop(x) A^T) B^T with W frozen, A (r, K) and B (N, r) trained."""

from bench.methods.method import Impl, Linear, Method, Widths
from bench.methods.requirements import Refusal, all_of, bordered, no_dropout, peft, triton

_FORWARD_ALONE = "bordered is a baseline for forward alone"


def of_peft(how: str = "", kernels: Refusal = triton, module: str = "bench.methods.lora.peft") -> dict[str, Impl]:
    """The impls that are PEFT itself. how: what its layers are beside LoRA, in words; kernels: what refuses this
    project's."""
    return {
        "peft-fp32": Impl(
            f"Hugging Face PEFT as it comes{how}: adapters promoted to fp32",
            peft,
            fp32_adapters=True,
            in_fp32="peft",
            module=module,
        ),
        "peft": Impl(f"Hugging Face PEFT with autocast_adapter_dtype=False{how}", peft, module=module),
        "peft-triton": Impl(
            f"PEFT as it comes{how} after accelerate(): this project's kernels in its layers",
            all_of(kernels, peft),
            fp32_adapters=True,
            tuned=True,
            module=module,
        ),
    }


class LoRA(Method):
    """S = x A^T and S B^T forward; dS, dB, dA, and dS A for dX, backward."""

    label = "LoRA"
    colours = ("#7a3300", "#c65600", "#e07010")
    branch = True
    axes = ("rank", "alpha", "scaling", "dropout", "targets", "adapter_dtype")
    impls = {
        "eager": Impl("textbook PyTorch: two small GEMMs beside the frozen one"),
        "triton": Impl("this project's kernels: a fused branch", triton, tuned=True),
        **of_peft(),
        "addmm": Impl("three cuBLAS calls, backward ordered by hand: Unsloth's and Axolotl's scheme", in_place=True),
        "merged": Impl(
            "X (W + sBA)^T, merged once per optimizer step: RunLoRA's idea",
            no_dropout("a merged weight cannot drop what only the branch reads"),
        ),
        "bordered": Impl(
            "one GEMM of [X, S] with [W, sB], the GEMM that computes S included: a baseline for forward",
            bordered,
            cannot=dict.fromkeys(("backward", "forward-backward", "step"), _FORWARD_ALONE),
        ),
    }

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return rank * layer.k, rank * layer.n  # A, B

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 2 * tokens * rank * (layer.n + layer.k)

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * rank * (2 * layer.n + layer.k * (1 + x_grad))

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return self.trained(layer, rank) * width.adapter, tokens * rank * width.saved  # A and B; S, for dB

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        read = rank * (layer.n + layer.k * x_grad + tokens) * width.saved  # B, A, S
        return self.trained(layer, rank) * width.adapter, read

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        return self.trained(layer, rank) * width  # A and B

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        """Counted with torch's saved-tensor hooks on transformers' blocks; dropout keeps its masks and its output."""
        if dropout:
            return {
                "gpt2": (32, 12, 0, 0), "llama": (28, 10, 8, 4), "mistral": (28, 10, 8, 4), "qwen3": (28, 10, 12, 8),
                "gemma3_text": (36, 10, 12, 8), "phi3": (16, 10, 10, 6),
            }.get(model_type)  # fmt: skip
        return {
            "gpt2": (26, 10, 0, 0), "llama": (12, 8, 4, 4), "mistral": (12, 8, 4, 4), "qwen3": (12, 8, 8, 8),
            "gemma3_text": (20, 8, 8, 8), "phi3": (12, 8, 8, 6),
        }.get(model_type)  # fmt: skip


METHOD = LoRA()
