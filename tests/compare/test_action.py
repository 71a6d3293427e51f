"""docs/compare-action: the steps of the action, run by bash as GitHub runs them, up to what would be measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import yaml

from bench.cli import app
from tests.compare.runs import CALM, scaled, two_runs
from tests.conftest import ROOT

ACTION = yaml.safe_load((ROOT / "docs" / "compare-action" / "action.yml").read_text())
(STEP,) = ACTION["runs"]["steps"]

# A Python whose `compare --run` lays down folders made before, and then compares them as it would after measuring.
PYTHON = """#!{python}
import os, shutil, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    print(os.getcwd(), words, file=log)
os.chdir({root!r})
if "--run" in words:
    out = words[words.index("--out") + 1]
    shutil.copytree({made!r}, out)
    kept = [w for i, w in enumerate(words) if w in ("--format", "json", "--fail") or words[i - 1] == "--fail"]
    words = ["-m", "bench", "compare", *kept, out + "/a", out + "/b"]
os.execv({python!r}, [{python!r}, *words])
"""


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, and a branch whose name is a command."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for n in "12":
        (folder / "file").write_text(n)
        git(folder, "add", "file")
        git(folder, "commit", "-q", "-m", n)
    git(folder, "branch", "$(touch${IFS}planted)")
    return folder


def act(tmp_path: Path, repository: Path, slower: float, **inputs: str) -> tuple[int, dict[str, Path], str]:
    """Runs the step with these inputs: its exit status, the files of GitHub, and what it printed."""
    made = tmp_path / "made"
    if not made.exists():
        two_runs(made, scaled(slower), CALM)
    python = tmp_path / "python"
    log = str(tmp_path / "calls")
    python.write_text(PYTHON.format(python=sys.executable, made=str(made), root=str(ROOT), log=log))
    python.chmod(0o755)
    given = {name: told.get("default", "") for name, told in ACTION["inputs"].items()}
    given |= {"base": "HEAD~1", "python": str(python)} | inputs
    values = {name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: given[m[1]], v) for name, v in STEP["env"].items()}
    files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    env = {"PATH": os.environ["PATH"], "RUNNER_TEMP": str(tmp_path), "GITHUB_ACTIONS": "true", "HOME": str(tmp_path)}
    env |= values | {name: str(path) for name, path in files.items()}
    # GitHub's own way to call bash
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEP["run"]]
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, files, done.stdout + done.stderr


def test_the_action_is_what_github_takes() -> None:
    assert {"name", "description", "inputs", "runs"} <= set(ACTION) and ACTION["runs"]["using"] == "composite"
    assert STEP["shell"] == "bash" and "${{" not in STEP["run"], "an input in the script would be run"
    used = set(re.findall(r"inputs\.(\w+)", json.dumps(STEP["env"])))
    assert used == set(ACTION["inputs"]) and all(told["description"] for told in ACTION["inputs"].values())
    assert ACTION["outputs"]["folder"]["value"] == f"${{{{ steps.{STEP['id']}.outputs.folder }}}}"
    assert subprocess.run(["bash", "-n", "-c", STEP["run"]]).returncode == 0


def test_its_options_are_those_of_compare() -> None:
    from typer.main import get_command

    group: Any = get_command(app)
    known = {name for option in group.commands["compare"].params for name in option.opts}
    assert set(re.findall(r"(?<= )--[a-z]+(?= [\"$a-z])", STEP["run"])) - {"--force", "--detach", "--verify"} <= known


def test_a_slowdown_fails_the_step_and_its_files_are_there(tmp_path: Path, repository: Path) -> None:
    status, files, said = act(tmp_path, repository, 1.2)
    assert status == 1, said
    summary = files["GITHUB_STEP_SUMMARY"].read_text()
    assert summary.startswith("### lorabench compare: failed") and "::error title=lorabench compare::" in said
    folder = Path(files["GITHUB_OUTPUT"].read_text().strip().removeprefix("folder="))
    assert (folder / "compare.md").read_text() == summary
    assert json.loads((folder / "compare.json").read_text())["counts"]["SLOWER"] == 1
    assert len(Xml.parse(folder / "compare.xml").getroot().findall("*/*/failure")) == 1
    assert not (folder / "base").exists() and git(repository, "worktree", "list").count("\n") == 1
    first, *others = (tmp_path / "calls").read_text().splitlines()
    assert first.startswith(f"{folder}/head ") and f"'{folder}/base', '{folder}/head', 'layers'" in first
    assert "'--run', '5'" in first and len(others) == 2


@pytest.mark.parametrize(
    ("slower", "inputs"),
    [(1.03, {}), (1.2, {"fail": "slower:25%"})]
    + [pytest.param(*with_, marks=pytest.mark.slow) for with_ in ((1.0, {}), (0.8, {}), (1.2, {"fail": ""}))],
)
def test_what_is_not_that_slow_passes(tmp_path: Path, repository: Path, slower: float, inputs: dict[str, str]) -> None:
    status, files, said = act(tmp_path, repository, slower, where="pass=forward", **inputs)
    assert status == 0, said
    assert "lorabench compare" in files["GITHUB_STEP_SUMMARY"].read_text()
    assert (tmp_path / "calls").read_text().count("'--where', 'pass=forward'") == 3


def test_a_bad_request_fails_with_its_line(tmp_path: Path, repository: Path) -> None:
    status, _, said = act(tmp_path, repository, 1.0, fail="5%")
    assert status == 1 and "error: --fail: '5%' is not valid" in said
    assert (tmp_path / "calls").read_text().count("\n") == 1, "the first command says so, before it measures"


@pytest.mark.parametrize("ref", ["$(touch${IFS}planted)", "--help", "nowhere; touch planted"])
def test_a_hostile_ref_is_a_name_or_refused(tmp_path: Path, repository: Path, ref: str) -> None:
    status, _, said = act(tmp_path, repository, 1.0, base=ref)
    assert (status == 0) == (ref[0] == "$"), said
    assert not list(tmp_path.rglob("planted"))
