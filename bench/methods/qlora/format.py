"""The sizes of NF4 with double quantisation, as QLoRA and bitsandbytes have them. No torch."""

BLOCK = 64  # values that share a scale
SCALES = 256  # scales that share a scale


def stored_bytes(n: int, k: int) -> int:
    """Of a quantised weight (n, k): codes of 4 bits, 8-bit scales, their fp32 scales and their fp32 mean.

    4.127 bits a value.
    """
    blocks = -(-n * k // BLOCK)
    return blocks * BLOCK // 2 + blocks + 4 * -(-blocks // SCALES) + 4
