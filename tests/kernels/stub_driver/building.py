"""Builds the stub of libcuda, and says in which environment a process finds it in the driver's place."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent


def missing() -> str | None:
    """What the stub, or Triton's launcher over it, would need and is not here."""
    if sys.platform != "linux" or _compiler() is None:
        return "needs Linux and a C compiler (gcc, clang or $CC), with which the stub driver is built"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "needs Python.h, with which Triton builds its launcher"
    return None


def environment(folder: Path) -> dict[str, str]:
    """Builds the stub in this folder; that of a process in which it is the driver."""
    import triton

    headers = Path(triton.__file__).parent / "backends/nvidia/include"
    subprocess.run(
        [_compiler(), "-shared", "-fPIC", f"-I{headers}", str(HERE / "libcuda.c"), "-o", str(folder / "libcuda.so.1")],
        check=True,
    )
    left = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return left | {
        "TRITON_LIBCUDA_PATH": str(folder), "LD_LIBRARY_PATH": os.pathsep.join(paths), "STUB_DRIVER": "1",
        "TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def _compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
