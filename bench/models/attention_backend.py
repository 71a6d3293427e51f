"""Which kernel torch's scaled_dot_product_attention has chosen, read off what autograd recorded of a forward."""

from torch import Tensor

# By the operators of torch's derivatives.yaml; a node is called after its operator. The plain composition of matrix
# products and a softmax has no operator of its own, and is known by the softmax that only it uses.
_NODES = {
    "ScaledDotProductFlashAttention": "flash",
    "ScaledDotProductEfficientAttention": "efficient",
    "ScaledDotProductCudnnAttention": "cudnn",
    "ScaledDotProductFusedAttention": "fused",
    "SafeSoftmax": "math",
}


def attention_backend(out: Tensor) -> str | None:
    """What computed the attention behind an output that autograd can go back from: flash, efficient, cudnn, fused
    (another device's own) or math; several joined by commas. None where no node shows it, as in a compiled model."""
    found, seen, waiting = set(), set(), [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found |= {name for start, name in _NODES.items() if node.name().startswith(start)}
        waiting += [before for before, _ in node.next_functions]
    return ",".join(sorted(found)) or None
