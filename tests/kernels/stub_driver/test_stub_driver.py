"""Kept launches hand the CUDA driver what Triton's own look-up hands it: shown without a GPU, over a stub driver.

The stub is compiled here, and the tests of `inside` run over it in a process of their own: Triton finds its driver
once.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
triton = pytest.importorskip("triton")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a process in which the stub is the driver."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler (gcc, clang or $CC), with which the stub driver is built")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        pytest.skip("needs Python.h, with which Triton builds its launcher")
    folder = tmp_path_factory.mktemp("driver")
    headers = Path(triton.__file__).parent / "backends/nvidia/include"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-I{headers}", str(HERE / "libcuda.c"), "-o", str(folder / "libcuda.so.1")],
        check=True,
    )
    left = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return left | {
        "TRITON_LIBCUDA_PATH": str(folder), "LD_LIBRARY_PATH": os.pathsep.join(paths), "STUB_DRIVER": "1",
        "TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def run(environment: dict[str, str], marks: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, str(HERE / "inside")]
    done = subprocess.run(
        command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def test_over_the_stub_driver(environment: dict[str, str]) -> None:
    run(environment, "not slow")


@pytest.mark.slow
def test_over_the_stub_driver_slow(environment: dict[str, str]) -> None:
    run(environment, "slow")
