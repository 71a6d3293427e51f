"""python -m bench compare, from its flags to its exit status."""

import os
import sys
from pathlib import Path

from bench.compare.comparison import Comparison, compare_folders
from bench.compare.limit import Limit, parse_limit
from bench.errors import UserError, one_of
from bench.files import check_named, stream_of, write_named
from bench.terminal import output, say

FORMATS = ("text", "json", "github", "junit")


def compare(
    first: Path,
    second: Path,
    sweep: str | None,
    rounds: int | None,
    out: Path | None,
    gpu: str | None,
    where: tuple[str, ...],
    fresh: bool,
    fail: str | None,
    format_: str,
    json_file: Path | None,
) -> int:
    """Compares two folders, or under --run measures two checkouts before; prints the comparison on standard output.

    Returns the exit status: 0; 1 where a row is as slow as `fail` says; 128 + the signal when measuring was cut off.
    """
    limit = None if fail is None else parse_limit(fail)
    if format_ not in FORMATS:
        raise UserError(one_of("--format", format_, FORMATS))
    if json_file:
        check_named("--json", json_file)
    if rounds is None:
        given = {"--out": out, "--gpu": gpu, "--fresh": fresh or None, f"a third argument, {sweep!r}": sweep}
        for what in (w for w, v in given.items() if v is not None):
            raise UserError(f"{what}: only with --run, which measures; without it, compare takes two results folders")
    else:
        from bench.compare.interleave import Interrupted, measure_both

        try:
            first, second = measure_both(first, second, sweep or "table1", rounds, out, gpu or "auto", where, fresh)
        except Interrupted as e:
            return e.status
    c = compare_folders(first, second, where, limit)
    aside = json_file is not None and stream_of(json_file) is sys.stdout  # which then holds the JSON alone
    _print(c, format_, aside)
    if json_file:
        from bench.compare.show import as_json

        try:
            write_named(json_file, as_json(c))
        except OSError as e:
            raise UserError(f"--json {json_file}: {e.strerror}") from None
    return _status(c, limit)


def _print(c: Comparison, format_: str, aside: bool) -> None:
    """The comparison on standard output; aside: on standard error."""
    from bench.compare.github import annotations, as_markdown
    from bench.compare.junit import as_junit
    from bench.compare.show import as_json, show

    if format_ == "text":
        show(c, output(to_stderr=aside))
        return
    made = {"json": as_json, "github": as_markdown, "junit": as_junit}[format_](c)
    print(made, end="", file=sys.stderr if aside else sys.stdout, flush=True)
    if format_ == "github" and os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(c):
            say(line)  # standard output is for the summary's file; the runner reads both


def _status(c: Comparison, limit: Limit | None) -> int:
    if c.failed:
        say(f"--fail: {len(c.failed)} of {len(c.judged)} rows {limit}")
    return int(bool(c.failed))
