"""What `why` goes by: a folder's times, the causes that are known of them, and which cases are asked for."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.case import Case, read_case
from bench.case.clocks import CLOCKS
from bench.case.schema import PASSES, Status
from bench.compare.folders import Side, read_side
from bench.errors import UserError, one_of
from bench.record.causes import Key, Split, read_causes
from bench.record.ratios import baselines, repeats_of
from bench.record.read import read_samples
from bench.record.stats import Repeat


@dataclass(frozen=True)
class Only:
    """What of a folder is asked for: names joined by commas; None for all."""

    model: str | None = None
    method: str | None = None
    impl: str | None = None


@dataclass(frozen=True)
class Known:
    """A folder as far as it was measured and profiled."""

    side: Side
    asked: list[Case]  # in the record's order
    needed: list[Case]  # those and their baselines
    full: dict[tuple[object, ...], Case]  # the baselines, by what a ratio must share
    repeats: dict[Key, list[Repeat]]  # what was timed
    clock: str  # the headline's
    splits: dict[Key, Split]  # causes.csv

    def base(self, case: Case) -> Case | None:
        """Full-FT under the same conditions."""
        return self.full.get(case.comparison)

    def passes(self, case: Case) -> list[str]:
        """Those that were timed under the headline's clock."""
        return [p for p in PASSES if (case.case_id, p, self.clock) in self.repeats]

    def timed(self, case: Case, pass_: str) -> list[Repeat]:
        return self.repeats[case.case_id, pass_, self.clock]

    def medians(self, case: Case) -> dict[tuple[str, str], float]:
        """In ms, by pass and clock."""
        return {
            (p, c): median(r.median_ms for r in v) for (id_, p, c), v in self.repeats.items() if id_ == case.case_id
        }

    def split(self, case: Case, pass_: str) -> Split | None:
        """Its causes under the headline's clock; None where they are not known of what was timed last."""
        found = self.splits.get((case.case_id, pass_, self.clock))
        now = median(r.median_ms for r in self.timed(case, pass_))
        return found if found and found.is_of(now) else None

    def lacking(self, case: Case) -> list[str]:
        """The passes whose causes are not known."""
        return [p for p in self.passes(case) if self.split(case, p) is None]

    def failures(self, case: Case) -> list[str]:
        """Why passes have no time, a reason each: 'oom: CUDA out of memory'. With the passes where others have one."""
        reasons: dict[str, list[str]] = {}
        for row in self.side.rows:
            if (row["case_id"], row["clock"]) == (case.case_id, self.clock) and row["status"] != Status.ok:
                reason = ": ".join(filter(None, (row["status"], row["detail"])))
                reasons.setdefault(reason, []).append(row["pass"])
        timed = self.passes(case)
        told = {why: list(dict.fromkeys(p for p in passes if p not in timed)) for why, passes in reasons.items()}
        return [f"{', '.join(p)}: {why}" if timed else why for why, p in told.items() if p]


def read_known(folder: Path, only: Only) -> Known:
    """Reads a folder. Raises UserError where it is none, is damaged, or holds nothing of what is asked for."""
    side = read_side("DIR", folder)
    cases = list({row["case_id"]: read_case(row) for row in side.rows}.values())
    asked = _chosen(folder, cases, only)
    full = baselines(cases)
    wanted = {*asked, *(base for c in asked if (base := full.get(c.comparison)))}
    clocks = {row["clock"] for row in side.rows}
    clock = next((c for c in CLOCKS if c in clocks), "")
    repeats = repeats_of(side.rows, read_samples(folder)[0])
    return Known(side, asked, [c for c in cases if c in wanted], full, repeats, clock, read_causes(folder))


def _chosen(folder: Path, cases: list[Case], only: Only) -> list[Case]:
    left = cases
    for axis, value in only.__dict__.items():
        if value is None:
            continue
        measured = list(dict.fromkeys(v for c in cases if (v := getattr(c, axis)) is not None))
        wanted = {value} if value in measured else set(value.split(","))  # a path may hold commas
        for word in sorted(wanted - set(measured)):
            raise UserError(f"{one_of(f'--{axis}', word, measured or ['none'])} These are in {folder}.")
        left = [c for c in left if getattr(c, axis) in wanted]
    if not left:
        given = " ".join(f"--{axis} {value}" for axis, value in only.__dict__.items() if value is not None)
        raise UserError(f"{given}: no case in {folder} has all of these. Leave one out.")
    return left
