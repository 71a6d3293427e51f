"""Pieces that several kernels share: their order on the stream, casts that the interpreter gets right, dropout bits,
the partial sums of S."""

import triton
import triton.language as tl


@triton.jit
def follow(PDL: tl.constexpr):
    """Waits for the kernel ahead on the stream, then lets the one behind begin; nothing where PDL is False.

    Programmatic dependent launch (PTX ISA, griddepcontrol): a kernel that is launched with the attribute may begin when
    every block of the kernel ahead has issued launch_dependents or has ended, and wait holds it until that kernel is
    complete and what it wrote can be read. Every kernel here waits before it triggers. So one that begins early finds
    all complete but the kernel directly ahead, which had waited for everything older; and before follow() a kernel

    - reads only what the kernel ahead does not write,
    - writes nothing: torch hands out memory that was freed a moment ago, which the kernel ahead may still be using.

    Kernels of others (cuBLAS, torch) start when all is complete and let the next begin at their end. What was ahead of
    a call is not known, so its first kernel calls follow() first. gemm_kernel and gemm_tma_kernel do so after their
    main loop, since X and W are older than the launch of S' or dS' ahead of them; skinny_kernel where AHEAD.

    The trigger comes at once: by then every block has its SM, and the next kernel's take only what is left free.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def up(b_t, UP: tl.constexpr):
    """A dot operand as it is, or in fp32 where UP: the interpreter's bf16 arithmetic works on bit patterns."""
    if UP:
        return b_t.to(tl.float32)
    else:  # noqa: RET505 (the branch not taken must not be compiled)
        return b_t


@triton.jit
def down(b_t, DTYPE: tl.constexpr, UP: tl.constexpr):
    """fp32 -> DTYPE, rounding to nearest even. The interpreter truncates to bf16: there (UP) the bits are rounded."""
    if UP and DTYPE == tl.bfloat16:  # noqa: SIM300
        b_bits = b_t.to(tl.int32, bitcast=True)
        b_bits = (b_bits + 0x7FFF + ((b_bits >> 16) & 1)) & -65536
        return b_bits.to(tl.float32, bitcast=True).to(tl.bfloat16)
    else:  # noqa: RET505
        return b_t.to(DTYPE)


@triton.jit
def high_part(b_t):
    """The larger values of an fp32 operand as fp16, divided by 16; the others are 0.

    fp16 has 5 exponent bits, so a small fp32 factor (B in its first steps, dS') would round to 0 in a product with an
    fp16 one. It is taken in two parts, each value in one of them: those from 2^-10 to 2^20 here, those below in
    low_part. join_parts puts the two products together. All factors are powers of two, hence exact.
    """
    return tl.where(tl.abs(b_t) < 0.0009765625, 0.0, b_t * 0.0625).to(tl.float16)


@triton.jit
def low_part(b_t):
    """The values of an fp32 operand below 2^-10 as fp16, times 2^24: full precision down to 2^-38."""
    return tl.where(tl.abs(b_t) < 0.0009765625, b_t * 16777216.0, 0.0).to(tl.float16)


@triton.jit
def join_parts(b_high, b_low):
    """The product whose fp32 operand was taken as high_part and low_part."""
    return b_high * 16.0 + b_low * 5.9604644775390625e-08


@triton.jit
def draw_keeps(seed, o_counter, threshold):
    """Eight keep-bits in a byte per counter: one Philox call gives four words, each two 16-bit draws.

    A bit is set with probability 1 - threshold / 65536; it depends on the seed and the counter only, so every tiling
    draws the same mask.

    7 rounds of Philox4x32, the fewest that pass BigCrush (Salmon et al., 2011, "Parallel random numbers: as easy as 1,
    2, 3", table 2), in place of Triton's 10: the loop of project_kernel had 722 instructions where it had had 865 (tile
    32x128, rank 16, bf16; SASS of sm_90, triton 3.7.1). It has 698 with a seed that is read once, before the loop: 0.68
    warp-instructions an element.
    """
    b_r0, b_r1, b_r2, b_r3 = tl.randint4x(seed, o_counter, 7)
    b_byte = _two_keeps(b_r0, threshold)
    b_byte |= _two_keeps(b_r1, threshold) << 2
    b_byte |= _two_keeps(b_r2, threshold) << 4
    b_byte |= _two_keeps(b_r3, threshold) << 6
    return b_byte


@triton.jit
def _two_keeps(b_word, threshold):
    b_word = b_word.to(tl.int32, bitcast=True)
    b_low = ((b_word & 0xFFFF) >= threshold).to(tl.int32)
    b_high = (((b_word >> 16) & 0xFFFF) >= threshold).to(tl.int32)
    return b_low | (b_high << 1)


@triton.jit
def spread_bits(b_byte, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Bytes (ROWS, COLUMNS // 8) -> keeps (ROWS, COLUMNS): bit i of a byte is the keep of column 8 * byte + i."""
    b_bit = (b_byte.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(b_bit, (ROWS, COLUMNS)) != 0


@triton.jit
def load_keeps(p_mask, o_m, m_m, byte, BYTES, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Keeps (ROWS, COLUMNS) from the packed mask (M, BYTES), beginning at column 8 * byte."""
    o_byte = byte + tl.arange(0, COLUMNS // 8)
    p_byte = p_mask + o_m.to(tl.int64)[:, None] * BYTES + o_byte[None, :]
    b_byte = tl.load(p_byte, mask=m_m[:, None] & (o_byte < BYTES)[None, :], other=0)
    return spread_bits(b_byte, ROWS, COLUMNS)


@triton.jit
def load_sum(p_s, o_m, o_r, M, m_s, PARTS: tl.constexpr, STRIDE: tl.constexpr, UP: tl.constexpr):
    """S at rows o_m and columns o_r (already broadcast): the dtype it is stored in, or the fp32 sum of its parts.

    A projection that is split over its long dimension leaves PARTS addends (PARTS, M, STRIDE) in fp32. Whoever needs S
    sums them: no atomics, no zeroing launch, the same bits every time.
    """
    p_part = p_s + o_m.to(tl.int64) * STRIDE + o_r
    b_s = tl.load(p_part, mask=m_s, other=0.0)
    if PARTS > 1:
        for _ in tl.static_range(1, PARTS):
            p_part += M * STRIDE
            b_s += tl.load(p_part, mask=m_s, other=0.0)
    return b_s
