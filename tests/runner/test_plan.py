"""Where a sweep goes in results/<key>, and how much may be asked of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.runner.plan import COMPARED, check_size, results_folder
from bench.sweeps.expand import make_plan
from bench.sweeps.file import sweep_names
from tests.conftest import SWEEP, Cli

RESULTS = Path("results/cpu")


@pytest.mark.parametrize(
    "name",
    ["reference.yaml", "REFERENCE.yml", "reference", "earlier.yaml", "Earlier", "...yaml", "..yaml", ".yaml", ".hidden",
     "compare-table1.yaml", "a\nb.yaml", "a\x1b[31m.yaml", "a\u202eb.yaml", "\udcff.yaml", "x" * 101, "ä" * 51],
)  # fmt: skip
def test_a_stem_with_a_meaning_or_none_is_refused(name: str) -> None:
    for before in ("", COMPARED):
        with pytest.raises(
            UserError, match=r"^sweep .*: its stem cannot name a folder in results/cpu\. Pass --out"
        ) as error:
            results_folder(RESULTS, Path("/my") / name, before)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name", ["mine.yaml", "my own.yaml", "a.b.yaml", "-x.yaml", "references.yaml", "x" * 100, "ß.yaml", "x"]
)
def test_any_other_stem_names_its_folder(name: str) -> None:
    assert results_folder(RESULTS, Path("/my") / name) == RESULTS / Path(name).stem
    assert results_folder(RESULTS, Path(name), COMPARED) == RESULTS / f"compare-{Path(name).stem}"


def test_every_sweep_of_the_suite_has_its_folder() -> None:
    assert all(results_folder(RESULTS, Path(name)) == RESULTS / name for name in sweep_names())


def test_run_campaign_and_compare_refuse_alike(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w").mkdir()
    for name in ("reference.yaml", "...yaml"):
        sweep = Path("w") / name
        sweep.write_text(SWEEP)
        root = Path(__file__).parents[2]
        for words in (["run", sweep], ["campaign", "--stages", sweep], ["compare", "--run", "1", root, root, sweep]):
            done = cli(*words, "--gpu", "cpu")
            assert done.returncode == 2 and "cannot name a folder" in done.stderr, words
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_two_stages_of_one_name_would_share_a_folder(cli: Cli, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(SWEEP)
    stages = f"{tmp_path}/a/mine.yaml,{tmp_path}/b/mine.yaml"
    done = cli("campaign", "--gpu", "cpu", "--out", tmp_path / "out", "--stages", stages)
    assert done.returncode == 2 and "would measure into one folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_more_rows_than_anybody_waits_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    plan = make_plan(str(path), on_cpu=True)
    check_size(plan, 10_000)  # 6 cases of 6 rows
    with pytest.raises(
        UserError, match=r"--repeat 10000: 1,440,000 rows \(24 cases of 6 rows, 10,000 times\)\. At most"
    ):
        check_size(replace(plan, cases=plan.cases * 4), 10_000)
