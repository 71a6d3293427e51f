"""What a kernel's machine code does in one step of its main loop, and outside of it, counted from nvdisasm's listing.

All counts are of a whole block: an instruction counts once for each of its warps, a matrix instruction of a warp group
(HGMMA) once for each group of four. A product of tcgen05 (UTCHMMA) does not say its sizes: they stand in a register.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: Instructions of 16 lanes a scheduler: integer addition, logic, comparison, shifts, conversion. "CUDA C++ Programming
#: Guide", table of arithmetic instructions: 64 a clock and SM from compute capability 8.0 to 9.0; assumed above.
INTEGER = (
    "LOP3", "IADD3", "VIADD", "SEL", "ISETP", "PRMT", "SHF", "LEA", "IABS", "PLOP3", "FSEL", "FSETP", "F2FP", "MOV",
    "SGXT", "POPC", "VIADDMNMX", "IMNMX", "FMNMX",
)  # fmt: skip

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)((?:\.\w+)*)\s*([^;]*)")
_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_BACK = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
_PRODUCT = re.compile(r"\b(?:H|HG|UTCH)MMA\b")
_WIDTHS = {"32": 4, "64": 8, "128": 16}


@dataclass(frozen=True)
class Work:
    """What one block executes: instructions issued (by warps), those of INTEGER and integer multiplications among them
    (IMAD), multiply-accumulates on tensor cores, bytes of shared memory read or written other than by copies, and bytes
    that asynchronous copies bring by LDGSTS (0 where TMA brings them: its instruction does not say how many). unsized:
    whether there are products of tcgen05, which are in neither macs nor shared_bytes."""

    issued: int = 0
    integer: int = 0
    multiplied: int = 0
    macs: int = 0
    shared_bytes: int = 0
    copied_bytes: int = 0
    unsized: bool = False


@dataclass(frozen=True)
class Program:
    """A compiled kernel: step is one pass of the loop that holds its product (nothing where it has none), rest is
    everything else. registers: a thread's. shared_bytes: a block's. waits: each step waits for its own product.
    tensor_columns: those of tensor memory that a block takes, of 512."""

    registers: int
    shared_bytes: int
    warps: int
    step: Work
    rest: Work
    waits: bool = False
    tensor_columns: int = 0


def missing_tool(archs: Iterable[int]) -> str | None:
    """What compiling for sm_<arch> and reading the machine code wants and Triton does not find, or None."""
    from triton import knobs

    for name in ("nvdisasm", *sorted({"ptxas_blackwell" if arch >= 100 else "ptxas" for arch in archs})):
        try:
            getattr(knobs.nvidia, name)
        except (RuntimeError, OSError) as failure:
            return f"{failure}; set TRITON_{name.upper()}_PATH to it, or install triton again, which brings it"
    return None


def disassemble(cubin: bytes) -> str:
    """The listing of a cubin, by the nvdisasm that Triton brings."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        return subprocess.run(
            [knobs.nvidia.nvdisasm.path, "-c", str(path)], check=True, capture_output=True, text=True
        ).stdout


def work_of(sass: str, warps: int) -> tuple[Work, Work]:
    """(step, rest) of a listing. Where several innermost loops hold a product, one after another, the step is that with
    most of it, and the others, which are steps of other operands, are no part of the rest."""
    lines = sass.splitlines()
    spans = _innermost(lines)
    steps = [count(lines[a:b], warps) for a, b in spans]
    rest = [line for i, line in enumerate(lines) if not any(a <= i < b for a, b in spans)]
    return max(steps, key=lambda step: (step.macs, step.issued), default=Work()), count(rest, warps)


def sass_loops(sass: str) -> list[list[str]]:
    """Lines of the innermost loops that hold a matrix instruction: from a label to the branch back to it."""
    lines = sass.splitlines()
    return [lines[a:b] for a, b in _innermost(lines)]


def _innermost(lines: list[str]) -> list[tuple[int, int]]:
    labels = {found[1]: i for i, line in enumerate(lines) if (found := _LABEL.match(line))}
    spans = []
    for i, line in enumerate(lines):
        back = _BACK.search(line)
        if back and labels.get(back[1], i) < i and any(_PRODUCT.search(inner) for inner in lines[labels[back[1]] : i]):
            spans.append((labels[back[1]], i))
    # The way back from a slow path behind the code (a barrier that was not ready at the first look) is no loop, though
    # it looks like one: it leads into the middle of the loop that it came from.
    spans = [s for s in spans if not any(o[0] < s[0] < o[1] < s[1] for o in spans)]
    return [s for s in spans if not any(s != o and s[0] <= o[0] and o[1] <= s[1] for o in spans)]


def count(lines: Iterable[str], warps: int) -> Work:
    """The work of a block of so many warps that executes every line once."""
    issued = integer = multiplied = macs = shared = copied = 0
    unsized = False
    for line in lines:
        found = _INSTRUCTION.search(line)
        if found is None or found[1] == "NOP":
            continue
        name, suffix, operands = found[1], found[2], found[3]
        issued += 1
        integer += name in INTEGER
        multiplied += name == "IMAD"
        if name == "HMMA":  # .16816: 16 x 8 x 16, .1688: 16 x 8 x 8
            macs += 2048 if ".16816" in suffix else 1024
        elif name == "HGMMA":
            m, n, k = map(int, suffix.split(".")[1].split("x"))
            macs += m * n * k // 4
            # B is read once for the group of four warps; A too, unless it comes from registers.
            from_registers = not operands.split(",")[1].lstrip().startswith("gdesc")
            shared += (n * k + (0 if from_registers else m * k)) * 2 // 4
        elif name == "UTCHMMA":
            unsized = True
        elif name in ("LDSM", "STSM"):  # .4: four 8 x 8 matrices of 16 bits
            shared += 128 * int(suffix.rsplit(".", 1)[-1]) if suffix[-1].isdigit() and "88." in suffix else 128
        elif name in ("LDS", "STS"):
            shared += 32 * _width(suffix)
        elif name == "LDGSTS":
            copied += 32 * _width(suffix)
    issued, integer, multiplied, macs, shared, copied = (
        warps * each for each in (issued, integer, multiplied, macs, shared, copied)
    )
    return Work(issued, integer, multiplied, macs, shared, copied, unsized)


def _width(suffix: str) -> int:
    """Bytes that one lane moves."""
    return next((_WIDTHS[part] for part in suffix.split(".") if part in _WIDTHS), 4)
