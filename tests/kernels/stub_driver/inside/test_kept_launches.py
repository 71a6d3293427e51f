"""Every kept launch hands the driver what Triton's own look-up does, whatever the call before it was."""

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kernels
from kernels.runtime import launch
from tests.kernels.stub_driver.calls import Call
from tests.kernels.stub_driver.watch import Watch, watching

SM_90, SM_80 = 0, 1
GPUS = pytest.mark.parametrize("gpu", [SM_90, SM_80], ids=["sm_90", "sm_80"])

#: Few calls that launch every kernel.
EVERY_KERNEL = (
    Call(scheme="epilogue_tma/epilogue_tma"),
    Call(scheme="single_pass/cublas_fused_da"),
    Call("paca"),
    Call("group", scheme="epilogue/epilogue", bias=False),
    Call("group", scheme="epilogue_tma/epilogue_tma"),
    Call("dora", scheme="epilogue/epilogue", needs="xabm"),
)

VARIATIONS = (
    *(Call(scheme=f"{forward}/{backward}") for forward, backward in (
        ("cublas", "cublas"), ("epilogue", "epilogue_fused_da"), ("single_pass", "epilogue"))),
    Call(scheme="epilogue/epilogue", dropout=0.1, conv1d=True),
    Call(scheme="epilogue/epilogue", dtype=torch.float16, bias=False),
    Call(scheme="epilogue/epilogue_fused_da", dtype=torch.float16, trained=torch.float32, dropout=0.25),
    Call(scheme="epilogue/cublas", rank=12, dropout=0.5, x="lead", dy="expanded"),
    Call(scheme="epilogue/epilogue", rank=40, n=72, k=88, x="wide", dy="wide"),
    Call(scheme="single_pass/epilogue", rank=1, n=33, k=47, conv1d=True, x="strided"),
    Call(scheme="epilogue/epilogue", m=16, n=1024, k=1024, dropout=0.1),
    Call(scheme="epilogue/epilogue", dtype=torch.float32),
    *(Call(scheme="epilogue/epilogue", needs=needs) for needs in ("x", "a", "b", "xb", "ab")),
    Call("dora", dtype=torch.float16, trained=torch.float32, needs="xabm", x="lead", dy="expanded", scale=1),
    Call("dora", conv1d=True, rank=12, n=72, k=1000, bias=False, needs="xabm", dy="wide"),
    *(Call("dora", scheme="epilogue/epilogue", n=33, k=47, needs=needs) for needs in ("x", "m", "ab")),
    Call("paca", dtype=torch.float16, trained=torch.float32, x="lead"),
    Call("paca", scheme="fused", rank=12, index=torch.int32, x="wide", dy="wide"),
    Call("paca", rank=1, n=33, k=47, m=512),
    Call("group", dropout=0.25, conv1d=True, bias=False),
    Call("group", dtype=torch.float16, trained=torch.float32, rank=5, dropout=0.1, x="lead"),
    Call("group", m=16, n=1024, k=1024, dy="wide"),
    Call("group", members=3, rank=16, dropout=0.1),
    Call("group", members=4, scheme="cublas/cublas", dropout=0.1),
    *(Call("group", scheme="epilogue_tma/epilogue_tma", members=members, dropout=dropout, conv1d=conv1d)
      for members, dropout, conv1d in ((3, 0.0, False), (3, 0.1, True), (2, 0.1, False))),
)  # fmt: skip


