"""Static facts about a launch: compiled for an architecture without a GPU, and read from what the compiler leaves.

Registers and spills come from ptxas' log (nothing is printed on a cache hit, so nothing may hit), shared memory from
the metadata, the matrix instruction and the kind of copies from the PTX, pipelining from the last Triton IR: a plain
load inside a loop is not pipelined, `pendings = 0` inside a loop is a product that waits for itself. With wgmma the
machine code is read too: ptxas may serialise it on its own (warning C7515, or gsb0 on every HGMMA). With tcgen05 the
product is a `ttng.tc_gen5_mma`, which announces its end on a barrier: a loop that waits for the barrier of its own
step, or moves the accumulator between tensor memory and registers, is serialised.
"""

import contextlib
import io
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..runtime.architectures import features
from ..runtime.launch import Launch
from .sass import disassemble, sass_loops

_NAMES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32",
    torch.uint8: "u8", torch.int64: "i64", torch.int32: "i32",
}  # fmt: skip

#: Kernels whose every load in the loop must be asynchronous; the others stream one operand and may load small ones.
GEMMS = ("gemm_kernel", "single_pass_kernel", "gemm_tma_kernel", "gemm_sum_kernel", "gemm_sum_tma_kernel")

#: The matrix instructions by what the PTX calls them, widest first: a kernel may use a second one for a small product.
INSTRUCTIONS = {"tcgen05": "tcgen05.mma", "wgmma": "wgmma.mma_async", "mma": "mma.sync"}

#: Kernels without a product.
COPIES = ("gather_kernel", "reduce_kernel", "magnitude_kernel", "magnitude_gradient_kernel")


@dataclass(frozen=True)
class Compilation:
    """What triton.compile needs; picklable, so that processes can share the work. Hashable: equal ones compile once."""

    module: str
    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]
    config: str


def compilation(run: Launch, inputs: dict[str, Any], label: str) -> Compilation:
    """The specialisation that the JIT would choose for these inputs, all pointers aligned."""
    names = run.kernel.arg_names
    signature, constants, aligned = {}, dict(run.constants), []
    arguments = [*((name, inputs[name]) for name in run.inputs), *run.sizes.items()]
    for position, (name, value) in enumerate(arguments):
        parameter = run.kernel.params[position]
        if parameter.do_not_specialize:
            signature[name] = parameter.annotation_type
        elif value is None or (isinstance(value, int) and value == 1):
            constants[name] = value
        elif name in run.layouts:
            block = list(run.layouts[name].block)
            signature[name] = f"tensordesc<{_NAMES[value.dtype]}{block}>".replace(" ", "")
        elif isinstance(value, Tensor):
            signature[name] = "*" + _NAMES[value.dtype]
            aligned.append(position)
        elif isinstance(value, int):
            signature[name] = "i32"
            if value % 16 == 0:
                aligned.append(position)
        else:
            signature[name] = "fp32"
    for name in constants:
        signature[name] = "constexpr"
    c, o = run.constants, run.options
    tile = "x".join(str(c[side]) for side in ("BM", "BN", "BC", "BK") if side in c)
    rank = f"r{c['R']} " if "R" in c else ""
    config = f"{tile} s{o['num_stages']} w{o['num_warps']} {rank}{label}".strip()
    return Compilation(
        run.kernel.__module__, run.kernel.__name__, tuple((name, signature[name]) for name in names),
        tuple(constants.items()), tuple(aligned), tuple(o.items()), config,
    )  # fmt: skip


def compile_one(job: tuple[Compilation, int]) -> dict[str, Any]:
    """Compiles for sm_<arch> and returns the row of the audit."""
    asked, arch = job
    row: dict[str, Any] = {"kernel": asked.kernel, "config": asked.config, "arch": f"sm_{arch}"}
    try:
        built, log = build(asked, arch)
    except Exception as failure:
        return row | {"error": f"{type(failure).__name__}: {str(failure).strip().splitlines()[-1]}", "verdict": "error"}
    return row | facts(asked.kernel, arch, built, log)


