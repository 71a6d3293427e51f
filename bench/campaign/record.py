"""campaign.json: what a campaign has done and how long each stage took. What was measured stands in the sweeps' own
folders; this decides only what need not be started again, and what time is left."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.devices import Device
from bench.errors import UserError
from bench.files import replace_file
from bench.record.environment import version
from bench.record.store import now

DONE, PARTIAL, FAILED, SKIPPED, OPEN = "done", "partial", "failed", "skipped", "open"


@dataclass
class Progress:
    """How far a stage is."""

    status: str = OPEN
    spent_s: float = 0.0
    detail: str = ""


@dataclass
class Campaign:
    """The record in memory; `save` puts it on disk as a whole."""

    path: Path
    environment: dict[str, Any]
    stages: dict[str, Progress] = field(default_factory=dict)

    @property
    def spent_s(self) -> float:
        return sum(p.spent_s for p in self.stages.values())

    def of(self, name: str) -> Progress:
        return self.stages.setdefault(name, Progress())

    def note(self, name: str, status: str, detail: str, seconds: float = 0.0) -> None:
        """What became of a stage; on disk when this returns."""
        found = self.of(name)
        found.status, found.detail, found.spent_s = status, detail, round(found.spent_s + seconds, 3)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stages = {name: asdict(p) for name, p in self.stages.items()}
        value = {"environment": self.environment, "saved": now(), "spent_s": round(self.spent_s, 3), "stages": stages}
        replace_file(self.path, json.dumps(value, indent=1) + "\n")


def open_campaign(out: Path, device: Device, fresh: bool) -> Campaign:
    """The campaign of a results folder; a new one under `fresh`, or where GPU, driver, torch or triton is another."""
    path = out / "campaign.json"
    environment = {"gpu": device.name, "driver": device.driver, "torch": version("torch"), "triton": version("triton")}
    if fresh or not path.exists():
        return Campaign(path, environment)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        stages = {name: Progress(**p) for name, p in found["stages"].items()}
        same = found["environment"] == environment
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path}: not the record of a campaign ({e}); remove it, or pass --fresh") from None
    return Campaign(path, environment, stages if same else {})
