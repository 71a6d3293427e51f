"""What the numbers of a run depend on, and where they come from: the provenance in run.json."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.devices import Device
from bench.methods.registry import folders

ROOT = Path(__file__).parents[2]

# What was measured stays measured while these are the same. The commit is provenance only.
IDENTITY = ("gpu", "source_hash", "torch", "triton", "driver", "threads")


def version(package: str) -> str | None:
    """The installed version of a package, without importing it; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def source_hash(root: Path = ROOT) -> str:
    """16 hex digits over the sources of bench/, kernels/ and methods from outside: code and model shapes.

    Not the sweeps, whose cases carry their own identity, nor kernels/tuned: see tuned_hash.
    """
    digest = hashlib.sha256()
    files = [p for d in ("bench", "kernels") for p in sorted((root / d).rglob("*.py"))]
    for path in [*files, *sorted((root / "bench").rglob("models.yaml"))]:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    for folder in folders():
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def tuned_hash(device: Device) -> str | None:
    """16 hex digits over the tuned tiles of a device, which the rows of impls that run our kernels depend on, and no
    others; None where it has none. The folder is kernels/tuned, or the one that LORABENCH_TUNED names."""
    folder = Path(os.environ.get("LORABENCH_TUNED") or ROOT / "kernels" / "tuned")
    name = json.dumps(device.name).encode()
    found = [content for path in sorted(folder.glob("*.json")) if name in (content := path.read_bytes())]
    return hashlib.sha256(b"\0".join(found)).hexdigest()[:16] if found else None


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def provenance(device: Device, threads: int | None = None) -> dict[str, Any]:
    """The environment of a run; threads: that a CPU computes with. None where something cannot be known: a copied tree has no git."""
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
        "threads": threads,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def command_line() -> str:
    """The command as a person would type it again."""
    import shlex

    arguments = sys.argv[1:]
    return shlex.join(["python", "-m", "bench", *arguments])


def command_to_go_on() -> str:
    """The command that goes on where this one was cut off: without --fresh, which would start anew."""
    return command_line().replace(" --fresh", "")
