"""A folder in which documented commands run, with what they name."""

import json
import re
import shutil
from pathlib import Path

from tests.conftest import ROOT, SWEEP, Cli

REFERENCE = ROOT / "results" / "cpu" / "reference" / "table1"
HOST = "12.5"  # microseconds; given, so that nothing is measured


class Place:
    """An empty folder that the commands run in, with what they name put there when they do."""

    def __init__(self, folder: Path, cli: Cli) -> None:
        self.folder, self.cli = folder, cli
        (folder / "my.yaml").write_text(SWEEP)

    def put(self, arguments: list[str]) -> list[str]:
        """Makes each results folder that is named, on a board of its name: one case size of the published Table 1, or a
        prediction."""
        for word in arguments:
            if not re.fullmatch(r"DIR(_\w+)?|results/\S+", word) or (self.folder / word).exists():
                continue
            if "predicted" in word:
                self.predict("a100", word)
                continue
            (self.folder / word).mkdir(parents=True)
            for name in ("run.json", "causes.csv"):
                shutil.copy(REFERENCE / name, self.folder / word)
            lines = (REFERENCE / "rows.jsonl").read_text().splitlines(keepends=True)
            kept = [line for line in lines if '"gpt2-xl"' in line and '"seq": 128' in line]
            renamed = [json.dumps(json.loads(line) | {"gpu": word}) + "\n" for line in kept]
            (self.folder / word / "rows.jsonl").write_text("".join(renamed))
        return arguments

    def predict(self, boards: str, out: str, *options: str) -> None:
        done = self.cli("predict", "my.yaml", "--gpu", boards, "--out", out, "--host-us", HOST, *options)
        assert done.returncode == 0, done.stderr
