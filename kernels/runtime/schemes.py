"""The names of the schemes: how a forward and a backward pass of lora_linear can be computed.

What each is stands in kernels/lora/forward.py and kernels/lora/backward.py.
"""

FORWARD_SCHEMES = ("cublas", "epilogue", "epilogue_tma", "single_pass", "bordered", "torch")

#: Backward schemes: how dX is computed, and whether dA comes out of the launch that gives dS and dB.
BACKWARD_SCHEMES = {
    "torch": ("torch", False),
    "cublas": ("cublas", False),
    "cublas_fused_da": ("cublas", True),
    "epilogue": ("epilogue", False),
    "epilogue_fused_da": ("epilogue", True),
    "epilogue_tma": ("epilogue_tma", False),
    "epilogue_tma_fused_da": ("epilogue_tma", True),
}

#: Schemes whose GEMM moves tiles by TMA, which wants rows of a multiple of 16 bytes, and what stands in for each.
TMA_FALLBACK = {
    "epilogue_tma": "epilogue",
    "epilogue_tma_fused_da": "epilogue_fused_da",
}

#: The kernel whose tile a scheme varies; the others have no GEMM of ours.
TILED = {
    "epilogue": "gemm",
    "epilogue_fused_da": "gemm",
    "epilogue_tma": "gemm_tma",
    "epilogue_tma_fused_da": "gemm_tma",
    "single_pass": "single_pass",
}

#: Codes that earlier versions used, still accepted by scheme=.
ALIASES = {
    "forward": {"f0": "cublas", "f1": "epilogue", "f1t": "epilogue_tma", "f2": "single_pass", "f3p": "bordered"},
    "backward": {
        "b1": "cublas", "b1r": "cublas_fused_da", "b2": "epilogue", "b2r": "epilogue_fused_da",
        "b2t": "epilogue_tma", "b2tr": "epilogue_tma_fused_da",
    },
}  # fmt: skip


def split_scheme(scheme: str | None) -> tuple[str | None, str | None]:
    """'epilogue', 'epilogue/cublas' or '/cublas' -> forward and backward override, None where the tables decide.

    Raises ValueError for a name that is neither a scheme nor an alias.
    """
    if scheme is None:
        return None, None
    forward, _, backward = scheme.partition("/")
    forward = ALIASES["forward"].get(forward, forward)
    backward = ALIASES["backward"].get(backward, backward)
    if (forward and forward not in FORWARD_SCHEMES) or (backward and backward not in BACKWARD_SCHEMES):
        raise ValueError(
            f"scheme is {scheme!r}, expected FORWARD, FORWARD/BACKWARD or /BACKWARD with FORWARD one of "
            f"{', '.join(FORWARD_SCHEMES)} and BACKWARD one of {', '.join(BACKWARD_SCHEMES)}"
        )
    return forward or None, backward or None
