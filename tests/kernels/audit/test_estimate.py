"""The estimate: what it counts, its arithmetic, its GPUs, and that it says what it is."""

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("triton")

from kernels.audit import estimate
from kernels.audit.__main__ import main
from kernels.audit.estimate_machine import MACHINES
from kernels.audit.estimate_model import Run, blocks_per_sm, clocks
from kernels.audit.estimate_model import estimate as modelled
from kernels.audit.estimate_report import report
from kernels.audit.estimate_runs import run_of, subjects
from kernels.audit.sass import Program, Work, work_of
from kernels.runtime import launch
from kernels.tune.cases import MODELS

H100, A100 = MACHINES["h100"], MACHINES["a100"]

SASS = """
        /*0010*/                   LDG.E.128 R4, [R2.64] ;
.L_x_0:
        /*0020*/              @!P0 BRA `(.L_x_9) ;
.L_x_1:
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR20], R24 ;
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24, R152, gdesc[UR20], R24, gsb0 ;
        /*0050*/                   LDGSTS.E.BYPASS.128 [R3], [R4.64] ;
        /*0060*/               @P1 LOP3.LUT R4, R4, UR13, RZ, 0x3c, !PT ;
        /*0070*/                   IMAD.WIDE.U32 R4, R5, R6, R8 ;
        /*0080*/                   LDS.64 R2, [R4] ;
        /*0090*/                   NOP ;
        /*00a0*/               @P2 BRA `(.L_x_0) ;
        /*00b0*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*00c0*/                   LDSM.16.M88.4 R4, [R8] ;
        /*00d0*/                   STG.E.128 [R2.64], R4 ;
        /*00e0*/                   EXIT ;
.L_x_9:
        /*00f0*/                   BRA `(.L_x_1) ;
"""


def test_machine_code_is_counted_in_the_loop_and_outside() -> None:
    step, rest = work_of(SASS, warps=8)
    # Two warp groups; A of the first product lies in shared memory, A of the second in registers.
    assert step.macs == 2 * 2 * 64 * 128 * 16
    assert step.shared_bytes == 2 * (2 * 128 * 16 * 2 + 64 * 16 * 2) + 8 * 32 * 8
    assert step.copied_bytes == 8 * 32 * 16
    assert (step.issued, step.integer, step.multiplied) == (8 * 7, 8, 8), "a NOP and the branch back are left out"
    # The way back from .L_x_9 is no loop, though it leads up.
    assert (rest.macs, rest.shared_bytes) == (8 * 16 * 8 * 16, 8 * 4 * 128)


def test_a_listing_without_a_product_has_no_step() -> None:
    step, rest = work_of("/*0010*/ LDG.E R4, [R2.64] ;\n/*0020*/ STG.E [R2.64], R4 ;", warps=4)
    assert step == Work() and rest.issued == 8


def test_loops_one_after_another_are_steps_and_not_the_rest() -> None:
    loop = "{label}:\n/*0010*/ HGMMA.64x128x16.F32.BF16 R24, gdesc[UR20], R24 ;\n/*0020*/ @P0 BRA `({label}) ;\n"
    sass = loop.format(label=".L_x_0") + loop.format(label=".L_x_1") + "/*0030*/ STG.E.128 [R2.64], R4 ;"
    step, rest = work_of(sass, warps=8)
    assert step.macs == 2 * 64 * 128 * 16 and rest == Work(issued=8 * 3), "two branches back and the store"


def test_a_product_of_tensor_memory_has_the_sizes_of_its_launch() -> None:
    sass = ".L_x_0:\n/*0010*/ UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR47], tmem[UR8], idesc[UR9], UPT ;\n"
    step, _ = work_of(sass + "/*0020*/ @P0 BRA `(.L_x_0) ;", warps=8)
    assert step.unsized and step.macs == 0
    # 128 x 256 x 64 of an SM's 4096 a clock; the operands, 48 KiB, are written once and read once.
    found = clocks(step, MACHINES["b200"], 49152, 128 * 256 * 64)
    assert (found["tensor cores"], found["shared memory"]) == (512, 768)


def program(macs: int = 128 * 256 * 64, **changes: object) -> Program:
    facts = {"registers": 168, "shared_bytes": 200_000, "warps": 8, "step": Work(macs=macs), "rest": Work()}
    return Program(**facts | changes)  # type: ignore[arg-type]


