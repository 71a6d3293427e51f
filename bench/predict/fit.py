"""Writes fitted.yaml from published timings, and prints how far its predictions lie from timings that it had not seen.

A developer's step: python -m bench.predict.fit FOLDER (`make fit`). The timings, in the files that
published.py names, are not part of the project; the few numbers a board that come of them are.
"""

import sys
from pathlib import Path
from typing import get_args

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
_ELEMENTWISE = 0.87  # of the bandwidth, where a board has no rows: as the A100's largest
_ATTENTION = [0.25, 0.4]  # a guess: there are no rows
Check = dict[tuple[str, str], Ratios]


def bare(key: str, gemm: Gemm = _START, shares: dict[MemoryKind, float] | None = None) -> Board:
    """A board with its data sheet's numbers and these."""
    none = Fitted(fitted="neighbour", gemm=gemm, shares=shares or {}, errors={}, sources={})
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


def fit_memory(
    rows: dict[str, pd.DataFrame],
) -> tuple[dict[str, dict[MemoryKind, float]], dict[str, list[float]], Check]:
    """Of every board: its shares, and of those with memory-bound rows half widths and ratios of every kind of check.

    Half widths are of the odd rows by a fit to the even ones.
    """
    fits = {key: fit_shares(bare(key), part) for key, part in rows.items()}
    check: Check = {}
    errors = {}
    for key, part in rows.items():
        others = {k: s for k, s in fits.items() if k != key}
        even, odd = part[::2], part[1::2]
        seen = bare(key, shares=completed(key, fit_shares(bare(key), even), others))
        check[key, "memory, in the fit"] = memory_ratios(bare(key, shares=completed(key, fits[key], others)), part)
        check[key, "memory, every other row held out"] = memory_ratios(seen, odd)
        check[key, "memory, board held out"] = memory_ratios(bare(key, shares=completed(key, {}, others)), part)
        if "elementwise" in fits[key]:
            errors[key] = half_widths(check[key, "memory, every other row held out"])
    return {key: completed(key, fits.get(key, {}), fits) for key in given_boards()}, errors, check


def completed(
    key: str, own: dict[MemoryKind, float], fits: dict[str, dict[MemoryKind, float]]
) -> dict[MemoryKind, float]:
    """A board's own shares, and for the other kinds what its SMs would reach by the other boards' best rate an SM.

    At most its share of elementwise operators. No board has rows that draw random numbers: they count as elementwise.
    """
    board = bare(key)
    plain = own.get("elementwise", _ELEMENTWISE)
    shares: dict[MemoryKind, float] = {}
    for kind in get_args(MemoryKind):
        each = [s[kind] * bare(k).bandwidth_tbs / bare(k).sms for k, s in fits.items() if kind in s]
        by_sm = max(each) * board.sms / board.bandwidth_tbs if each and kind != "elementwise" else plain
        shares[kind] = round(own.get(kind, min(plain, by_sm)), 3)
    return shares


def refit(folder: Path) -> tuple[dict[str, Fitted], Check]:
    """Every board's numbers, and the ratios of predicted over measured by board and check."""
    grids, squares, memory = published.grid(folder), published.squares(folder), published.memory(folder)
    gemms, gemm_errors, check = fit_grids(grids)
    for key in sorted(gemms.keys() & squares.keys()):
        met = bare(key, fit_rate(bare(key, gemms[_with_grid(key, gemms)]), squares[key]))
        check[key, "squares known"] = gemm_ratios(met, grids[key][large(grids[key])])
        check[key, "squares known, any size"] = gemm_ratios(met, grids[key])
    shares, memory_errors, memory_check = fit_memory(memory)
    by_squares = half_widths(np.concatenate(list(_every_size(check, "squares known").values())))
    by_neighbour = half_widths(np.concatenate(list(_every_size(check, "board held out").values())))
    # Each board counts the same: one source has most of the rows.
    each = [half_widths(memory_check[key, "memory, board held out"]) for key in memory_errors]
    memory_elsewhere = np.mean(each, axis=0).round(3)
    found: dict[str, Fitted] = {}
    for key in sorted(given_boards(), key=lambda k: (k not in gemms, _distance(k, gemms))):
        near = given_boards()[key].neighbour
        if key in gemms:
            gemm, source = gemms[key], f"{len(grids[key])} GEMMs of NVIDIA's aiconfigurator"
        elif key in squares:
            gemm = fit_rate(bare(key, found[near].gemm), squares[key])
            source = f"e by {len(squares[key])} squares of zzc0721/torch-performance-test-data, the rest is {near}'s"
        else:
            gemm, source = found[near].gemm, f"{near}'s"
        own = ", ".join(sorted(memory[key].kind.unique())) if key in memory else "none"
        found[key] = Fitted(
            fitted="grid" if key in gemms else "squares" if key in squares else "neighbour",
            gemm=gemm.model_copy(update={f: float(f"{getattr(gemm, f):.4g}") for f in Gemm.model_fields}),
            shares=shares[key],
            errors={
                "gemm": gemm_errors.get(key, by_squares if key in squares else by_neighbour),
                # Its own rows may all be large ones, which are the easier.
                "memory": np.maximum(memory_errors.get(key, [0, 0]), memory_elsewhere).tolist(),
                "attention": _ATTENTION,
            },
            sources={
                "gemm": source,
                "shares": f"{own} by {len(memory.get(key, []))} rows of its own, the rest by the other boards' rate an "
                "SM; random as elementwise, for want of rows",
            },
        )
    return found, {**check, **memory_check}


