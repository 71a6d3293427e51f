"""QPaCA (Woo et al., 2025): PaCA over weights in NF4, the columns that train beside them in 16 bit.

A forward dequantises W and puts s * columns in the place of the live ones; backward does so again for dX. So nothing is
to be refreshed after a step. Columns start as W's own, which is there when a layer is quantised. The authors' code,
which is given a model that is quantised already, starts them from the dequantised ones.
"""

from bench.methods.method import INT64, Impl, Linear, Widths
from bench.methods.paca.method import PaCA
from bench.methods.qlora.format import stored_bytes
from bench.methods.requirements import rank_fits


class QPaCA(PaCA):
    """PaCA's operations. Columns are read by every forward and backward, and not written into the weight."""

    label = "QPaCA"
    colours = ("#0b4f4a", "#12807a", "#2aa198")
    quantises = True
    impls = {
        "eager": Impl(
            "textbook PyTorch: NF4 dequantised in every forward and backward, live columns put in", rank_fits
        ),
    }

    def weight_bytes(self, layer: Linear, width: Widths) -> int:
        return stored_bytes(layer.n, layer.k) + (layer.weights - layer.n * layer.k) * width.param

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        read, kept = super().forward_bytes(layer, tokens, rank, width)
        return read + self.trained(layer, rank) * width.adapter, kept

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        written, read = super().backward_bytes(layer, tokens, rank, width, x_grad)
        return written, read + self.trained(layer, rank) * width.saved * x_grad

    def resting_bytes(self, layer: Linear, rank: int, width: int, for_dx: bool) -> int:
        return self.trained(layer, rank) * width

    def refresh_bytes(self, layer: Linear, rank: int, width: Widths) -> tuple[int, int]:
        return 0, 0

    def adapter_bytes(self, values: int, layers: int, rank: int, width: Widths) -> int:
        """Columns and the indices."""
        return values * width.adapter + layers * rank * INT64


METHOD = QPaCA()
