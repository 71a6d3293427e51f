"""The project's own promises: make's targets, README's table and commands, what may not be imported where."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.case import AXES
from bench.case.causes import as_markdown as causes_as_markdown
from bench.case.clocks import CLOCKS
from bench.case.columns import COLUMNS, as_markdown
from bench.case.schema import Status
from bench.case.shapes import named_models
from bench.sweeps.file import sweep_names
from tests.conftest import ROOT, Bench
from tests.documented.pages import PAGES

README = (ROOT / "README.md").read_text()
DOCS = "\n".join([README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))])


def make(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_help_names_every_target_of_the_contract() -> None:
    told = {line.split()[0] for line in make("help").splitlines() if line}
    assert {"help", "setup", "bench", "test", "test-all", "lint", "report", "publish", "clean"} <= told


def test_an_interpreter_of_ones_own_installs_nothing(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    assert "pip install" in make("-n", "bench", cwd=tmp_path)
    planned = make("-n", "bench", "PYTHON=python3", "GPU=h100", "SWEEP=layers", cwd=tmp_path)
    assert "pip install" not in planned and "python3 -m bench run layers --gpu h100" in planned


def test_publish_copies_a_run_to_where_git_sees_it(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    run = tmp_path / "results" / "h100" / "table1"
    (run / "logs").mkdir(parents=True)
    for name in ("run.json", "rows.jsonl", "report.html", "logs/x.log"):
        (run / name).write_text("{}")
    make("publish", "GPU=h100", cwd=tmp_path)
    listed = subprocess.run(["git", "ls-files"], cwd=tmp_path, capture_output=True, text=True).stdout.split()
    assert listed == [f"results/h100/reference/table1/{n}" for n in ("report.html", "rows.jsonl", "run.json")]
    done = subprocess.run(["make", "publish", "GPU=h200"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "results/h200/table1" in done.stderr


def test_the_example_of_a_table_is_the_published_one() -> None:
    page = (ROOT / "docs" / "reading.md").read_text()
    shown = page.split("<!-- reference table: begin -->")[1].split("<!-- reference table: end -->")[0]
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    published = (ROOT / "results" / "cpu" / "reference" / "table1" / "table1.md").read_text().splitlines()
    assert len(rows) > 5 and rows == [line for line in published if line.startswith("|")][: len(rows)]


def test_the_example_of_causes_is_the_published_one() -> None:
    said = re.findall(r"^- .* times Full-FT .*$", (ROOT / "docs" / "why.md").read_text(), re.MULTILINE)
    published = (ROOT / "results" / "cpu" / "reference" / "table1" / "report.md").read_text().splitlines()
    assert len(said) == 4 and set(said) <= set(published)


def test_the_sweep_that_the_docs_show_is_one(bench: Bench, tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n(description:.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
    assert shown
    (tmp_path / "shown.yaml").write_text(shown[1])
    done = bench("list", tmp_path / "shown.yaml")
    assert done.returncode == 0 and "3 cases" in done.stdout, done.stderr


def test_the_docs_know_every_sweep_axis_clock_and_status() -> None:
    for name in (*sweep_names(), *CLOCKS, *Status):
        assert f"| {name} |" in DOCS, name
    for word in AXES:
        assert word in DOCS, word


def test_every_link_in_the_docs_leads_somewhere() -> None:
    links = [(path, link) for path in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    local = [(path, link) for path, link in links if not link.startswith("http")]
    assert len(local) > 10
    for path, link in local:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], link


def test_the_page_of_columns_is_the_schemas() -> None:
    assert (ROOT / "docs" / "columns.md").read_text() == as_markdown(), "python -m bench.case.columns > docs/columns.md"
    for name in COLUMNS:
        assert f"| `{name}` |" in as_markdown()


def test_the_page_on_causes_has_their_tables() -> None:
    page = (ROOT / "docs" / "why.md").read_text()
    for table in causes_as_markdown().split("\n\n"):
        assert table in page, "python -m bench.case.causes"


def test_exact_versions_satisfy_the_floors() -> None:
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert (pins["torch"], pins["triton"]) == ("2.13.0", "3.7.1")
    floors = re.findall(r'^ +"([A-Za-z-]+)(?:\[\w+\])?>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {"torch", "triton", "transformers"} <= {name for name, _ in floors}
    for name, floor in floors:
        if name != "setuptools":
            assert tuple(map(int, pins[name].split("."))) >= tuple(map(int, floor.split("."))), name


def imports_of(folder: str) -> dict[str, set[str]]:
    """For each module of a folder, the top-level packages it imports anywhere."""
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        nodes = ast.walk(ast.parse(path.read_text()))
        names |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
        found[str(path.relative_to(ROOT))] = {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("kernels", {"bench", "plots", "kernels", "transformers"}),
        ("plots", {"kernels", "torch", "triton"}),
        ("bench", {"plots"}),
    ],
)  # fmt: skip
def test_layers_know_only_what_is_below(folder: str, never: set[str]) -> None:
    for module, imported in imports_of(folder).items():
        theirs = module.startswith(
            ("kernels/peft/", "kernels/zoo/")
        )  # they work on PEFT's and transformers' own models
        assert not imported & (never - {"transformers"} if theirs else never), module
        assert "peft" not in imported or theirs or module.startswith("bench/"), module


def test_kernels_work_without_triton() -> None:
    """Where there is no triton (macOS), everything but impl triton works."""
    code = "import sys; sys.modules['triton'] = None\nimport kernels, torch;"
    code += " x, w, a, b = torch.ones(2, 4), torch.ones(3, 4), torch.ones(1, 4), torch.ones(3, 1);"
    code += " print(kernels.lora_linear(x, w, a, b, scale=0.5).tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([[6.0] * 3] * 2)


def test_the_docs_know_every_model() -> None:
    assert {"gpt2-medium", "gpt2-xl", "tinyllama", "tinyllama-4-blocks", "llama2-7b"} <= set(named_models())
    for name in named_models():
        assert f"`{name}`" in DOCS, name
