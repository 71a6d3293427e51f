"""Full fine-tuning: every weight trains, embeddings, norms and head included. The baseline of every ratio."""

from bench.methods.method import Impl, Linear, Method, Widths


class Full(Method):
    """dW costs 2 M N K in backward."""

    label = "Full-FT"
    colours = ("#2f3235", "#5b5f63", "#8d9297")
    axes = ()
    adapts = False
    impls = {"eager": Impl("every weight trains, plain PyTorch")}

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        weight = layer.n * layer.k
        return (weight, layer.weights - weight) if layer.weights > weight else (weight,)

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 0

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * layer.n * layer.k

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return 0, 0

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        return layer.weights * width.param, 0

    def adapter_bytes(self, values: int, layers: int, rank: int, width: Widths) -> int:
        return 0

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        """Counted with torch's saved-tensor hooks on transformers' blocks."""
        return {
            "gpt2": (26, 10, 0, 0), "llama": (16, 8, 4, 4), "mistral": (16, 8, 4, 4), "qwen3": (16, 8, 10, 10),
            "gemma3_text": (36, 8, 12, 12), "phi3": (16, 8, 8, 6),
        }.get(model_type)  # fmt: skip


METHOD = Full()
