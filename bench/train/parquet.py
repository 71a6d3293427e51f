"""python -m bench.train.parquet COLUMN ... < FILE: the rows of a Parquet file as JSON lines, those columns of them.

Arrow believes what a file says of itself. A text that is written once may stand in a billion rows, and a damaged header
may ask for any amount of memory. So it reads in a process of its own, bounded in memory, output and time, and whatever
it ends by, the command that waits for it goes on. On failure the last line on stderr says in one sentence why.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, one_line
from bench.process import bound_memory

MEMORY = 2**32  # bytes of address space; MMLU's largest file takes a fifth of it
LONGEST_S = 300  # MMLU's largest file takes 3 s


def rows_as_lines(path: Path, data: bytes, columns: Iterable[str], most: int) -> bytes:
    """The rows of a Parquet file, each a line of JSON with those of the columns that there are, or with all where it
    has none of them. data: what the file holds. most: bytes of all lines. Raises UserError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.train.parquet", str(most), *columns],
            input=data,
            capture_output=True,
            cwd=Path(__file__).parents[2],
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: not a Parquet file that can be read (in {LONGEST_S} s)") from None
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        ended = signal.strsignal(-done.returncode) if done.returncode < 0 else None
        raise UserError(f"{path}: not a Parquet file that can be read ({ended or ''.join(told)[:300]})")
    return done.stdout


def lines(data: bytes, columns: Iterable[str], most: int) -> Iterator[bytes]:
    """The same in this process, unbounded in memory. Raises ValueError in one line, whatever Arrow raised."""
    import pyarrow
    import pyarrow.parquet

    size = 0
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        there = file.schema_arrow.names
        wanted = [name for name in columns if name in there] or there
        for batch in file.iter_batches(256, columns=wanted, use_threads=False):
            for row in batch.to_pylist():
                line = json.dumps(row, ensure_ascii=False, default=_other).encode() + b"\n"
                size += len(line)
                if size > most:
                    raise ValueError(f"its rows are longer than {most} bytes, which is the most that is read")
                yield line
    except MemoryError:
        raise ValueError(f"its rows need more than {MEMORY} bytes of memory") from None
    except (OSError, pyarrow.ArrowException, ValueError, TypeError, LookupError, OverflowError, RecursionError) as e:
        raise ValueError(one_line(str(e)) or type(e).__name__) from None


def _other(value: Any) -> Any:
    """For a value that JSON has none for: no text, so that it is not taken for one."""
    return {type(value).__name__: repr(value)[:60]}


def main() -> None:
    bound_memory(MEMORY)
    try:
        sys.stdout.buffer.writelines(lines(sys.stdin.buffer.read(), sys.argv[2:], int(sys.argv[1])))
    except ValueError as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
