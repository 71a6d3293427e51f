"""The audit: its rows, its exit status, and that every one of its checks can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from kernels.audit import compilation as static
from kernels.audit.__main__ import main
from kernels.audit.launches import variants
from kernels.runtime import launch
from kernels.runtime.architectures import features
from kernels.runtime.tile_tables import KNOWN, TILES

GOOD = {"registers": 100, "spill_bytes": 0, "shared_bytes": 1000, "shared_limit": 2000, "mma": "mma", "pipelined": True}


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "kernels.audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "ok"),
        ({"spill_bytes": 64}, "ok"),
        ({"spill_bytes": 65}, "spills"),
        ({"shared_bytes": 2001}, "misfit"),
        ({"mma": "none"}, "no tensor cores"),
        ({"pipelined": False}, "serialised"),
    ],
)
def test_verdict(change: dict, word: str) -> None:
    assert static.verdict("gemm_kernel", GOOD | change) == word


TTGIR = """
  scf.for %i = %a to %b {{
    %x = ttg.async_copy_global_to_local %p
    %y = {load} %q
    %d = ttng.warp_group_dot %x, %y
    %w:3 = ttng.warp_group_dot_wait %d {{pendings = {pending} : i32}}
    scf.yield
  }}
  %z = tt.load %r
"""


def test_loops_are_read() -> None:
    healthy = TTGIR.format(load="ttg.async_copy_global_to_local", pending=1)
    assert static.loop_loads(healthy) == (2, 0, [1])
    assert static.loop_loads(TTGIR.format(load="tt.load", pending=0)) == (1, 1, [0])


TCGEN05 = """
  %acc = ttng.tmem_alloc : () -> !ttg.memdesc<128x128xf32>
  %r:3 = scf.for %i = %a to %b iter_args(%before = %first, %phase = %zero) {{
    ttng.async_tma_copy_global_to_local %d[%m, %k] %x, %full, %on : !tt.tensordesc
    ttng.async_tma_copy_global_to_local %e[%n, %k] %w, %full, %on : !tt.tensordesc
    %done = ttg.memdesc_index %barriers[%slot] : !ttg.memdesc<2x1xi64>
    ttng.tc_gen5_mma %x_7, %w_8, %acc, %true, %true, %done[%on] {attribute}: !ttg.memdesc<128x64xbf16>
    ttng.wait_barrier {waited}, %phase deps %x, %w : !ttg.memdesc<1xi64>
    {more}
    scf.yield %done, %phase
  }}
  %out = ttng.tmem_load %acc : !ttg.memdesc<128x128xf32> -> tensor<128x128xf32>
