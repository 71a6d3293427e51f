"""Whose commit a run says it is of: this checkout's, never that of a repository around it."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.record.environment import commit


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.email=a@b", "-c", "user.name=x", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    outer = tmp_path / " outer\n"  # a name as bad as git can print
    outer.mkdir()
    git(outer, "init", "-q")
    (outer / "file").write_text("one")
    git(outer, "add", "file")
    git(outer, "commit", "-q", "-m", "outer")
    return outer


def test_a_checkout_has_its_commit_and_whether_it_was_changed(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    assert commit(repository) == (head, False)
    (repository / "untracked").touch()
    assert commit(repository) == (head, False)
    (repository / "file").write_text("two")
    assert commit(repository) == (head, True)
    (repository.parent / "link").symlink_to(repository.name)
    assert commit(repository.parent / "link") == (head, True)


def test_a_copied_tree_inside_another_repository_has_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = repository / "sub"
    copied.mkdir()
    assert commit(copied) == (None, None)
    for name, value in {"GIT_DIR": repository / ".git", "GIT_WORK_TREE": copied}.items():
        monkeypatch.setenv(name, str(value))
    assert commit(copied) == (None, None)


def test_variables_of_another_git_change_nothing(repository: Path, tmp_path: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", str(other / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(other / "index"))
        assert commit(repository) == (head, False)
    assert commit(other) == (None, None), "no commit yet"
    assert commit(tmp_path / "nowhere") == (None, None)


def test_asking_writes_nothing_into_the_repository(repository: Path) -> None:
    os.utime(repository / "file", (1, 1))  # git would refresh its index, and hold index.lock meanwhile
    before = (repository / ".git" / "index").read_bytes()
    commit(repository)
    assert (repository / ".git" / "index").read_bytes() == before
