"""A page over boards in words: where LoRA is slower than Full-FT, what is to be known before, and where it is from."""

from collections.abc import Sequence

from bench.case import Case
from bench.errors import listed
from bench.record.stats import RATIO_NOISY, RATIO_TELLS
from plots.boards.side import Side, verdict
from plots.boards.sorting import Kin
from plots.data.load import Folder
from plots.data.panels import MAX_TYPES
from plots.text.captions import conditions_of, level_words, ratio_note
from plots.text.numbers import NOISY
from plots.text.sections import progress_note

VERSIONS = ("torch", "triton", "transformers")
SHOWN = 10  # digits of a commit
READING = (
    "A ratio is the forward-backward time of a training type over that of Full-FT on the same board, at equal model, "
    "layers, precision, batch, length and clock. Below 1 is faster than Full-FT, above 1 is slower.",
    "A ratio says nothing of how fast one board is beside another: times are in each board's own report.",
    f"Slower and faster are said where the 95 % interval of a ratio leaves out 1 and is no wider than "
    f"±{100 * RATIO_TELLS:.0f} %. All else is undecided.",
    "A word in place of a ratio is how that measurement, or Full-FT's, ended on that board. 'not measured': the "
    "board's record has no such case.",
)


def place_of(side: Side) -> str:
    """'whole models, bf16, clock eager'."""
    panel = side.first
    l2 = f", L2 {panel.l2}" if panel.level == "linear" and panel.l2 else ""
    return f"{level_words(panel.results.folder, panel.level)}, {panel.precision}{l2}, clock {panel.clock}"


def answers(side: Side) -> list[str]:
    """A sentence or two for each training type, the first with what it speaks of."""
    if not side.ratios:
        return [f"{_capital(place_of(side))}: no ratio to Full-FT could be formed on any board."]
    told = [f"{type_} is {_told(side, cases)}." for type_, cases in [*side.types.items()][:MAX_TYPES]]
    told[0] = f"{_capital(place_of(side))}, by the 95 % intervals of forward-backward: {told[0]}"
    more = len(side.types) - MAX_TYPES
    return [*told, *([f"The table has {more} more training types."] if more > 0 else [])]


def _told(side: Side, cases: Sequence[Case]) -> str:
    """'slower than Full-FT eager on A and B in every case (1.12 to 1.45 times its time); undecided on C'."""
    found = {name: [panel.ratio(case) for case in cases] for name, panel in side.panels.items()}
    verdicts = {name: list(filter(None, map(verdict, ratios))) for name, ratios in found.items()}
    kinds: dict[str, list[str]] = {"slower": [], "faster": [], "undecided": [], "mixed": [], "none": []}
    for name, own in verdicts.items():
        kinds["none" if not own else own[0] if len({*own}) == 1 else "mixed"].append(name)
    clauses: list[str] = []
    for word in ("slower", "faster"):
        if boards := kinds[word]:
            partly = any(len(verdicts[name]) < len(cases) for name in boards)
            every = "" if len(cases) == 1 else " in every case with a ratio" if partly else " in every case"
            values = [r.value.value for name in boards for r in found[name] if r.value]
            span = " to ".join(dict.fromkeys(f"{v:.2f}" for v in (min(values), max(values))))
            clauses.append(f"{word} on {_boards(side, boards)}{every} ({span} times its time)")
    for name in kinds["mixed"]:
        own = verdicts[name]
        counts = [f"{word} in {own.count(word)}" for word in ("slower", "faster", "undecided") if word in own]
        clauses.append(f"{listed(counts)} of {len(own)} cases on {name}")
    if clauses:
        word, rest = clauses[0].split(" ", 1)
        clauses[0] = f"{word} than {side.base} {rest}"
    for word, names in (("undecided", kinds["undecided"]), ("without a ratio", kinds["none"])):
        clauses += [f"{word} on {_boards(side, names)}"] if names else []
    return "; ".join(clauses)


def _boards(side: Side, names: Sequence[str]) -> str:
    return "every board" if len(names) == len(side.panels) > 2 else listed(names)


def notices(kin: Kin, sides: Sequence[Side]) -> list[str]:
    """What is to be known before any number."""
    told = ["Measured on CPUs: these times say nothing about a GPU."] if kin.is_cpu else []
    sources = {board: (_commit(folder), folder.run.get("source_hash")) for board, folder in kin.folders.items()}
    if len({hash_ or commit for commit, hash_ in sources.values()}) > 1:
        told += _differing("commit", {board: commit for board, (commit, _) in sources.items()})
    for name in VERSIONS:
        told += _differing(name, {board: str(f.run.get(name) or "") for board, f in kin.folders.items()})
    told += [f"{board}: {note}" for board, folder in kin.folders.items() if (note := progress_note(folder))]
    told += [
        f"{board} is not among the boards of {place_of(side)}: {why}."
        for side in sides for board, why in side.absent.items()
    ]  # fmt: skip
    told += [f"{listed(late)}: nothing under clock {side.first.clock}." for side in sides if (late := _late(side))]
    return told


def _differing(name: str, values: dict[str, str]) -> list[str]:
    """A sentence where boards have different values of what may make a difference between them."""
    boards: dict[str, list[str]] = {}
    for board, value in values.items():
        boards.setdefault(value or "unknown", []).append(board)
    if len(boards) < 2:
        return []
    each = "; ".join(f"{value} on {listed(own)}" for value, own in boards.items())
    return [f"Not measured with the same {name}, which may make a difference between boards: {each}."]


def _commit(folder: Folder) -> str:
    commit = str(folder.run.get("commit") or "")[:SHOWN]
    return f"{commit} with changes" if commit and folder.run.get("dirty") else commit


def _late(side: Side) -> list[str]:
    """Boards that have times, but none under the clock of the page."""
    clock = side.first.clock
    return [
        name for name, panel in side.panels.items()
        if panel.results.clocks and not any(panel.results.has(c, clock) for c in panel.cases)
    ]  # fmt: skip


def caption(side: Side) -> str:
    """What holds of every board; what does not stands below the tables, board by board."""
    noisy = any(ratio.noisy for ratio in side.ratios)
    told = [f"{NOISY} marks a ratio whose interval is wider than ±{100 * RATIO_NOISY:.0f} %."] if noisy else []
    if side.inexpressible:
        told.append(f"Left out, since no board can do it: {listed(side.inexpressible)}.")
    return " ".join([*told, *(f"{_capital(part)}." for part in _shared(_parts(side)))])


def sources(kin: Kin, sides: Sequence[Side]) -> list[str]:
    """A line for each board: where its record lies, and what holds of it but not of all."""
    own: dict[str, list[str]] = {name: [] for name in kin.folders}
    for parts in map(_parts, sides):
        shared = _shared(parts)
        for name, told in parts.items():
            own[name] += [part for part in told if part not in (*shared, *own[name])]
    commits = {name: [f"commit {commit}"] if (commit := _commit(f)) else [] for name, f in kin.folders.items()}
    return ["; ".join([f"{name}: {f.path}", *commits[name], *own[name]]) + "." for name, f in kin.folders.items()]


def _parts(side: Side) -> dict[str, list[str]]:
    """Of each board what its ratios are and the conditions of its own cases, one by one."""
    found = {}
    for name, panel in side.panels.items():
        results = panel.results
        words = conditions_of(results, [case for case in panel.cases if case in results.cases], panel.clock)
        found[name] = [ratio_note(panel).removesuffix("."), *results.conditions[words]]
    return found


def _shared(parts: dict[str, list[str]]) -> list[str]:
    first, *others = parts.values()
    return [part for part in first if all(part in own for own in others)]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
