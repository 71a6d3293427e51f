"""BitFit (Ben Zaken et al., 2022): the biases train and nothing else; here those of the targeted linear layers.

A layer without a bias, as Llama's are, gets one of zeros: the same function before the first step, and something to
train. It is the floor of what any method costs that has a backward through these layers.
"""

from bench.methods.method import KEPT_WITHOUT_INPUTS, Impl, Linear, Method, Widths


class BitFit(Method):
    """y = x W^T + b with W frozen; backward adds db, the sum of dY over all tokens, which multiplies no matrices."""

    label = "BitFit"
    colours = ("#1e4d2b", "#2f7d46", "#4fa266")
    axes = ("targets", "adapter_dtype")
    reads_x = False
    impls = {"eager": Impl("textbook PyTorch: the bias of each layer is a parameter, W is frozen")}

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return (layer.n,)

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 0

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 0

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return layer.n * width.adapter, 0

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        return layer.n * width.adapter, 0

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        return 0 if for_dx else layer.n * width

    def weight_bytes(self, layer: Linear, width: Widths) -> int:
        """W alone: the bias is what trains."""
        return layer.n * layer.k * width.param

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        return KEPT_WITHOUT_INPUTS.get(model_type)


METHOD = BitFit()
