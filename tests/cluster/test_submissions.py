"""cluster.json may come from anybody: what stands there reaches commands, and is refused where it is odd."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cluster.layout import CLUSTER
from bench.cluster.local import Local
from bench.cluster.submissions import read_submissions
from bench.errors import UserError
from tests.cluster.made import submitted


def changed(folder: Path, **values: Any) -> Path:
    submitted(folder)
    told = json.loads((folder / CLUSTER).read_text())
    told["submissions"][0] |= values
    (folder / CLUSTER).write_text(json.dumps(told))
    return folder


def jobs(*names: str) -> list[dict[str, Any]]:
    return [{"number": 0, "tasks": 3, "jobs": [*names]}]


@pytest.mark.parametrize(
    "values, where",
    [
        ({"sbatch": {"account": "x\ntouch /tmp/here"}}, "sbatch.account"),
        ({"sbatch": {"account\ntouch": "x"}}, "sbatch.account"),
        ({"sbatch": {"account": 7}}, "sbatch.account"),
        ({"options": {"python": "python3\ntouch"}}, "options.python"),
        ({"options": {"minutes": "many"}}, "options.minutes"),
        ({"backend": "elsewhere"}, "backend"),
        ({"shards": jobs("--user=ann")}, "jobs.0"),
        ({"shards": jobs("../../x")}, "jobs.0"),
    ],
)
def test_odd_values_are_refused_with_their_place(tmp_path: Path, values: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as e:
        read_submissions(changed(tmp_path / "out", **values))
    assert CLUSTER in str(e.value) and where in str(e.value)


def test_what_may_be_missing(tmp_path: Path) -> None:
    options = {"partition": None, "minutes": 30}
    (found,) = read_submissions(changed(tmp_path / "out", options=options, sbatch=None, shards=jobs("7_0")))
    assert (found.options, found.sbatch, found.last_jobs) == (options, {}, ["7_0"])


def test_a_job_that_is_none_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'7_0': (this is )?no job of --on local"):
        Local(tmp_path).states(["7_0"])