def test_blocks_per_sm_are_those_of_the_occupancy_table() -> None:
    # "CUDA C++ Programming Guide": 65,536 registers; 228 KiB an SM on sm_90, of which each block's system takes 1.
    assert blocks_per_sm(program(registers=128, shared_bytes=1000), H100) == 2
    assert blocks_per_sm(program(registers=129, shared_bytes=1000), H100) == 1
    assert blocks_per_sm(program(registers=32, shared_bytes=113 * 1024), H100) == 2
    assert blocks_per_sm(program(registers=32, shared_bytes=113 * 1024 + 1), H100) == 1
    assert blocks_per_sm(program(registers=16, shared_bytes=0), MACHINES["a6000"]) == 6, "1536 threads"
    assert blocks_per_sm(program(registers=16, shared_bytes=0, tensor_columns=256), MACHINES["b200"]) == 2


def test_a_long_product_takes_the_time_of_the_tensor_cores() -> None:
    run = Run(tiles=132, steps=10_000, copied_bytes=0, stored_bytes=0, unique_bytes=0)
    found = modelled(program(), run, H100)
    operations = 2 * 132 * 10_000 * 128 * 256 * 64
    assert found.bound == "tensor cores" and found.waves == 1
    assert found.us == pytest.approx(operations / (989.4e6 * H100.fit.held), rel=1e-2)
    assert modelled(program(), Run(133, 10_000, 0, 0, 0), H100).us == pytest.approx(2 * found.us, rel=1e-2)


@pytest.mark.parametrize(
    ("work", "run", "bound"),
    [
        (Work(shared_bytes=2**20), Run(132, 1000, 0, 0, 0), "shared memory"),
        (Work(issued=2**16), Run(132, 1000, 0, 0, 0), "issue"),
        (Work(issued=2**16, integer=2**16), Run(132, 1000, 0, 0, 0), "integer"),
        (Work(), Run(132, 1000, 2**18, 0, 0), "L2"),
        (Work(), Run(132, 1000, 0, 0, 2**36), "memory"),
    ],
)
def test_what_there_is_most_of_binds(work: Work, run: Run, bound: str) -> None:
    assert modelled(program(step=work), run, H100).bound == bound


def test_two_blocks_on_an_sm_hide_each_others_ends() -> None:
    run = Run(tiles=132 * 8, steps=16, copied_bytes=0, stored_bytes=0, unique_bytes=0)
    heavy = program(rest=Work(issued=4000))
    alone, together = heavy, program(rest=Work(issued=4000), registers=64, shared_bytes=1000)
    one, two = modelled(alone, run, H100), modelled(together, run, H100)
    assert (one.blocks, two.blocks) == (1, 4)
    assert two.us < one.us and two.outside < one.outside
    # A persistent program gains nothing from the room beside it.
    assert modelled(together, Run(132 * 8, 16, 0, 0, 0, programs=132), H100) == modelled(alone, run, H100)


def test_the_gpus_are_those_of_the_benchmark() -> None:
    known = yaml.safe_load(Path("bench/gpus.yaml").read_text())
    for name, machine in MACHINES.items():
        fitting = [
            d
            for d in known[name]
            if d.get("bf16_tflops") == pytest.approx(2e-3 * machine.macs * machine.sms * machine.ghz, rel=0.01)
            and d["memory_tbs"] * 1e3 == pytest.approx(machine.memory)
        ]
        assert fitting and fitting[0]["sm_count"] == machine.sms, name


# torch.matmul, bf16, squares, TFLOP/s: pranjalssh/fast.cu@a1bb7b2:README.md (H100 SXM) and
# gau-nernst/learn-cuda@1454f8b:02b_matmul_sm80/README.md (A100-SXM4-40GB). Neither went into the fit.
@pytest.mark.parametrize(
    ("gpu", "side", "tflops"),
    [("h100", 4096, 716), ("h100", 6144, 741.1), ("h100", 8192, 797.8), ("a100", 4096, 246.29), ("a100", 8192, 261.82)],
)
def test_the_time_of_cublas_is_within_a_tenth_of_published_ones(gpu: str, side: int, tflops: float) -> None:
    assert MACHINES[gpu].cublas_us(side, side, side) == pytest.approx(2 * side**3 / tflops * 1e-6, rel=0.1)


def test_the_shapes_are_those_of_the_four_models() -> None:
    assert set(estimate.PROJECTIONS) == {(layer.n, layer.k) for layers in MODELS.values() for layer in layers}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--estimate", "--gpu", "h100,v100"], ["--gpu", "'v100' is unknown", "a100"]),
        (["--estimate", "--shape", "4096x1024"], ["--shape", "'4096x1024'", "4096x3072x1024"]),
        (["--estimate", "--shape", "4096x1024x100"], ["--shape", "'4096x1024x100'", "multiple of 16"]),
        (["--estimate", "--kernel", "gather_kernel"], ["--kernel", "'gather_kernel'", "gemm_kernel"]),
        (["--estimate", "--kernel", "gemm_tma_kernel", "--gpu", "a100"], ["'gemm_tma_kernel'", "a100", "h100 or"]),
        (["--estimate", "--arch", "sm_90"], ["--arch", "--gpu"]),
        (["--estimate", "--jobs", "0"], ["--jobs", "0"]),
        (["--estimate", "--json", "no/such/file"], ["--json", "'no/such'"]),
        (["--gpu", "h100"], ["--gpu", "--estimate"]),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2 and all(word in said for word in words), said


