"""campaign.json: what became of each stage, and the archive that is made beside it."""

import json
from pathlib import Path
from typing import Any, Literal

from bench.commands.campaign.archive import packed
from bench.devices import Device
from bench.files import replace_file
from bench.reading import Plain, Text, fields_of, number, read_object, shape_of
from bench.record.environment import IDENTITY, provenance, tuned_hash
from bench.terminal import say

DONE, FAILED, SKIPPED, OPEN = "done", "failed", "skipped", "open"

_STAGE: Any = fields_of(
    {"status": Literal["done", "failed", "skipped", "open"], "exit": int, "seconds": number(0, 1e9), "detail": Text},
    ("status", "seconds", "detail"),
)
_RECORD = shape_of({"environment": dict[Text, Plain], "stages": dict[Text, _STAGE]}, ("environment", "stages"))


class Log:
    """What became of each stage. It is forgotten where device, sources or versions are others."""

    def __init__(self, folder: Path, device: Device, fresh: bool, save: Path | None) -> None:
        self._folder, self._save, self._key = folder, save, device.key
        self._path = folder / "campaign.json"
        self._left_out: list[str] = []  # of the last archive
        found = provenance(device)
        self._environment = {name: found[name] for name in IDENTITY} | {"tuned": tuned_hash(device)}
        self.stages: dict[str, dict[str, Any]] = {}
        if self._path.exists() and not fresh:
            before = read_object(self._path, _RECORD, "It is not the record of a campaign. Remove it, or pass --fresh.")
            self.stages = before["stages"] if before["environment"] == self._environment else {}

    def note(self, name: str, status: str, code: int | None, detail: str, seconds: float = 0.0) -> None:
        """What became of a stage; on disk when this returns."""
        seconds = round(self.stages.get(name, {}).get("seconds", 0.0) + seconds, 3)
        self.stages[name] = {"status": status, "exit": code, "seconds": seconds, "detail": detail}
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"environment": self._environment, "stages": self.stages}, indent=1)
        replace_file(self._path, text + "\n")
        self.pack()

    def pack(self) -> None:
        """Puts the results into the folder of --save. A failure is said, and so is what the archive has no room for."""
        if self._save is None:
            return
        try:
            archive, left_out = packed(self._folder)
            self._save.mkdir(parents=True, exist_ok=True)
            replace_file(self._save / f"{self._key}.tar.gz", archive)
        except OSError as e:
            say(f"--save {self._save}: not saved this time: {e.strerror or e}")
            return
        if left_out != self._left_out:
            self._left_out = left_out
            what = f"there is no room for {', '.join(left_out)}" if left_out else "there is room for all of it again"
            say(f"--save {self._save}: {what}")
