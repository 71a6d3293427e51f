import json
from pathlib import Path


def merge_records(sources, out, allow=frozenset(), one_plan=False):
    seen = {}
    for s in sources:
        for l in (s / "rows.jsonl").read_text().splitlines():
            r = json.loads(l)
            seen[(r["case_id"], r["pass"], r["clock"], r["repeat"])] = l
    (out / "rows.jsonl").write_text("".join(l + "\n" for l in seen.values()))
    (out / "samples.jsonl").write_text(
        "".join((s / "samples.jsonl").read_text() for s in sources if (s / "samples.jsonl").exists())
    )
    (out / "run.json").write_text((sources[0] / "run.json").read_text())
