"""The sizes of NF4 with double quantisation, as QLoRA and bitsandbytes have them. No torch."""

BLOCK = 64  # values that share a scale
SCALES = 256  # scales that share a scale


def stored_bytes(n: int, k: int) -> int:
    """Of a quantised weight (n, k): codes of 4 bits, 8-bit scales, their fp32 scales and their fp32 mean.

    4.127 bits a value.
    """
    blocks = -(-n * k // BLOCK)
    return blocks * BLOCK // 2 + blocks + 4 * -(-blocks // SCALES) + 4


def odd_rows(name: str, width: int, device: str) -> str | None:
    """Why bitsandbytes cannot hold the layer `name` of so many input features on a device, in a sentence; or None.

    0.50.2 lets blocks of scales begin with each row on a CPU: weights of 32 x 32 and 128 x 96 came back off by 36 and
    23 % of their norm (dequantize_4bit against decoding by hand), those of rows that are whole blocks not at all.
    """
    if width % BLOCK == 0 or device.split(":")[0] != "cpu":
        return None
    return (
        f"on a CPU bitsandbytes dequantises rows wrongly that are no multiple of {BLOCK} values, and {name} has {width}"
    )