"""


@pytest.mark.parametrize(
    ("attribute", "waited", "more", "pending"),
    [
        ("{is_async} ", "%before", "", 1),
        ("{is_async} ", "%done", "", 0),
        ("", "%before", "", 0),
        ("{is_async} ", "%before", "%o = ttng.tmem_load %acc : !ttg.memdesc<128x128xf32> -> tensor", 0),
        ("{is_async} ", "%before", "ttng.tmem_store %o, %acc, %true : tensor -> !ttg.memdesc<128x128xf32>", 0),
        ("{is_async} ", "%before", "%o = ttng.tmem_load %accent : !ttg.memdesc<128x16xf32> -> tensor", 1),
    ],
    ids=["a step later", "its own step", "synchronous", "read back", "written anew", "another tensor"],
)
def test_loops_of_tcgen05_are_read(attribute: str, waited: str, more: str, pending: int) -> None:
    text = TCGEN05.format(attribute=attribute, waited=waited, more=more)
    assert static.loop_loads(text) == (2, 0, [pending])


def test_machine_code_loops_are_read() -> None:
    sass = ".L_x_0:\nHGMMA R1 gsb0;\n.L_x_1:\nHGMMA R2;\nHGMMA R3, gsb0;\n@P0 BRA `(.L_x_1);\n"
    sass += "HGMMA R4, gsb0;\n@P1 BRA `(.L_x_0);"
    assert static.sass_loops(sass) == [[".L_x_1:", "HGMMA R2;", "HGMMA R3, gsb0;"]]


def test_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--arch", "sm_42"])
    assert end.value.code == 2 and "'sm_42' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("archs", ["sm_90", pytest.param("sm_80,sm_90", marks=pytest.mark.slow)])
@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")
def test_rows_of_the_gather(archs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # the audit sets one of its own, which goes with the test
    assert main(["--arch", archs, "--kernel", "gather_kernel", "--json", str(tmp_path / "rows"), "--jobs", "1"]) == 0
    rows = json.loads((tmp_path / "rows").read_text())
    assert {row["arch"] for row in rows} == set(archs.split(","))
    fields = {
        "kernel",
        "config",
        "arch",
        "registers",
        "spill_bytes",
        "shared_bytes",
        "shared_limit",
        "mma",
        "pipelined",
    }
    assert all(fields <= row.keys() for row in rows)
    assert all(row["shared_limit"] == features(int(row["arch"][3:])).shared_limit for row in rows)


FAULT = """
import sys
from kernels.audit import __main__ as audit
from kernels.runtime import tile_tables
from kernels.runtime.tile_tables import Tile
tile_tables.TILES["{kernel}"] = {{{arch}: (Tile({tile}, "planted"),)}}
sys.exit(audit.main(["--arch", "sm_{arch}", "--kernel", "{kernel}_kernel", "--jobs", "1"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "kernel", "tile", "word"),
    [
        (80, "gemm", "128, 256, 64, 5, 8", "misfit"),
        (80, "gemm", "128, 128, 64, 1, 8", "serialised"),
        (80, "gemm", "128, 256, 32, 3, 4", "spills"),
        (100, "single_pass", "128, 128, 64, 1, 8", "serialised"),
        (120, "gemm_tma", "128, 256, 64, 3, 8", "misfit"),
    ],
)
def test_planted_tiles_are_caught(arch: int, kernel: str, tile: str, word: str) -> None:
    # The pool's workers import the tables anew, which is fine: what to compile was settled before they started.
    script = FAULT.format(arch=arch, kernel=kernel, tile=tile)
    done = run(code="if __name__ == '__main__':\n" + "\n".join("    " + line for line in script.splitlines()))
    assert done.returncode == 1 and word in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arch", [arch for arch in KNOWN if arch != 89])  # sm_89 has sm_86's tiles
def test_everything_the_dispatcher_can_choose_is_clean(tmp_path: Path, arch: int) -> None:
    done = run("--arch", f"sm_{arch}", "--jobs", "1", "--json", str(tmp_path / "rows"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    rows = json.loads((tmp_path / "rows").read_text())
    assert {row["arch"] for row in rows} == {f"sm_{arch}"}
    named = {f"{name}_kernel" for name in TILES if name not in ("branch_gradients_da", "skinny_parts")}
    named = {k for k in named if features(arch).tma or not k.endswith("_tma_kernel")}
    assert {row["kernel"] for row in rows} == named | {"reduce_kernel"}


@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels have no signature")
@pytest.mark.parametrize("arch", KNOWN)
def test_launches_name_every_input_and_fix_every_constant(arch: int) -> None:
    """A kept kernel takes its arguments by position, the constants last."""
    for _, calls in variants(arch):
        for run, inputs in calls:
            assert inputs.keys() == set(run.inputs), run.name
            first = len(run.inputs) + len(run.sizes)
            assert all(run.kernel.params[i].is_constexpr is (i >= first) for i in range(len(run.kernel.params)))


@pytest.mark.skipif(launch.interpreting(), reason="it compiles for the interpreter")
def test_a_launch_refuses_names_that_its_kernel_does_not_have() -> None:
    from kernels.paca.gather import gather_kernel, gather_launch

    run = gather_launch(64, 8, TILES["gather"][0][0], stride_xm=80)
    with pytest.raises(TypeError, match="gather_kernel takes p_x, p_index, p_out, not p_x, p_index, p_y"):
        run(p_x=None, p_index=None, p_y=None)
    with pytest.raises(TypeError, match=r"takes .* last, not M, BM"):
        launch.Launch(gather_kernel, (1, 1, 1), sizes={"M": 1}, constants={"BM": 16})
