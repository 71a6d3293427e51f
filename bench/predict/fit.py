"""Writes fitted.yaml from published timings, and prints how far its predictions lie from timings that it had not seen.

A developer's step: python -m bench.predict.fit ../shared/published (`make fit`). The timings are not part of the
project; the few numbers a board that come of them are.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from bench.errors import UserError
from bench.files import replace_file
from bench.predict import published
from bench.predict.boards import Board, Fitted, Gemm, MemoryKind, assemble, given_boards
from bench.predict.fitting import (
    Ratios,
    fit_gemm,
    fit_rate,
    fit_shares,
    gemm_ratios,
    half_widths,
    large,
    memory_ratios,
    table,
    unseen,
    within,
)

FITTED = Path(__file__).parent / "fitted.yaml"
_START = Gemm(t0_us=2.5, e=0.83, k0=130.0, ebw=0.75, pen=0.1, sag=0.2)
# Where no board of the family has rows of a kind. Random numbers: no row of any board, so as the plain operators are.
_SHARES: dict[MemoryKind, float] = {"elementwise": 0.87, "norm": 0.63, "softmax": 0.71, "reduction": 0.7, "copy": 0.66,
                                    "gather": 0.5, "random": 0.87}  # fmt: skip
_ATTENTION = [0.25, 0.4]  # a guess: there are no rows
Check = dict[tuple[str, str], Ratios]


def bare(key: str, gemm: Gemm = _START, shares: dict[MemoryKind, float] = _SHARES) -> Board:
    """A board with its data sheet's numbers and these."""
    none = Fitted(fitted="neighbour", gemm=gemm, shares=shares, errors={}, sources={})
    return assemble(key, given_boards()[key], none)


def fit_grids(rows: dict[str, pd.DataFrame]) -> tuple[dict[str, Gemm], dict[str, list[float]], Check]:
    """Of the boards with a grid: their numbers, half widths by held-out shapes, and ratios of every kind of check."""
    fits = {key: fit_gemm(bare(key), part) for key, part in rows.items()}
    check: Check = {}
    errors = {}
    for key, part in rows.items():
        coarse = bare(key, fit_gemm(bare(key), part[~unseen(part)]))
        held = part[unseen(part)]
        errors[key] = half_widths(gemm_ratios(coarse, held))
        for name, board, judged in (
            ("in the fit", bare(key, fits[key]), part),
            ("shapes held out", coarse, held),
            (f"board held out, as {_with_grid(key, fits)}", bare(key, fits[_with_grid(key, fits)]), part),
        ):
            check[key, name] = gemm_ratios(board, judged[large(judged)])
            check[key, f"{name}, any size"] = gemm_ratios(board, judged)
    return fits, errors, check


def _with_grid(key: str, fits: dict[str, Gemm]) -> str:
    """The nearest neighbour that has a grid."""
    near = given_boards()[key].neighbour
    return near if near in fits else _with_grid(near, fits)


def fit_memory(rows: dict[str, pd.DataFrame]) -> tuple[dict[str, dict[MemoryKind, float]], dict[str, list[float]], Check]:
    """Of the boards with memory-bound rows: shares, half widths of the odd rows by a fit to the even ones, ratios."""
    shares = {key: fit_shares(bare(key), part) for key, part in rows.items()}
    check: Check = {}
    errors = {}
    for key, part in rows.items():
        even, odd = part[::2], part[1::2]
        check[key, "memory, in the fit"] = memory_ratios(bare(key, shares={**_SHARES, **shares[key]}), part)
        seen = bare(key, shares={**_SHARES, **fit_shares(bare(key), even)})
        check[key, "memory, every other row held out"] = memory_ratios(seen, odd)
        errors[key] = half_widths(check[key, "memory, every other row held out"])
        others = [s for other, s in shares.items() if other != key]
        mean = {kind: float(np.mean([s[kind] for s in others if kind in s] or [_SHARES[kind]])) for kind in _SHARES}
        check[key, "memory, board held out"] = memory_ratios(bare(key, shares=mean), part)
    return shares, errors, check


