"""LoRA-FA (Zhang et al., 2023): LoRA with A frozen as it was drawn. B trains, so backward needs S = x A^T and not x."""

from bench.methods.lora.method import of_peft
from bench.methods.method import KEPT_WITHOUT_INPUTS, Impl, Linear, Method, Widths
from bench.methods.requirements import triton


class LoRAFA(Method):
    """S and S B^T forward, as LoRA; dB backward, and dS and dS A for dX."""

    label = "LoRA-FA"
    colours = ("#6e0f1a", "#a3222f", "#cf4a55")
    axes = ("rank", "alpha", "scaling", "dropout", "targets", "adapter_dtype")
    branch = True
    reads_x = False  # S alone, which forward has kept
    impls = {
        "eager": Impl("textbook PyTorch: two small GEMMs beside the frozen one, S kept in place of x"),
        "triton": Impl("this project's kernels: a fused branch, no dA, x not kept", triton, tuned=True),
        **of_peft(", A frozen", module="bench.methods.lora_fa.peft"),
    }

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return (rank * layer.n,)  # B

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 2 * tokens * rank * (layer.n + layer.k)

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * rank * (layer.n + (layer.n + layer.k) * x_grad)

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return rank * (layer.n + layer.k) * width.adapter, tokens * rank * width.saved  # A and B; S, for dB

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        read = rank * ((layer.n + layer.k) * x_grad + tokens) * width.saved  # B and A, for dX alone; S
        return self.trained(layer, rank) * width.adapter, read

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        return rank * (layer.n + layer.k) * width  # A and B

    def untrained_bytes(self, layer: Linear, rank: int, width: Widths) -> int:
        return rank * layer.k * width.adapter  # A

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        """Counted as KEPT_WITHOUT_INPUTS is; dropout keeps its masks, for dX."""
        if dropout:
            return {
                "gpt2": (26, 10, 0, 0), "llama": (18, 8, 6, 4), "mistral": (18, 8, 6, 4), "qwen3": (18, 8, 10, 8),
                "gemma3_text": (26, 8, 10, 8), "phi3": (12, 8, 8, 6),
            }.get(model_type)  # fmt: skip
        return KEPT_WITHOUT_INPUTS.get(model_type)


METHOD = LoRAFA()
