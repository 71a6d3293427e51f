"""The results of a campaign as one small archive, for a machine that may be gone the next minute."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

MOST_BYTES = 16 * 2**20 - 1
KEPT_SAMPLES = 200  # of a series
SERIES = ("samples_ms", "rounds")  # of a line, as long as each other
ALWAYS = ("campaign.json", "rows.jsonl", "run.json")


def packed(folder: Path, most: int = MOST_BYTES) -> tuple[bytes, list[str]]:
    """(a gzipped tar of a results folder of at most `most` bytes, the names that were left out for that).

    Files are as they are: a last line may be torn. Of raw samples at most 200 of a series are in it, evenly spread; the
    folder itself keeps them all. What is left out goes in this order, the largest first: logs, figures, samples, and
    everything else but the rows. Raises OSError.
    """
    contents: dict[Path, bytes] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            found = path.read_bytes()
        except FileNotFoundError:  # a draft that was renamed meanwhile
            continue
        contents[path] = thinned(found) if path.name == "samples.jsonl" else found
    sizes = {path: len(gzip.compress(data, 6)) for path, data in contents.items()}
    order = sorted((p for p in contents if p.name not in ALWAYS), key=lambda p: (_worth(p, folder), -sizes[p]))
    left_out: list[str] = []
    while True:
        if sum(sizes[p] for p in contents) <= most or not order:
            archive = _tar(folder, contents)
            if len(archive) <= most or not order:
                return archive, left_out
        least = order.pop(0)
        del contents[least]
        left_out.append(str(least.relative_to(folder)))


def _worth(path: Path, folder: Path) -> int:
    parts = path.relative_to(folder).parts
    kinds = ("logs" in parts, path.suffix in (".png", ".svg"), path.name.startswith("samples.jsonl"))
    return kinds.index(True) if any(kinds) else len(kinds)


def thinned(samples: bytes) -> bytes:
    """The lines of a samples.jsonl with at most KEPT_SAMPLES of a series each, every n-th; a torn line as it is."""
    return b"".join(_thinned(line) for line in samples.splitlines(keepends=True))


def _thinned(line: bytes) -> bytes:
    try:
        found: Any = json.loads(line)
        n = len(found["samples_ms"])
        if n <= KEPT_SAMPLES:
            return line
        kept = [i * n // KEPT_SAMPLES for i in range(KEPT_SAMPLES)]
        series = {name: [found[name][i] for i in kept] for name in SERIES if name in found}
        return json.dumps(found | series).encode() + b"\n"
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return line


def _tar(folder: Path, contents: dict[Path, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=6) as tar:
        for path, data in contents.items():
            entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
