"""compare --fail and --format: what CI reads, and what names from a damaged or hostile folder cannot do to it."""

import json
import subprocess
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from markdown_it import MarkdownIt

from bench.compare.comparison import compare_folders
from bench.compare.github import annotations, as_markdown
from bench.compare.junit import as_junit
from bench.compare.limit import Limit, parse_limit
from bench.errors import UserError
from tests.compare.runs import CALM, scaled, two_runs
from tests.conftest import ROOT, Bench, Cli, rows_of
from tests.synthetic import case

HOSTILE = (
    "x|y <img src=x onerror=alert(1)> @octocat #1 [a](https://evil.example) `c` www.evil.example **b** & "
    "\x1b[2J\n::error::z"
)


def layers(tmp_path: Path, by: dict[str, float], processes: int = 5, **columns: Any) -> tuple[Path, Path]:
    """Folders a and b with a case for each layer, B slower by that factor."""
    a, b = two_runs(tmp_path, CALM[:processes], CALM[:processes], **columns)
    for folder in (a, b):
        new = []
        for layer, factor in by.items():
            for r in rows_of(folder):
                of = case("square-64")
                ms = r["median_ms"] * (factor if folder == b else 1)
                new.append(r | {"case_id": f"{of.case_id[:6]}{len(layer):06x}", "layer": layer, "median_ms": ms})
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in new))
    return a, b


# --fail


def test_a_limit_fails_at_its_ratio_and_not_below(cli: Cli, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, scaled(1.05))
    for fail, status in (("slower:5%", 1), ("slower:4.99%", 1), ("slower:5.1%", 0), ("slower", 1)):
        done = cli("compare", a, b, "--fail", fail)
        assert done.returncode == status, (fail, done.stderr)
        assert ("--fail: 1 of 1 rows SLOWER" in done.stderr) == bool(status)
        assert cli("compare", b, a, "--fail", fail).returncode == 0, "faster is fine"
    assert cli("compare", a, b).returncode == 0, "without --fail"


def test_without_a_verdict_nothing_fails(cli: Cli, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, scaled(2.0)[:2], CALM[:2])
    assert cli("compare", a, b, "--fail", "slower").returncode == 0


