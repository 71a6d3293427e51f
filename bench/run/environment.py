"""What the numbers of a run depend on, and where they come from: the provenance in run.json."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.gpu import Device

ROOT = Path(__file__).parents[2]

# What was measured stays measured while these are the same. The commit is provenance only.
IDENTITY = ("gpu", "source_hash", "torch", "triton", "driver")


def version(package: str) -> str | None:
    """The installed version of a package, without importing it; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def source_hash(root: Path = ROOT) -> str:
    """16 hex digits over the sources of bench/ and kernels/: code and model shapes, not the sweeps, whose cases carry
    their own identity, nor kernels/tuned, which matters to impl triton alone (kernels.runtime.tuned.tuned_hash)."""
    digest = hashlib.sha256()
    files = [p for d in ("bench", "kernels") for p in sorted((root / d).rglob("*.py"))]
    for path in [*files, root / "bench" / "models.yaml"]:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def provenance(device: Device) -> dict[str, Any]:
    """The environment of a run. None where something cannot be known: a copied tree has no git."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "gpu": device.name,
        "gpu_key": device.key,
        "gpu_uuid": device.uuid,
        "sm_count": device.sm_count,
        "memory_mib": device.memory_mib,
        "driver": device.driver,
        "source_hash": source_hash(),
        "torch": version("torch"),
        "triton": version("triton"),
        "transformers": version("transformers"),
        "peft": version("peft"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def command_line() -> str:
    """The command as a person would type it again."""
    import shlex

    arguments = sys.argv[1:]
    return shlex.join(["python", "-m", "bench", *arguments])