def launched_kernels() -> set[str]:
    """The kernels that any module of kernels/ makes a Launch of."""
    found = set()
    for path in Path(kernels.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Launch" and node.args:
                found.add(ast.unparse(node.args[0]))
    return found


#: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, by GPU: a launch may begin before the one ahead has ended.
ATTRIBUTES = {SM_90: {"6:1"}, SM_80: {""}}


def agree(watch: Watch, gpu: int | None = SM_90) -> None:
    assert not watch.differing, "\n".join(watch.differing)
    assert not watch.racing, "\n".join(watch.racing)
    assert gpu is None or watch.attributes == ATTRIBUTES[gpu]
    assert watch.kept, f"nothing was kept: {watch.looked_up}"


def every_kernel(gpu: int, without: set[str]) -> None:
    calls = [call for call in EVERY_KERNEL if gpu == SM_90 or "tma" not in (call.scheme or "")]
    with watching() as watch:
        for call in calls:
            for _ in range(2):
                call(gpu)
    agree(watch, gpu)
    assert set(watch.kept) == launched_kernels() - without


def test_every_kernel() -> None:
    assert len(launched_kernels()) >= 8
    every_kernel(SM_90, set())


@pytest.mark.slow
def test_every_kernel_of_sm_80() -> None:
    every_kernel(SM_80, {"gemm_tma_kernel", "gemm_sum_tma_kernel"})


@pytest.mark.slow
@GPUS
@pytest.mark.parametrize("call", VARIATIONS, ids=lambda call: f"{call.kind}-{call.scheme}")
def test_variations(call: Call, gpu: int) -> None:
    if gpu == SM_80 and "tma" in (call.scheme or ""):
        pytest.skip("TMA is of sm_90")
    with watching() as watch:
        for _ in range(2):
            call(gpu)
    agree(watch, gpu)


def misaligned_between(aligned: Call, offs: tuple[str, ...]) -> None:
    """A kernel compiled for 16-byte aligned pointers must not be handed others: a GPU would stop with an error."""
    with watching() as watch:
        for off in offs:
            aligned(SM_90)
            for _ in range(2):
                replace(aligned, off=(off,))(SM_90)
        aligned(SM_90)
    agree(watch)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "single_pass/epilogue_fused_da"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_misaligned_tensors_between_aligned_ones(scheme: str, dropout: float) -> None:
    if dropout and "single_pass" in scheme:
        scheme = "cublas/epilogue_fused_da"
    misaligned_between(Call(scheme=scheme, dropout=dropout), ("x", "weight0", "a0", "b0", "bias", "dy"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dora", "group", "paca", "paca fused"])
def test_misaligned_tensors_of_other_functions(kind: str) -> None:
    kind, _, scheme = kind.partition(" ")
    offs = {
        "dora": ("x", "weight0", "a0", "b0", "m", "bias", "dy"), "group": ("x", "weight1", "a1", "b1", "bias", "dy"),
        "paca": ("x", "index", "dy"),
    }  # fmt: skip
    misaligned_between(Call(kind, scheme=scheme or None, needs="xabm" if kind == "dora" else "xab"), offs[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora", "group", "paca"])
def test_other_dtypes_between(kind: str) -> None:
    bf16 = Call(kind, scheme="epilogue/epilogue" if kind == "lora" else None)
    others = (
        replace(bf16, dtype=torch.float16), replace(bf16, trained=torch.float32), replace(bf16, bias=False),
        replace(bf16, index=torch.int32), replace(bf16, dtype=torch.float16, trained=torch.float32),
    )  # fmt: skip
    with watching() as watch:
        for other in others:
            for call in (bf16, bf16, other, other):
                call(SM_90)
    agree(watch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "group"])
def test_other_dropouts_between(kind: str) -> None:
    """The threshold is an integer, and Triton compiles another kernel for 1 and for multiples of 16."""
    call = Call(kind, scheme="epilogue/epilogue" if kind == "lora" else None)
    with watching() as watch:
        for p in (0.25, 0.1, 0, 1 / 65536, 0.5, 1e-6, 0.1, 0.25, 0.0):
            for _ in range(2):
                replace(call, dropout=p)(SM_90)
    agree(watch)


@pytest.mark.slow
def test_the_stream_is_that_of_the_tensors_gpu() -> None:
    call = Call(scheme="epilogue/epilogue")
    with watching() as watch:
        for gpu in (SM_90, SM_80, SM_90, SM_80):
            call(gpu)
    agree(watch, None)
    assert watch.streams == {f"{0x57AE0:#x}", f"{0x57AE1:#x}"}


def test_a_listener_is_told_of_every_launch() -> None:
    """A profiler's hook sees kept launches too."""
    from triton import knobs

    call = Call("paca")
    call(SM_90)
    told: list[str] = []

    def listen(metadata: object) -> None:
        told.append(metadata.get()["name"])  # type: ignore[attr-defined]

    before = Counter(launch.counts)
    knobs.runtime.launch_enter_hook.add(listen)
    try:
        call(SM_90)
    finally:
        knobs.runtime.launch_enter_hook.remove(listen)
    assert sorted(told) == sorted((Counter(launch.counts) - before).elements())
    assert {"gather_kernel", "skinny_kernel"} <= set(told)
