"""python -m bench compare, from its flags to its exit status."""

import sys
from dataclasses import dataclass
from pathlib import Path

from bench.compare.folders import LeftOut, Side, check_same_device, match, narrow, notes, read_side
from bench.compare.sentence import Headline, Judged, headline
from bench.compare.show import show, write_json
from bench.compare.verdict import Verdict, judge
from bench.errors import UserError
from bench.files import check_named, stream_of
from bench.terminal import output


@dataclass(frozen=True)
class Comparison:
    """Two folders, compared."""

    sides: tuple[Side, Side]
    notes: tuple[str, ...]
    judged: tuple[Judged, ...]
    left: tuple[LeftOut, ...]
    head: Headline | None

    @property
    def slower(self) -> bool:
        return any(o.verdict is Verdict.SLOWER for _, o in self.judged)


def compare_folders(a: Path, b: Path, where: tuple[str, ...] = ()) -> Comparison:
    """Compares two results folders. Changes nothing. Raises UserError where they cannot be compared."""
    sides = read_side("A", a), read_side("B", b)
    check_same_device(*sides)
    sides = narrow(sides, where)
    pairs, left = match(*sides)
    judged = tuple((p, judge(p.a, p.b)) for p in pairs)
    return Comparison(sides, tuple(notes(*sides)), judged, tuple(left), headline(judged))


def compare(
    first: Path,
    second: Path,
    sweep: str | None,
    rounds: int | None,
    out: Path | None,
    gpu: str | None,
    where: tuple[str, ...],
    fresh: bool,
    fail_on_slower: bool,
    json_file: Path | None,
) -> int:
    """Compares two folders, or under --run measures two checkouts before; prints the comparison on standard output.

    Returns the exit status: 0; 1 where a verdict is SLOWER and --fail-on-slower was given; 128 + the signal when
    measuring was cut off.
    """
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
    c = compare_folders(first, second, where)
    aside = json_file is not None and stream_of(json_file) is sys.stdout  # which then holds the JSON alone
    show(c.sides, c.notes, c.judged, c.left, c.head, output(to_stderr=aside))
    if json_file:
        write_json(json_file, c.sides, c.notes, c.judged, c.left, c.head)
    return int(fail_on_slower and c.slower)
