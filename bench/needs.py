"""What must be installed before `python -m bench` can start, told by the standard library alone.

`python3 bench/needs.py`, which is `make doctor`, says what is missing and the command that mends it, and installs
nothing. Where enough is there, `python -m bench doctor` says it all.
"""

import importlib.util
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TO_START = ("pydantic", "typer", "rich", "pyyaml", "filelock", "psutil")  # which every command imports
NEEDED = ("torch", "transformers", "numpy", "pandas", "scipy", "matplotlib", "nvidia-ml-py", "pytest",
          "pytest-benchmark", *TO_START)  # fmt: skip
PACKAGES = "pip install -c constraints.txt -e '.[dev]'"


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of the packages that are not installed."""
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def mend() -> str:
    """The command that installs what is missing: into .venv, or into the environment that this Python belongs to."""
    return "make setup" if sys.prefix == sys.base_prefix else f"{shlex.quote(sys.executable)} -m {PACKAGES}"


def report() -> int:
    """Prints what is missing to start at all, and returns 1; where nothing is, becomes `python -m bench doctor`."""
    if not missing(TO_START):
        os.chdir(ROOT)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "bench", "doctor"])
    print(f"Python {sys.version.split()[0]}, {sys.executable}")
    print(f"missing: {', '.join(missing(NEEDED))}")
    if sys.prefix == sys.base_prefix and importlib.util.find_spec("ensurepip") is None:
        print("missing: ensurepip, which makes .venv: apt-get install python3-venv (or your system's)")
    print(f"to mend it: {mend()}")
    print("Then make doctor tells the rest: GPU, driver, compiler, and what is optional.")
    return 1


def cannot_start(module: str) -> str:
    """The line for a command that a module is missing to."""
    return (
        f"error: the Python module {module} is not installed. {mend()} installs it; make doctor lists what is missing"
    )


if __name__ == "__main__":
    sys.exit(report())
