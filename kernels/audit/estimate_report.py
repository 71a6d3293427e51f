"""The rows of an estimate as tables."""

from collections import defaultdict
from statistics import median
from typing import Any

HEADLINE = "Estimates from machine code and shapes; nothing here was measured."


def report(rows: list[dict[str, Any]]) -> str:
    """What a step costs in each kernel and tile, the launches at every shape, and what the dispatcher takes."""
    lines = [HEADLINE, "Rank 16, bf16.", *_steps(rows), *_launches(rows), *_chosen(rows)]
    return "\n".join(lines)


def _program(row: dict[str, Any]) -> str:
    return f"{row['kernel'].removesuffix('_kernel'):21}{row['computes']:27}{row['tile']:18}"


def _steps(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "A step of the main loop: KiB through shared memory and from L2, and clocks of an SM by resource.",
        "rest: what comes before and after the loop of one tile, in clocks of its scarcest resource.",
        f"{'kernel':21}{'computes':27}{'tile':18}{'gpu':11}{'shared':>8}{'L2':>8}  "
        f"{'tensor':>7}{'shared':>7}{'issue':>7}{'integer':>8}{'L2':>7}{'rest':>8}",
    ]
    seen = set()
    for row in rows:
        key = tuple(row[name] for name in ("kernel", "computes", "tile", "gpu"))
        if "error" in row or key in seen:
            continue
        seen.add(key)
        clocks = row["step_clocks"]
        lines.append(
            f"{_program(row)}{row['gpu']:11}"
            f"{row['step_shared_bytes'] / 1024:8.1f}{row['step_l2_bytes'] / 1024:8.1f}  "
            f"{clocks['tensor cores']:7}{clocks['shared memory']:7}{clocks['issue']:7}{clocks['integer']:8}"
            f"{clocks['L2']:7}{max(row['rest_clocks'].values()):8}"
        )
    return lines


def _launches(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "Launches. shape: tokens x out_features x in_features of the layer. waves: tiles of the busiest SM. blocks:",
        "how many it holds at once. outside: its time outside of main loops. *: what the dispatcher takes there.",
        f"{'kernel':21}{'computes':27}{'tile':18}{'shape':17}{'gpu':11}{'bound':14}{'blocks':>6}{'waves':>6}"
        f"{'outside':>8}{'us':>9}  share of",
    ]
    for row in rows:
        named = f"{_program(row)}{row['shape']:17}{row['gpu']:11}"
        if "error" in row:
            lines.append(named + row["error"])
            continue
        mark = " *" if row["chosen"] else ""
        lines.append(
            f"{named}{row['bound']:14}{row['blocks']:6}{row['waves']:6}{row['outside']:8.2f}{row['us']:9.1f}"
            f"  {row['share']:.2f} {row['of']}{mark}"
        )
    lines.append("cuBLAS: by a formula fitted to published times. memory: the bytes at the data sheet's bandwidth.")
    return lines


def _chosen(rows: list[dict[str, Any]]) -> list[str]:
    ranges = defaultdict(list)
    for row in rows:
        if row.get("chosen"):
            ranges[row["gpu"], row["kernel"].removesuffix("_kernel"), row["computes"], row["of"]].append(row["share"])
    if not ranges:
        return []
    lines = ["", "What the dispatcher takes: lowest, median and highest estimated share."]
    for (gpu, kernel, computes, of), shares in ranges.items():
        low, middle, high = min(shares), median(shares), max(shares)
        lines.append(f"{gpu:11}{kernel:21}{computes:27}{low:.2f} {middle:.2f} {high:.2f} of {of}, {len(shares)} shapes")
    return lines
