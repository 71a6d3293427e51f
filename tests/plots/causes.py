"""causes.csv with known causes for the rows of a maker's folder."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.record.causes import Key, Part, Split, write_causes

Weights = Mapping[tuple[str, str], Mapping[str, float]]

SHARED = {"attention": 12.0, "norms": 9.0, "outside": 6.0}  # alike in every method
ADDED = {"branch": 20.0, "elementwise": 9.0, "dropout": 6.0, "casts": 8.0, "gaps": 7.0}
# How a pass is made up.
WEIGHTS: Weights = {
    ("full", "forward"): SHARED | {"base_forward": 60.0, "gaps": 8.0, "left_over": 3.0},
    ("full", "backward"): SHARED | {"base_dx": 40.0, "base_dw": 38.0, "accumulation": 3.0, "gaps": 2.0},
    ("lora", "forward"): SHARED | ADDED | {"base_forward": 60.0, "left_over": 3.0},
    ("lora", "backward"): SHARED | ADDED | {"base_dx": 40.0, "accumulation": 0.3},
    ("paca", "forward"): SHARED | {"base_forward": 60.0, "gathers": 1.0, "gaps": 9.0},
    ("paca", "backward"): SHARED | {"base_dx": 40.0, "branch": 9.0, "gathers": 6.0, "gaps": 3.0},
}


def plant(
    maker: Any, clock: str = "eager", *, weights: Weights = WEIGHTS, remainder: float | None = 0.01,
    source: str = "kernels", passes: Iterable[str] = ("forward", "backward"), skip: Iterable[str] = (),
) -> dict[Key, Split]:  # fmt: skip
    """Writes causes.csv for the maker's rows of one clock, but for the case_ids in `skip`; returns what it holds.

    What a method shares with Full-FT takes as much time as there, and what it adds the rest.
    """
    splits: dict[Key, Split] = {}
    full: dict[tuple[object, ...], dict[str, float]] = {}
    for row in sorted(maker.rows, key=lambda row: row["method"] != "full"):
        of_pass, place = (
            weights.get((row["method"], row["pass"])),
            tuple(row[n] for n in ("model", "layer", "seq", "pass")),
        )
        if of_pass and row["clock"] == clock and row["pass"] in passes and row["status"] == "ok":
            by = row["median_ms"] / sum(of_pass.values())
            ms = {cause: by * weight for cause, weight in of_pass.items()}
            same = {cause: full.get(place, {}).get(cause, 0.0) for cause in ms}
            rest = {cause: weight for cause, weight in of_pass.items() if not same[cause]}
            if rest and sum(same.values()) < row["median_ms"]:
                by = (row["median_ms"] - sum(same.values())) / sum(rest.values())
                ms = same | {cause: by * weight for cause, weight in rest.items()}
            full.setdefault(place, ms)
            parts = {c: Part(t, 0.97 * t, 1.02 * t, round(9 * t), 1e7 * t, 1e10 * t) for c, t in ms.items()}
            splits[row["case_id"], row["pass"], clock] = Split(parts, 1.02, remainder, source)
    splits = {key: split for key, split in splits.items() if key[0] not in skip}
    write_causes(maker.path, splits)
    return splits
