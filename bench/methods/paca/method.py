"""PaCA (Woo et al., 2025): r input columns of W train, W[:, index] = s * columns, and no branch is computed."""

from bench.case import Case
from bench.methods.method import INT64, KEPT_WITHOUT_INPUTS, Impl, Linear, Method, Widths
from bench.methods.requirements import all_of, rank_fits, triton


class PaCA(Method):
    """Forward is that of the frozen layer; backward adds dcolumns = s dY^T x[:, index]."""

    label = "PaCA"
    colours = ("#003a5e", "#0b6fa9", "#3c98d3")
    reads_x = False  # x[:, index] alone, which forward has kept
    impls = {
        "eager": Impl("textbook PyTorch: live columns in the weight, a skinny gradient", rank_fits),
        "triton": Impl("this project's kernels: gather and skinny gradient", all_of(triton, rank_fits), tuned=True),
        "official": Impl(
            "columns copied into the weight on every forward: its authors' code, which does so on odd ones only",
            rank_fits,
        ),
        "swap": Impl("columns swapped in, GEMM, swapped out, in both directions: a PEFT branch's code", rank_fits),
    }

    def tensors(self, layer: Linear, rank: int) -> tuple[int, ...]:
        return (rank * layer.n,)

    def forward_flops(self, layer: Linear, tokens: int, rank: int) -> int:
        return 0

    def backward_flops(self, layer: Linear, tokens: int, rank: int, x_grad: bool) -> int:
        return 2 * tokens * rank * layer.n

    def forward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths) -> tuple[int, int]:
        return rank * INT64, tokens * rank * width.compute  # the index; x[:, index]

    def backward_bytes(self, layer: Linear, tokens: int, rank: int, width: Widths, x_grad: bool) -> tuple[int, int]:
        return self.trained(layer, rank) * width.adapter, tokens * rank * width.compute

    def refresh_bytes(self, layer: Linear, rank: int, width: Widths) -> tuple[int, int]:
        """The column refresh reads columns and index, which the optimizer has just written, and writes the weight."""
        values = self.trained(layer, rank)
        return rank * INT64, values * (width.adapter + width.param)

    def adapter_bytes(self, values: int, layers: int, rank: int, width: Widths) -> int:
        """Columns, their pretrained copy, and the indices."""
        return values * (width.adapter + width.param) + layers * rank * INT64

    def kept(self, model_type: str, dropout: bool) -> tuple[int, int, int, int] | None:
        return KEPT_WITHOUT_INPUTS.get(model_type)

    def complaint(self, case: Case) -> tuple[str, str] | None:
        least = min(x.in_features for x in case.target_projections)
        if case.rank and case.rank > least:
            return "rank", f"{case.rank} columns are more than the {least} that the narrowest layer has"
        return None


METHOD = PaCA()
