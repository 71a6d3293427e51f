"""Sections of the report that no table fills: what failed, what it was measured under, how to get it again."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.again import recorded
from bench.case.names import short_name
from bench.errors import listed, shell_line
from bench.record.stats import RATIO_NOISY
from plots.data.load import Folder, text
from plots.data.panels import Panel
from plots.data.results import Results
from plots.render.blocks import Block, Code, Heading, Items, Para
from plots.text.conditions import conditions, spent
from plots.text.numbers import NOISY

MAX_ITEMS = 80  # of a list


def failed_items(folder: Folder) -> list[str]:
    """Every case that has rows without a time, with its status and detail."""
    found: dict[tuple[str, str, str], list[str]] = {}
    timed = {row.get("case_id") for row in folder.rows if (text(row.get("status")) or "ok") == "ok"}
    for row in folder.rows:
        status = text(row.get("status")) or "ok"
        if status != "ok":
            model = text(row.get("model"))
            where = " ".join(
                filter(None, (text(row.get("level")), model and short_name(model), text(row.get("layer"))))
            )
            rank = f" rank {text(row.get('rank'))}" if text(row.get("rank")) else ""
            name = f"{where}, {text(row.get('method'))} {text(row.get('impl'))}{rank}, {text(row.get('precision'))}"
            if row.get("case_id") in timed and text(row.get("clock")):
                name += f", clock {text(row.get('clock'))}"  # the case has times under another clock or in another pass
            shape = f"{text(row.get('batch'))} x {text(row.get('seq'))}"
            key = (status, name, text(row.get("detail")) or "no detail recorded")
            found.setdefault(key, [])
            if shape not in found[key]:
                found[key].append(shape)
    return [f"{status}: {name}, {listed(shapes)}: {detail}" for (status, name, detail), shapes in sorted(found.items())]


def commands(folder: Folder) -> tuple[str, str]:
    """The command that measured, and the one that retries what failed: the same, so that --out and the like stay."""
    last = folder.invocations[-1] if folder.invocations else {}
    statuses = sorted({text(r.get("status")) or "ok" for r in folder.rows} - {"ok", "unsupported"})
    plain = shell_line(["python", "-m", "bench", "run", folder.sweep or folder.path.resolve().name])
    asked, again = recorded(last.get("command") or plain, statuses)
    return asked or plain, again if statuses else ""


def status_blocks(folder: Folder, csv_name: str) -> list[Block]:
    """What was not timed, why, and the command that tries again."""
    items = failed_items(folder)
    blocks: list[Block] = [Heading("What could not be timed", folded=True, printed=False)]
    if items:
        blocks.append(Items(tuple(items[:MAX_ITEMS])))
        if len(items) > MAX_ITEMS:
            blocks.append(Para(f"{len(items) - MAX_ITEMS} more are in {csv_name}."))
    else:
        blocks.append(Para("Every recorded row has a time."))
    if any((text(r.get("status")) or "") == "unsupported" for r in folder.rows):
        blocks.append(Para("Unsupported means that this implementation cannot express the case here; no failure."))
    if retry := commands(folder)[1]:
        blocks += [Para("To measure the failed ones again:"), Code(retry)]
    return blocks


def provenance(folder: Folder, price: float | None = None) -> list[Block]:
    """run.json in words, and how to get these files again. price: what was given with --price."""
    plain = [(k, v) for k, v in folder.run.items() if k != "invocations" and v is not None and v != ""]
    pairs = [(k.replace("_", " "), json.dumps(v) if isinstance(v, (dict, list)) else str(v)) for k, v in plain]
    runs = folder.invocations
    for name, told in (("started", runs[:1]), ("finished", runs[-1:])):
        pairs += [(name, str(run[name])) for run in told if run.get(name)]
    for name, words in (("GPU while measuring", conditions(folder)), ("time went into", spent(folder))):
        pairs += [(name, words)] if words else []
    pairs += [("runs so far", str(len(runs)))] if len(runs) > 1 else []
    pairs += [("rows", str(len(folder.rows))), ("rows with raw samples", str(len(folder.lines)))]
    pairs += [("note", note) for note in folder.notes]
    asked, _ = commands(folder)
    redraw = f"python -m plots {shlex.quote(shown(folder.path))}" + (f" --price {price:.12g}" if price else "")
    blocks: list[Block] = [
        Heading("Where it comes from", folded=True, printed=False),
        Items(tuple(f"{name}: {value}" for name, value in pairs)),
        Heading("To get it again", folded=True, printed=False),
    ]
    why = f"python -m bench why {shlex.quote(shown(folder.path))}\n" if folder.causes else ""
    blocks.append(Code(f"{asked}\n{why}{redraw}"))
    sweep = (folder.invocations[-1].get("sweep") or {}) if folder.invocations else {}
    if sweep.get("text"):
        blocks += [Para("The sweep as it was read:"), Code(sweep["text"].rstrip())]
    return blocks


def shown(path: Path) -> str:
    """The folder as seen from the working directory, where it lies inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def progress_note(folder: Folder) -> str:
    """How much of the sweep is on record, where that is not all of it."""
    planned = (folder.invocations[-1].get("cases") or 0) if folder.invocations else 0
    recorded = len({(row.get("case_id"), row.get("repeat")) for row in folder.rows})
    if not 0 < recorded < planned:
        return ""
    return f"Half-finished: {recorded} of {planned} measurements are on record. The same command goes on with them."


def noise_note(results: Results, panels: Sequence[Panel]) -> str:
    """How many of the times and ratios are noisy, what marks them, and what to do where they are many."""
    shown = results.shown_clocks
    times = [cell.noisy for key, cell in results.cells.items() if cell.time and key[2] in shown]
    ratios = [ratio.noisy for panel in panels if panel.clock in shown for ratio in panel.ratios.values()]
    limits = ((times, "times", "the sweep allows"), (ratios, "ratios", f"+-{100 * RATIO_NOISY:.0f} %"))
    told = [
        f"{sum(noisy)} of {len(noisy)} {what} are noisy ({NOISY}): their intervals are wider than {limit}."
        for noisy, what, limit in limits
        if any(noisy)
    ]
    if 4 * sum(ratios or times) > len(ratios or times):  # a ratio of noisy times may well be sure, and then it is fine
        told.append(
            "Other work on the machine does that. Measure again on a quiet one (--fresh) before you conclude anything."
        )
    return " ".join(told)