def _distance(key: str, fits: dict[str, Gemm]) -> int:
    """Steps from neighbour to neighbour until one with a grid."""
    return 0 if key in fits else 1 + _distance(given_boards()[key].neighbour, fits)


def main(folder: Path) -> int:
    """Refits, writes fitted.yaml and prints the errors. The exit status."""
    try:
        found, check = refit(folder)
        models, squares = published.model_shapes(folder), published.squares(folder)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    known = {key: assemble(key, given_boards()[key], fitted) for key, fitted in found.items()}
    for key, rows in published.memory(folder, engines=True).items():
        check[key, "memory, engines' kernels"] = memory_ratios(known[key], rows)
    for key, rows in published.fp32(folder).items():
        check[key, "fp32"] = gemm_ratios(known[key], rows, fp32=True)
    for key, rows in models.items():
        check[key, f"shapes of models ({known[key].fitted})"] = gemm_ratios(known[key], rows)
    for key, rows in squares.items():
        sized = rows[rows.m > 0].assign(n=lambda x: x.m, k=lambda x: x.m)
        if len(sized):
            timed = sized.assign(us=2 * sized.m**3 / sized.tflops / 1e6)
            check[key, f"squares ({known[key].fitted})"] = gemm_ratios(known[key], timed)
    text = yaml.safe_dump(
        {"boards": {k: found[k].model_dump() for k in given_boards()}},
        sort_keys=False,
        width=118,
        default_flow_style=None,
    )
    replace_file(FITTED, _HEAD + text)
    print(table(check))
    for name in ("in the fit", "shapes held out", "board held out"):
        for size in ("", ", any size"):
            means = {k: np.abs(r - 1).mean() for (k, how), r in check.items()
                     if how.startswith(name) and how.endswith(", any size") == bool(size)}  # fmt: skip
            boards = [k for k in means if k != "l40s"]
            print(f"{name}{size}: mean of {', '.join(boards)}: {np.mean([means[k] for k in boards]):.1%}")
    print("targets of the mean: shapes held out 6 %, board held out 9 %")
    for how in ("board held out", "squares known"):
        shares = ", ".join(f"{key} {share:.0%}" for key, share in coverage(check, how).items())
        print(f"{how}: rows within the 90 % interval that the other boards give: {shares}")
    return 0


def coverage(check: Check, how: str) -> dict[str, float]:
    """Of each board judged without its rows: the share of them within the interval that the others' errors give."""
    held = _every_size(check, how)
    return {
        key: within(half_widths(np.concatenate([r for k, r in held.items() if k != key]))[1], ratios)
        for key, ratios in held.items()
    }


def _every_size(check: Check, how: str) -> dict[str, Ratios]:
    """By board the ratios of a check on rows of every size."""
    return {k[0]: r for k, r in check.items() if k[1].startswith(how) and k[1].endswith("any size")}


_HEAD = """\
# Written by `make fit` (python -m bench.predict.fit) from published timings; not edited by hand.
#
# gemm: the numbers of rates.gemm_us. shares: of the data sheet's bandwidth. errors: half widths of the 80 and 90 %
# intervals, as shares of the predicted time, from rows that the fit had not seen. fitted: whose rows gemm comes from.

"""

if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(
            "python -m bench.predict.fit FOLDER: give one folder, of published timings (make fit ARGS=FOLDER)",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
