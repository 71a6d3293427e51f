"""What causes.csv tells of the cases of a panel: only of times that are still on record."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.case import Case
from bench.case.causes import CAUSES
from bench.case.schema import PASSES
from bench.record.causes import Split, unexplained
from bench.record.stats import Estimate
from plots.data.panels import Panel
from plots.data.results import Ratio

MISSING, STALE = "not in causes.csv", "measured again since"

Place = tuple[str, tuple[int, int]]  # model or layer, and batch x length: cases that bars may stand side by side of


@dataclass(frozen=True)
class Told:
    """A pass of a case by its causes, or the word that stands in their place."""

    case: Case
    pass_: str
    split: Split | None = None
    word: str = ""


@dataclass(frozen=True)
class Compared:
    """A pass of a case beside that of Full-FT at equal axes. ratio: of the two as measured."""

    case: Case
    base: Case
    pass_: str
    split: Split
    full: Split
    ratio: Ratio

    @property
    def beyond(self) -> dict[str, Estimate]:
        """By cause, how much more time it takes than Full-FT, in ms."""
        return self.split.beyond(self.full)

    @property
    def total_ms(self) -> float:
        """How much more time it takes than Full-FT: what the causes of the difference add up to."""
        return self.split.total_ms - self.full.total_ms

    @property
    def word(self) -> str:
        """What stands in place of an explanation where there is no difference to explain."""
        return unexplained(self.ratio.value, self.total_ms)


def told(panel: Panel, case: Case, pass_: str) -> Told:
    """The causes of a pass under the panel's clock, where they add up to the time that is on record now."""
    cell = panel.time(case, pass_)
    if cell.time is None:
        return Told(case, pass_, word=cell.status)
    split = panel.results.folder.causes.get((case.case_id, pass_, panel.clock))
    if split is None:
        return Told(case, pass_, word=MISSING)
    return Told(case, pass_, split) if split.is_of(cell.time.value) else Told(case, pass_, word=STALE)


def compared(panel: Panel, case: Case, pass_: str) -> Compared | None:
    """A pass beside Full-FT's; None of Full-FT itself and where one of the two has no causes or they have no ratio."""
    base, ratio = panel.results.baseline(case), panel.ratio(case, pass_)
    if base is None or base == case or ratio.value is None:
        return None
    ours, theirs = told(panel, case, pass_).split, told(panel, base, pass_).split
    return Compared(case, base, pass_, ours, theirs, ratio) if ours and theirs else None


def passes_of(panel: Panel) -> list[str]:
    """The passes whose causes are told: forward and backward, their sum only where neither is there, and the step."""
    ids = {case.case_id for case in panel.cases}
    found = {pass_ for case_id, pass_, clock in panel.results.folder.causes if clock == panel.clock and case_id in ids}
    halves = found & {"forward", "backward"}
    return [p for p in PASSES if p in found and not (halves and p == "forward-backward")]


def places(panel: Panel) -> list[Place]:
    """Where causes are told, the longest time first."""
    longest: dict[Place, float] = {}
    for case in panel.cases:
        splits = [split for pass_ in passes_of(panel) if (split := told(panel, case, pass_).split)]
        if splits:
            place = (case.subject, case.size)
            longest[place] = max(longest.get(place, 0.0), sum(split.total_ms for split in splits))
    return sorted(longest, key=lambda place: -longest[place])


def longest_places(panel: Panel, most: int) -> list[Place]:
    """Of each model or layer the place with the longest time; the longest of them, in the order of tables."""
    first: dict[str, Place] = {}
    for place in places(panel):
        first.setdefault(place[0], place)
    return sorted([*first.values()][:most], key=lambda place: panel.subjects.index(place[0]))


def cases_at(panel: Panel, place: Place) -> list[Case]:
    """The cases of a place by training type, Full-FT first."""
    return [case for type_ in panel.types if (case := panel.find(*place, type_))]


def causes_in(splits: Iterable[Split]) -> list[str]:
    """The causes that any of the splits has, in the order of CAUSES."""
    found = {cause for split in splits for cause, part in split.parts.items() if part.ms > 0}
    return [cause for cause in CAUSES if cause in found]
