"""A method from outside: LoRA with A frozen. B alone trains, so backward needs S = x A^T and not x."""

from bench.methods.method import Impl, Linear, Method, Widths


class Toy(Method):
    """S = x A^T and S B^T forward; dB, and dS and dS A for dX, backward."""

    label = "Toy"
    colours = ("#009e73",)
    branch = True
    reads_x = False
    impls = {"eager": Impl("LoRA with A frozen")}

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return (rank * layer.n,)

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 2 * tokens * rank * (layer.n + layer.k)

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * rank * (layer.n + (layer.n + layer.k) * x_grad)

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return rank * (layer.n + layer.k) * width.adapter, tokens * rank * width.saved

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        return rank * layer.n * width.adapter, rank * ((layer.n + layer.k) * x_grad + tokens) * width.saved

    def untrained_bytes(self, layer: Linear, rank: int, width: Widths) -> int:
        return rank * layer.k * width.adapter  # A


METHOD = Toy()
