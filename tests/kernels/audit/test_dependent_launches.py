"""Programmatic dependent launch: compiled kernels wait for the kernel ahead before they write, before they let the next
one begin, and before they read what it may have written."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from kernels.audit.compilation import build, compilation
from kernels.audit.launches import USES, Use, record, variants
from kernels.runtime import launch
from kernels.runtime.architectures import features
from kernels.runtime.launch import Launch
from kernels.runtime.tile_tables import INTERPRETED, KNOWN
from tests.kernels.audit.ptx_before_wait import TRIGGER, WAIT, BeforeWait, before_wait
from tests.kernels.dependent_launches import read_early, written

pytestmark = pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")

#: Few calls that launch every kernel, skinny_kernel by either order; the kernel whose tile is given.
EVERY_KERNEL = {
    "gemm_tma": Use("epilogue_tma/epilogue_tma", dropout=True), "gemm": Use("single_pass/epilogue"),
    "gather": Use("paca gather"), "gemm_sum": Use("group epilogue/epilogue"),
    "gemm_sum_tma": Use("group epilogue_tma/epilogue_tma"), "row_norms": Use("dora"),
}  # fmt: skip


def ptx_of(run: Launch, inputs: dict[str, Any], arch: int) -> str:
    return build(compilation(run, inputs, ""), arch)[0].asm["ptx"]


def pointers(run: Launch, inputs: dict[str, Any]) -> list[str]:
    return [name for name in run.inputs if isinstance(inputs[name], torch.Tensor)]


def orderly(run: Launch, inputs: dict[str, Any], arch: int) -> None:
    ptx, names = ptx_of(run, inputs, arch), pointers(run, inputs)
    expected = BeforeWait(1, frozenset(read_early(run).intersection(names)), frozenset(), False)
    assert before_wait(ptx, names) == expected, f"{run.name} on sm_{arch}: {run.constants}"
    # Without the wait all is before it: what is written at all is what it is known to write.
    unordered = before_wait(ptx.replace(WAIT, "nanosleep.u32"), names)
    assert unordered.triggers
    assert unordered.writes == written(run).intersection(names), run.name


def few(arch: int) -> Iterator[tuple[Launch, dict[str, Any]]]:
    """A launch of each kernel, with the interpreter's small tiles."""
    seen = set()
    for kernel, use in EVERY_KERNEL.items():
        for run, inputs in record(arch, 16, torch.bfloat16, use, {kernel: INTERPRETED[kernel]}):
            key = (run.name, run.constants.get("AHEAD"))
            if key not in seen:
                seen.add(key)
                yield run, inputs


def test_every_kernel_waits_first() -> None:
    found = []
    for run, inputs in few(90):
        orderly(run, inputs, 90)
        found.append(run.name)
    assert {f"{name}_kernel" for name in USES if "_parts" not in name and "_da" not in name} <= set(found)
    assert found.count("skinny_kernel") == 2


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in KNOWN if features(arch).pdl])
def test_everything_that_can_be_launched_waits_first(arch: int) -> None:
    seen = set()
    for _, calls in variants(arch):
        for run, inputs in calls:
            key = compilation(run, inputs, "")
            if key not in seen:
                seen.add(key)
                orderly(run, inputs, arch)


@pytest.mark.parametrize("arch", KNOWN)
def test_the_attribute_goes_with_the_wait(arch: int) -> None:
    """Not one without the other: a kernel that begins early and does not wait reads what is not yet there."""
    uses = [(kernel, use) for kernel, use in EVERY_KERNEL.items() if features(arch).tma or not kernel.endswith("tma")]
    runs = [
        run for kernel, use in uses for run, _ in record(arch, 16, torch.bfloat16, use, {kernel: INTERPRETED[kernel]})
    ]
    assert {run.constants["PDL"] for run in runs} == {run.options.get("launch_pdl", False) for run in runs}
    assert {run.constants["PDL"] for run in runs} == {features(arch).pdl}


PTX = """
.visible .entry made(.param .u64 .ptr .global made_param_0, .param .u64 .ptr .global made_param_1,
  .param .u32 made_param_2,
  .param .u64 .ptr .global made_param_3,
  .param .u64 .ptr .global made_param_4
)
{
  ld.param.b64 %rd1, [made_param_0];
  ld.param.b64 %rd2, [made_param_1];
  setp.lt.s32 %p1, %r1, 4;
  @%p1 bra $L__loop;
$L__after:
  {first}
  { .reg .pred done; waiting: mbarrier.try_wait.b64 done, [%r3]; @!done bra.uni waiting; }
  {second}
  st.global.b32 [ %rd2 + 0 ], { %r2 };
  ret;
$L__loop:
  add.s64 %rd3, %rd1, 4;
  @%p1 ld.global.v2.b32 { %r2, %r4 }, [ %rd3 + 0 ];
  bra.uni $L__after;
}
"""


@pytest.mark.parametrize(
    ("first", "second", "writes", "triggers"),
    [
        (WAIT, TRIGGER, (), False),
        (TRIGGER, WAIT, (), True),
        ("", "", ("p_y",), False),
        (f"@%p1 bra $L__after; {WAIT}", TRIGGER, (), False),
        (f"@%p1 bra waiting; {WAIT}", TRIGGER, ("p_y",), True),
        ("st.global.b32 [%rd3], %r2", WAIT, ("p_x",), False),
        ("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd2, {%r1, %r2}], [%r3]", WAIT, ("p_y",), False),
    ],
)
def test_what_is_before_a_wait_is_found(first: str, second: str, writes: tuple[str, ...], triggers: bool) -> None:
    code = PTX.replace("{first}", first + ";").replace("{second}", second + ";")
    found = before_wait(code, ["p_x", "p_y"])
    assert found == BeforeWait(code.count(WAIT), frozenset({"p_x"}), frozenset(writes), triggers)


def test_a_wait_that_not_every_thread_reaches_is_none() -> None:
    code = re.sub(r"\{first\}|\{second\}", f"@%p1 {WAIT};", PTX)
    with pytest.raises(AssertionError, match="may pass the wait"):
        before_wait(code, ["p_x", "p_y"])