@pytest.mark.parametrize(
    "text", ["", "slow", "faster", "slower:", "slower:5", "slower:-5%", "slower:1001%", "slower:nan%", "slower:5%\n"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--fail: .* is not valid\. Write slower, .* or slower:5%"):
        parse_limit(text)


def test_bad_words_end_with_two_before_anything_is_read(cli: Cli) -> None:
    for words, said in ((("--fail", "5%"), "--fail: '5%'"), (("--format", "xml"), "Valid: text, json, github, junit")):
        done = cli("compare", "nowhere", "nowhere", *words)
        assert done.returncode == 2 and said in done.stderr and not done.stdout


# What is said once


def test_without_verdicts_there_is_one_sentence_and_no_mean(cli: Cli, tmp_path: Path) -> None:
    a, b = layers(tmp_path, {"square-64": 1.0, "square-128x": 2.0}, processes=1)
    done = cli("compare", a, b)
    assert "interval" not in done.stdout and "mean" not in done.stdout and ",," not in done.stdout
    assert done.stdout.lower().count("no verdict") == 1 and done.stdout.count("1 of 5 processes a side") == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith(
        "No verdict: 1 of 5 processes a side. It needs 5 processes a side, measured in turns: python"
    )
    found = json.loads(cli("compare", a, b, "--format", "json").stdout)
    assert found["headline"] is None and found["sentence"] == last and len(found["comparisons"]) == 2


def test_the_mean_leaves_out_what_was_refused_and_says_so(tmp_path: Path) -> None:
    a, b = layers(tmp_path, {"square-64": 1.0, "square-128x": 1.0, "square-256xy": 9.0})
    kept = [r for r in rows_of(b) if r["layer"] != "square-256xy" or r["repeat"] == 0]
    (b / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    c = compare_folders(a, b)
    assert c.head is not None and c.head.outcome.ratio == pytest.approx(1.0)
    assert c.sentence.startswith(
        "B ran as fast as A, within 1%, geometric mean over 2 of 3 cases: forward, clock eager"
    )


def test_a_reason_on_both_sides_is_told_once(cli: Cli, tmp_path: Path) -> None:
    a, b = layers(tmp_path, {"square-64": 1.0, "square-128x": 1.0})
    for folder in (a, b):
        rows = [r | {"status": "oom", "median_ms": None} if r["layer"] == "square-128x" else r for r in rows_of(folder)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    told = [x for x in cli("compare", a, b).stdout.splitlines() if "oom" in x]
    assert len(told) == 1 and told[0].startswith("not compared, A and B: square-128x")


# Formats


def test_json_on_standard_output_is_what_the_file_gets(cli: Cli, tmp_path: Path) -> None:
    a, b = two_runs(tmp_path, scaled(1.1))
    done = cli("compare", a, b, "--fail", "slower:5%", "--format", "json", "--json", tmp_path / "c.json")
    assert done.returncode == 1 and done.stdout == (tmp_path / "c.json").read_text()
    found = json.loads(done.stdout)
    assert found["fail"] == {"slower_percent": 5.0, "rows": 1} and found["comparisons"][0]["fails"] is True


def html(text: str) -> str:
    """As GitHub renders Markdown, raw HTML and links without brackets included."""
    found = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table").render(text)
    assert isinstance(found, str)
    return found


def test_github_has_a_short_table_and_all_rows_folded(cli: Cli, tmp_path: Path) -> None:
    a, b = layers(tmp_path, {"square-64": 1.0, "square-128x": 1.2, "square-256xy": 0.8, "square-512xyz": 1.03})
    done = cli("compare", a, b, "--fail", "slower:5%", "--format", "github")
    assert done.returncode == 1
    page = html(done.stdout)
    assert "<h3>lorabench compare: failed</h3>" in page and "1 of 4 rows is SLOWER by at least 5 %." in page
    short, whole = page.split("<details>")[:2]
    assert [short.count(x) for x in ("<tr>", "SLOWER</td>", "FASTER</td>", "SAME</td>")] == [1 + 3, 2, 1, 0]
    short = short.partition("<table>")[2]
    assert short.index("square-128x") < short.index("square-512xyz") < short.index("square-256xy"), "the slowest first"
    assert whole.count("<tr>") == 1 + 4 and page.count("<details>") == page.count("</details>") == 2
    assert "lorabench compare: passed" in cli("compare", b, b, "--fail", "slower", "--format", "github").stdout


def test_github_cuts_what_a_comment_cannot_hold(tmp_path: Path) -> None:
    a, b = layers(tmp_path, {f"square-64{'x' * i}": 1.5 for i in range(230)})
    text = as_markdown(compare_folders(a, b))
    assert len(text) < 65_536 and "and 210 more changed" in text and "and 30 more;" in text


def test_names_in_markdown_are_text_and_nothing_else(tmp_path: Path) -> None:
    a, b = layers(tmp_path, {HOSTILE: 1.2, "square-64": 1.0})
    text = as_markdown(compare_folders(a, b))
    page = html(text)
    for tag in ("<img", "<a ", "<code", "<strong", "<em"):
        assert tag not in page
    assert "\x1b" not in text and not [line for line in text.splitlines() if line.startswith("::")]
    assert "@octocat" not in unescape(page) and "#1 " not in unescape(page) and "www." not in text
    assert page.count("<tr>") == (1 + 1) + (1 + 2), "no cell ends at its |"
    assert "x|y <img src=x onerror=alert(1)>" in unescape(page)


def test_annotations_are_single_commands(bench: Bench, tmp_path: Path) -> None:
    a, b = layers(tmp_path, {HOSTILE: 1.2, "square-64": 1.3})
    command = bench.command("compare", a, b, "--fail", "slower:5%", "--format", "github")
    env = bench.env | {"GITHUB_ACTIONS": "true"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if line.startswith("::")]
    assert len(told) == 2 and all(x.startswith("::error title=lorabench compare::") for x in told)
    assert "::error" not in done.stdout
    assert not [x for x in bench("compare", a, b, "--fail", "slower", "--format", "github").stderr if x == ":"][1:]
    assert all("%" not in x.replace("%25", "") for x in annotations(compare_folders(a, b, (), Limit(5))))


SUITE = {"name", "tests", "failures", "errors", "skipped"}
CASE = {"classname", "name", "time"}


def junit(text: str) -> Xml.Element:
    """The one suite of a JUnit file, held to what Jenkins' schema of it (junit-10.xsd) allows."""
    root = Xml.fromstring(text.encode())
    assert root.tag == "testsuites" and set(root.attrib) <= {"tests", "failures", "errors"}
    (suite,) = root
    assert suite.tag == "testsuite" and set(suite.attrib) == SUITE
    for one in suite:
        assert one.tag == "testcase" and set(one.attrib) == CASE and float(one.attrib["time"]) >= 0
        assert [x.tag for x in one] in ([], ["skipped"], ["failure"], ["system-out"])
    kinds = [x.tag for one in suite for x in one]
    told = {k: int(suite.attrib[k]) for k in SUITE - {"name"}}
    assert told == {
        "tests": len(suite), "failures": kinds.count("failure"), "errors": 0, "skipped": kinds.count("skipped"),
    }  # fmt: skip
    return suite


def test_junit_has_a_test_case_for_each_row(cli: Cli, tmp_path: Path) -> None:
    a, b = layers(tmp_path, {"square-64": 1.0, "square-128x": 1.2, "square-256xy": 1.03, "square-512xyz": 2.0})
    rows = [
        r | {"status": "oom", "median_ms": None, "detail": "80 GiB"} if r["layer"] == "square-512xyz" else r
        for r in rows_of(b)
    ]
    kept = [r for r in rows if r["layer"] != "square-64" or r["repeat"]]
    (b / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    done = cli("compare", a, b, "--fail", "slower:5%", "--format", "junit")
    assert done.returncode == 1
    suite = junit(done.stdout)
    found = {one.attrib["name"].split()[0]: one for one in suite}
    assert {name: one[0].tag for name, one in found.items()} == {
        "square-64": "skipped", "square-128x": "failure", "square-256xy": "system-out", "square-512xyz": "skipped",
    }  # fmt: skip
    assert (
        found["square-128x"][0].attrib["type"] == "SLOWER" and "B/A 1.200" in found["square-128x"][0].attrib["message"]
    )
    assert found["square-512xyz"][0].attrib["message"] == "B: oom: 80 GiB"
    assert float(found["square-128x"].attrib["time"]) == pytest.approx(1.2 * 2.0e-3)
    assert not junit(cli("compare", a, b, "--format", "junit").stdout).findall("*/failure"), "without --fail"


def test_hostile_names_leave_junit_xml(tmp_path: Path) -> None:
    for name in (HOSTILE, "]]> <!-- \ufffe &amp; \x00 \x85", '"/><testcase name="'):
        suite = junit(as_junit(compare_folders(*layers(tmp_path / str(len(name)), {name: 1.2}), (), Limit())))
        assert len(suite) == 1 and suite[0][0].tag == "failure"