@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")
@pytest.mark.parametrize(("gpu", "tool"), [("h100", "nvdisasm"), ("h100", "ptxas"), ("b200", "ptxas-blackwell")])
def test_a_missing_part_of_the_compiler_is_named(
    gpu: str, tool: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triton import knobs

    name = tool.replace("-", "_")
    monkeypatch.delenv(f"TRITON_{name.upper()}_PATH", raising=False)
    monkeypatch.setattr(vars(type(knobs.nvidia))[name], "default_path", f"/nowhere/{tool}")
    with pytest.raises(SystemExit) as end:
        main(["--estimate", "--gpu", gpu, "--kernel", "project_kernel"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and f"Cannot find {tool}" in said and "TRITON_" in said, said


@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels have no signature")
def test_rows_say_that_they_are_estimates() -> None:
    found = list(subjects(90, ["gemm_kernel"]))
    assert {"forward", "dX", "dX under dropout"} == {each.computes for each in found}
    forward, dx = (next(each for each in found if each.computes == computes) for computes in ("forward", "dX"))
    rows = [estimate.row_of(each, program(), "h100", (4096, 6400, 1600)) for each in (forward, dx)]
    assert all(row["estimate"] is True and row["of"] == "cuBLAS" and row["us"] > 0 for row in rows)
    assert [row["waves"] for row in rows] == [7, 2], "32 x 25 tiles of forward, 32 x 7 of dX, over 132 SMs"
    assert [row["steps"] for row in rows] == [1600 // 64, 6400 // 64]
    assert [row["share"] for row in rows] == [
        round(H100.cublas_us(4096, *sides) / row["us"], 2)
        for row, sides in zip(rows, [(6400, 1600), (1600, 6400)], strict=True)
    ]
    assert rows[0]["step_clocks"]["tensor cores"] == 1024 and rows[0]["step_l2_bytes"] == (128 + 256) * 64 * 2
    failed = estimate.row_of(forward, "99 bytes of shared memory", "h100", (4096, 6400, 1600))
    text = report([*rows, failed])
    assert text.startswith("Estimates from machine code and shapes; nothing here was measured.")
    assert "99 bytes of shared memory" in text and "4096x6400x1600" in text


@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels have no signature")
@pytest.mark.parametrize(("gpu", "kernel"), [("h100", "gemm_sum_tma_kernel"), ("a100", "gemm_sum_kernel")])
def test_the_dx_of_three_siblings_is_the_sum_of_their_products(gpu: str, kernel: str) -> None:
    machine = MACHINES[gpu]
    found = list(subjects(machine.arch, [kernel]))
    assert {each.computes for each in found} == {"dX of three", "dX of three under dropout"}
    assert gpu == "h100" or not list(subjects(machine.arch, ["gemm_sum_tma_kernel"])), "an A100 has no TMA"
    run = run_of(found[0].at(machine, 4096, 2048, 1024))
    tile = found[0].tile
    assert run.product == (4096, 1024, 3 * 2048) and run.steps == 3 * 2048 // tile.bk
    assert run.unique_bytes == 2 * (4096 * 6144 + 6144 * 1024 + 4096 * 1024)
    chosen = {each.computes for each in found if each.is_chosen(machine, 4096, 2048, 1024)}
    assert gpu != "h100" or chosen == {"dX of three", "dX of three under dropout"}


@pytest.mark.slow
@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")
def test_estimates_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--estimate", "--kernel", "project_kernel", "--gpu", "h100,h200", "--shape", "4096x1600x6400"]
    assert main([*arguments, "--json", str(tmp_path / "rows")]) == 0
    assert capsys.readouterr().out.startswith("Estimates from")
    rows = json.loads((tmp_path / "rows").read_text())
    assert {(row["gpu"], row["estimate"]) for row in rows} == {("h100", True), ("h200", True)}
    by_use = {row["computes"]: row for row in rows if row["gpu"] == "h100"}
    # Random numbers are integer work, and dearer than reading X.
    assert by_use["S'"]["bound"] == "memory" and by_use["S' under dropout"]["bound"] == "integer"