def build(asked: Compilation, arch: int) -> tuple[Any, str]:
    """What the compiler makes of it for sm_<arch>, and what ptxas says of it."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(asked.module), asked.kernel)
    attrs = {(position,): [["tt.divisibility", 16]] for position in asked.aligned}
    source = ASTSource(kernel, dict(asked.signature), dict(asked.constants), attrs)
    log = io.StringIO()
    knobs = triton.knobs
    with knobs.nvidia.scope(), knobs.compilation.scope(), contextlib.redirect_stdout(log):
        knobs.nvidia.dump_ptxas_log = True
        knobs.compilation.always_compile = True
        return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=dict(asked.options)), log.getvalue()


def facts(kernel: str, arch: int, built: Any, log: str) -> dict[str, Any]:
    """A row of the audit, but for its names, from what build returns."""
    registers = re.search(r"Used (\d+) registers", log)
    stores, loads = (re.search(rf"(\d+) bytes spill {what}", log) for what in ("stores", "loads"))
    if registers is None or stores is None or loads is None:
        raise RuntimeError(f"ptxas printed no resources for {kernel}")
    ptx, limit = built.asm["ptx"], features(arch).shared_limit
    mma = next((name for name, instruction in INSTRUCTIONS.items() if instruction in ptx), "none")
    copies, plain, waits = loop_loads(built.asm["ttgir"])
    serialised = "C7515" in log or (waits != [] and max(waits) == 0)
    if features(arch).mma == "wgmma" and kernel in GEMMS:
        serialised |= _waits_in_sass(built.asm["cubin"])
    if kernel in COPIES:
        pipelined = True  # no loop, or one that only adds
    elif kernel in GEMMS:
        pipelined = copies >= 2 and plain == 0 and not serialised
    else:
        # Streams: the product is a fraction of the copy, so only the copy must run ahead.
        pipelined = copies >= 1
    row: dict[str, Any] = {
        "registers": int(registers[1]), "spill_bytes": int(stores[1]) + int(loads[1]),
        "shared_bytes": built.metadata.shared, "shared_limit": limit, "mma": mma,
        "async_loads": copies, "plain_loads": plain, "mma_waits": serialised, "pipelined": pipelined,
    }  # fmt: skip
    return row | {"verdict": verdict(kernel, row)}


def verdict(kernel: str, row: dict[str, Any]) -> str:
    """ok, or what is wrong with a row."""
    faults = []
    if row["spill_bytes"] > 64:
        faults.append("spills")
    if row["shared_bytes"] > row["shared_limit"]:
        faults.append("misfit")
    if kernel not in COPIES and row["mma"] == "none":
        faults.append("no tensor cores")
    if not row["pipelined"]:
        faults.append("serialised")
    return ", ".join(faults) or "ok"


def loop_loads(ttgir: str) -> tuple[int, int, list[int]]:
    """In the innermost loops that hold a product: asynchronous copies, plain loads, and the waits' pending counts.
    A product of tcgen05 counts as a wait: 1 where the next step waits for it, 0 where its own does."""
    copies = plain = 0
    waits: list[int] = []
    for body in _loops(ttgir):
        products = TCGEN05.findall(body)
        if "dot" not in body and not products:
            continue
        copies += len(re.findall(r"ttg\.async_copy_global_to_local|ttng\.async_tma_copy_global_to_local", body))
        plain += len(re.findall(r"\btt\.load\b", body))
        waits += [int(n) for n in re.findall(r"warp_group_dot_wait.*?pendings = (\d+)", body)]
        for operands, barrier, attributes in products:
            _, _, accumulator = operands.split(", ")[:3]
            held = "is_async" not in attributes or re.search(rf"wait_barrier {barrier}\b", body)
            moved = re.search(rf"tmem_(?:load|store)\b[^:]*{accumulator}\b", body)
            waits.append(0 if held or moved else 1)
    return copies, plain, waits


#: A product of tcgen05: its operands up to the barrier that it signals, that barrier, and its attributes. One without
#: a barrier is waited for where it stands.
TCGEN05 = re.compile(r"tc_gen5_mma ((?:%[\w#]+, )+)(%[\w#]+)(?:\[[^\]]*\])? ?(\{[^}]*\})?")


def _loops(ttgir: str) -> list[str]:
    """Bodies of the scf.for loops that contain no other, by indentation: the printer aligns a loop with its end."""
    lines = ttgir.splitlines()
    bodies, inner = [], set()
    starts = [(i, len(line) - len(line.lstrip())) for i, line in enumerate(lines) if "scf.for" in line]
    for start, indent in starts:
        end = next(i for i in range(start + 1, len(lines)) if re.match(rf"^ {{{indent}}}\}}", lines[i]))
        if not any(start < other < end for other, _ in starts) and start not in inner:
            inner.add(start)
            bodies.append("\n".join(lines[start:end]))
    return bodies


def _waits_in_sass(cubin: bytes) -> bool:
    """Whether most HGMMAs of the loop carry gsb0, which makes each wait for its own result."""
    products = [line for body in sass_loops(disassemble(cubin)) for line in body if "HGMMA" in line]
    return bool(products) and sum("gsb0" in product for product in products) * 2 > len(products)
