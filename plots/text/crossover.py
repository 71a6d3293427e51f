"""Where a training type overtakes Full-FT, in sentences; or why there is no saying."""

from collections.abc import Sequence

from plots.data.crossover import Crossing, crossover_maps
from plots.data.panels import Panel

NONE = (
    "No crossover is drawn: it takes Full-FT and another training type, of blocks or whole models, at two batches and "
    "two lengths at least, as sweep grid has them."
)


def crossover_sentences(panels: Sequence[Panel]) -> list[str]:
    """One for each subject and training type of the first panel of the headline clock that has maps; else why none."""
    for panel in panels:
        if panel.clock == panels[0].clock and (maps := crossover_maps(panel)):
            base = " or ".join(panel.baselines)
            return [f"{m.subject}: {m.type_} {_told(m.crossing, base)}." for m in maps.values()]
    return [NONE]


def _told(found: Crossing, base: str) -> str:
    decided = found.slower + found.faster
    cells = f"{decided} of {decided + found.undecided} cells {'is' if decided == 1 else 'are'} decided"
    sides = ("slower", "faster") if found.slower_first else ("faster", "slower")
    if found.tokens and found.between:
        low, high = found.between
        return (
            f"is {sides[0]} than {base} below about {round_tokens(found.tokens):,} tokens, {sides[1]} above "
            f"(between {low:,} and {high:,}; {cells})"
        )
    if not decided:
        return f"is nowhere told apart from {base} ({cells})"
    if found.slower and found.faster:
        return (
            f"is slower than {base} in {found.slower} cells and faster in {found.faster}, and the number of tokens "
            f"alone does not part them ({cells})"
        )
    return f"is {'slower' if found.slower else 'faster'} than {base} in every decided cell ({cells})"


def round_tokens(tokens: float) -> int:
    """To two digits."""
    return int(float(f"{tokens:.2g}"))