def refit(folder: Path) -> tuple[dict[str, Fitted], Check]:
    """Every board's numbers, and the ratios of predicted over measured by board and check."""
    grids, squares, memory = published.grid(folder), published.squares(folder), published.memory(folder)
    gemms, gemm_errors, check = fit_grids(grids)
    shares, memory_errors, memory_check = fit_memory(memory)
    elsewhere = half_widths(_pooled(check, "board held out", ", any size"))
    memory_elsewhere = half_widths(_pooled(memory_check, "memory, board held out"))
    mean = {
        kind: round(float(np.mean([s[kind] for s in shares.values() if kind in s] or [_SHARES[kind]])), 3)
        for kind in _SHARES
    }
    mean["random"] = mean["elementwise"]
    found: dict[str, Fitted] = {}
    for key in sorted(given_boards(), key=lambda k: (k not in gemms, _distance(k, gemms))):
        near = given_boards()[key].neighbour
        if key in gemms:
            gemm, how, source = gemms[key], "grid", f"{len(grids[key])} GEMMs of NVIDIA's aiconfigurator"
        elif key in squares:
            gemm, how = fit_rate(bare(key, found[near].gemm), squares[key]), "squares"
            source = f"e by {len(squares[key])} squares of zzc0721/torch-performance-test-data, the rest is {near}'s"
        else:
            gemm, how, source = found[near].gemm, "neighbour", f"{near}'s"
        own = {kind: round(share, 3) for kind, share in shares.get(key, {}).items()}
        if "elementwise" in own:
            own["random"] = own["elementwise"]
        found[key] = Fitted(
            fitted=how,
            gemm=gemm.model_copy(update={f: float(f"{getattr(gemm, f):.4g}") for f in Gemm.model_fields}),
            shares={**mean, **own},
            errors={
                "gemm": gemm_errors.get(key, elsewhere),
                "memory": memory_errors.get(key, memory_elsewhere),
                "attention": _ATTENTION,
            },
            sources={
                "gemm": source,
                "shares": f"{', '.join(k for k in own if k != 'random') or 'none'} by {len(memory.get(key, []))} own "
                "rows, the rest the mean of the boards that have any; random as elementwise, for want of rows",
            },
        )
    return found, {**check, **memory_check}


def _distance(key: str, fits: dict[str, Gemm]) -> int:
    """Steps from neighbour to neighbour until one with a grid."""
    return 0 if key in fits else 1 + _distance(given_boards()[key].neighbour, fits)


def _pooled(check: Check, start: str, end: str = "") -> Ratios:
    return np.concatenate([r for (_, how), r in check.items() if how.startswith(start) and how.endswith(end)])


def main(folder: Path) -> int:
    """Refits, writes fitted.yaml and prints the errors. The exit status."""
    try:
        found, check = refit(folder)
        models, squares = published.model_shapes(folder), published.squares(folder)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    known = {key: assemble(key, given_boards()[key], fitted) for key, fitted in found.items()}
    for key, rows in models.items():
        check[key, f"shapes of models ({known[key].fitted})"] = gemm_ratios(known[key], rows)
    for key, rows in squares.items():
        sized = rows[rows.m > 0].assign(n=lambda x: x.m, k=lambda x: x.m)
        if len(sized):
            timed = sized.assign(us=2 * sized.m**3 / sized.tflops / 1e6)
            check[key, f"squares ({known[key].fitted})"] = gemm_ratios(known[key], timed)
    text = yaml.safe_dump({"boards": {k: found[k].model_dump() for k in given_boards()}}, sort_keys=False, width=120)
    replace_file(FITTED, _HEAD + text)
    print(table(check))
    for name in ("in the fit", "shapes held out", "board held out"):
        for size in ("", ", any size"):
            means = {k: np.abs(r - 1).mean() for (k, how), r in check.items()
                     if how.startswith(name) and how.endswith(", any size") == bool(size)}  # fmt: skip
            boards = [k for k in means if k != "l40s"]
            print(f"{name}{size}: mean of {', '.join(boards)}: {np.mean([means[k] for k in boards]):.1%}")
    print("targets of the mean: shapes held out 6 %, board held out 9 %")
    for key, share in coverage(check).items():
        print(f"{key}: {share:.0%} of its rows within the 90 % interval that the other boards give, held out whole")
    return 0


def coverage(check: Check) -> dict[str, float]:
    """Of each board held out whole: the share of rows within the interval that the others' errors give."""
    held = {k: r for (k, how), r in check.items() if how.startswith("board held out") and how.endswith("any size")}
    return {
        key: within(half_widths(np.concatenate([r for k, r in held.items() if k != key]))[1], ratios)
        for key, ratios in held.items()
    }


_HEAD = """\
# Written by `make fit` (python -m bench.predict.fit) from published timings; not edited by hand.
#
# gemm: the numbers of rates.gemm_us. shares: of the data sheet's bandwidth. errors: half widths of the 80 and 90 %
# intervals, as shares of the predicted time, from rows that the fit had not seen. fitted: whose rows gemm comes from.

"""

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/published")))
