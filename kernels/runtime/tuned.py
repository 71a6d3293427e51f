"""Tuned schemes and tiles: what `python -m kernels.tune` measured on a device, one JSON file each; needs no torch.

    {"device": "NVIDIA H100 80GB HBM3", "arch": 90, "triton": "3.7.1", "torch": "2.13.0", "date": "2026-01-31",
     "entries": [{"passed": "forward", "m": 4096, "n": 4096, "k": 4096, "rank": 16, "dropout": false,
                  "scheme": "epilogue", "tile": [128, 256, 64, 3, 8], "reason": "us: epilogue 200.1, cublas 210.3",
                  "conv1d": false, "bias": false}]}

The folder is kernels/tuned, or the one that the environment variable LORABENCH_TUNED names.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .files import write_atomically
from .schemes import BACKWARD_SCHEMES, FORWARD_SCHEMES, TILED

FOLDER_VARIABLE = "LORABENCH_TUNED"


@dataclass(frozen=True)
class Measured:
    """A scheme and its tile (BM, BN, BK, stages, warps), None where it has no GEMM of ours; reason: all times, in us.

    Used for numbers of tokens m within a factor of 1.5 at the same n, k, padded rank and dropout. conv1d: the weight is
    stored as (K, N).
    """

    passed: str  # forward or backward
    m: int
    n: int
    k: int
    rank: int
    dropout: bool
    scheme: str
    tile: tuple[int, int, int, int, int] | None
    reason: str
    conv1d: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Tuned:
    """A device's file. arch: 90 for sm_90; triton, torch: versions; date: ISO, of the last write."""

    device: str
    arch: int
    triton: str
    torch: str
    date: str
    entries: tuple[Measured, ...]


def tuned_path(device: str, folder: Path | None = None) -> Path:
    """The device's file, by its name as the driver says it: kernels/tuned/h100-80gb-hbm3.json."""
    key = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\bnvidia\b", "", device.lower())).strip("-") or "unknown-gpu"
    folder = folder or Path(os.environ.get(FOLDER_VARIABLE) or Path(__file__).parents[1] / "tuned")
    return folder / f"{key}.json"


def tuned_hash(device: str | Path) -> str:
    """16 hex digits over the file of a device, given by name or as a path; empty where there is none."""
    path = device if isinstance(device, Path) else tuned_path(device)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return ""


def measured_on(device: str) -> tuple[Measured, ...]:
    """The entries of the device's file, which is read once; none where there is no file, or for no device ('')."""
    return _entries(tuned_path(device)) if device else ()


@cache
def _entries(path: Path) -> tuple[Measured, ...]:
    return read_tuned(path).entries if path.is_file() else ()


def read_tuned(path: Path) -> Tuned:
    """A file's content. Raises ValueError, naming the file and the key, for anything that write_tuned() never wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        header = _checked(Tuned, found, "the file")
        entries = tuple(_entry(entry, f"entries[{i}]") for i, entry in enumerate(header["entries"]))
    except (ValueError, RecursionError) as error:  # the second: nested too deeply
        broken = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
        words = f"it is no JSON ({error})" if broken else str(error)
        raise ValueError(f"{path}: {words}. Delete the file and tune again: python -m kernels.tune --write") from None
    return Tuned(**header | {"entries": entries})


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Writes the file at once or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(tuned), indent=1) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def _checked(kind: type, found: Any, where: str) -> dict[str, Any]:
    """`found` as the keyword arguments of a dataclass: its fields and no others, each of its type."""
    if not isinstance(found, dict):
        raise ValueError(f"{where} is a {type(found).__name__}, expected an object")
    names = [field.name for field in fields(kind)]
    if odd := sorted(found.keys() ^ set(names)):
        raise ValueError(f"{where} has {'no' if odd[0] in names else 'an unknown'} key {odd[0]!r}")
    for field in fields(kind):
        value, expected = found[field.name], list if field.name == "entries" else field.type
        if expected in (str, int, bool, list) and type(value) is not expected:
            raise ValueError(f"{where}: {field.name} is {value!r}, expected a value of type {expected.__name__}")
        if expected is int and value < 1:
            raise ValueError(f"{where}: {field.name} is {value}, expected at least 1")
    return found


def _entry(found: Any, where: str) -> Measured:
    entry = _checked(Measured, found, where)
    schemes = {"forward": FORWARD_SCHEMES, "backward": tuple(BACKWARD_SCHEMES)}
    for key, valid in (("passed", tuple(schemes)), ("scheme", schemes.get(entry["passed"], ()))):
        if entry[key] not in valid:
            raise ValueError(f"{where}: {key} is {entry[key]!r}, expected one of {', '.join(valid)}")
    return Measured(**entry | {"tile": _tile(entry["tile"], entry["scheme"], where)})


def _tile(found: Any, scheme: str, where: str) -> tuple[int, int, int, int, int] | None:
    if scheme not in TILED:
        if found is not None:
            raise ValueError(f"{where}: tile is {found!r}, expected null for scheme {scheme}")
        return None
    if not isinstance(found, list) or len(found) != 5 or any(type(side) is not int for side in found):
        raise ValueError(f"{where}: tile is {found!r}, expected [BM, BN, BK, stages, warps]")
    bm, bn, bk, stages, warps = found
    sides = all(16 <= side <= 512 and side & (side - 1) == 0 for side in (bm, bn, bk))
    if not (sides and 1 <= stages <= 8 and warps in (1, 2, 4, 8, 16)):
        raise ValueError(f"{where}: tile is {found!r}, expected sides of 16 to 512, 1 to 8 stages and 1 to 16 warps")
    return bm, bn, bk, stages, warps
