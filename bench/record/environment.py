"""What the numbers of a run depend on, and where they come from: the provenance in run.json."""

import hashlib
import json
import os
import platform
import subprocess
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


def _git(root: Path, *args: str) -> str | None:
    # Not what GIT_DIR and its like name, and no index is refreshed: another git may be at work in this tree.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", *args]
    try:
        done = subprocess.run(command, cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout).removesuffix("\n") if done.returncode == 0 else None


def commit(root: Path = ROOT) -> tuple[str | None, bool | None]:
    """The commit of a checkout, and whether its tracked files differ from it; (None, None) for a copied tree without a
    repository of its own, even where it lies inside another one."""
    top = _git(root, "rev-parse", "--show-toplevel")
    head = _git(root, "rev-parse", "--verify", "HEAD") if top and Path(top).resolve() == root.resolve() else None
    status = _git(root, "status", "--porcelain", "--untracked-files=no") if head else None
    return head, None if status is None else bool(status)


def provenance(device: Device, threads: int | None = None) -> dict[str, Any]:
    """The environment of a run. None where something cannot be known: a copied tree has no git.

    threads: that a CPU computes with.
    """
    head, dirty = commit()
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
        "commit": head,
        "dirty": dirty,
    }
