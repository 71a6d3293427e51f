"""make doctor and python -m bench where next to nothing is installed, and --version."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from bench import __version__
from bench.errors import install
from bench.needs import NEEDED, PACKAGES
from tests.conftest import ROOT, Cli

# What `python -m bench doctor` imports, as folders of site-packages: torch and numpy are not among them.
FEW = ("annotated_doc", "annotated_types", "click", "filelock", "markdown_it", "mdurl", "psutil", "pydantic",
       "pydantic_core", "pygments", "rich", "shellingham", "typer", "typing_inspection", "yaml")  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment without any package."""
    folder = tmp_path_factory.mktemp("bare") / "an environment"
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that holds FEW alone."""
    site, folder = Path(sysconfig.get_path("purelib")), tmp_path / "few"
    folder.mkdir()
    found = [p for name in FEW for p in site.glob(f"{name}*") if re.fullmatch(rf"{name}(-[\d.]+\.dist-info)?", p.name)]
    found += [*site.glob("[Pp]y[Yy][Aa][Mm][Ll]-*"), *site.glob("typing_extensions*"), *site.glob("_yaml")]
    for path in found:
        (folder / path.name).symlink_to(path)
    return folder


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    words, given = [str(word) for word in command], {"PATH": os.environ["PATH"], **env}
    return subprocess.run(words, cwd=ROOT, env=given, capture_output=True, text=True, timeout=120)


def test_doctor_without_any_package_says_what_is_missing_and_what_mends_it(bare: Path) -> None:
    for done in (run(bare, "bench/needs.py"), run(bare, "-m", "bench", "doctor"), run(bare, "-I", "bench/needs.py")):
        assert done.returncode == 1 and not done.stderr, done.stderr
        assert set(re.search(r"^missing: (torch.*)$", done.stdout, re.M)[1].split(", ")) == set(NEEDED)  # type: ignore[index]
        assert f"to mend it: '{bare}' -m {PACKAGES}\n" in done.stdout
    assert install("dev") == PACKAGES


def test_doctor_by_a_python_that_is_no_environment_advises_make_setup() -> None:
    outside = Path(sys.base_prefix) / "bin" / "python3"
    done = run(outside, "-I", "-S", "bench/needs.py")
    assert done.returncode == 1 and "to mend it: make setup\n" in done.stdout and "missing: torch" in done.stdout


def test_any_other_command_without_packages_is_refused_in_a_line(bare: Path) -> None:
    done = run(bare, "-m", "bench", "run", "smoke")
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(
        r"error: the Python module \w+ is not installed\. .* installs it; make doctor .*\n", done.stderr
    )


def test_doctor_without_torch_is_the_whole_report(bare: Path, few: Path) -> None:
    done = run(bare, "bench/needs.py", PYTHONPATH=str(few))
    assert done.returncode == 1, done.stderr
    assert re.search(r"^missing +torch +not installed +pip install -c constraints.txt", done.stdout, re.M)
    assert "GPU" in done.stdout and re.search(r"^missing: torch, transformers, numpy", done.stdout, re.M)


def checkout(folder: Path) -> Path:
    """A copy of what make doctor needs, without .venv."""
    shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def stub(folder: Path, python: Path, name: str = "python3") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{python}" -B "$@"\n')
    path.chmod(0o755)
    return path


def make(folder: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("make")
    assert tool
    env = {"PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run([tool, "doctor", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_make_doctor_installs_nothing(bare: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    before = sorted(p.relative_to(folder) for p in folder.rglob("*"))
    stub(tmp_path / "bin", bare)
    done = make(folder, path=tmp_path / "bin")
    assert done.returncode == 2 and "missing: torch" in done.stdout and "to mend it: " in done.stdout
    assert sorted(p.relative_to(folder) for p in folder.rglob("*")) == before


def test_make_doctor_takes_the_python_of_venv_or_the_one_it_is_given(bare: Path, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    for name in ("python3", "mine"):
        stub(tmp_path / "bin", bare, name)
    stub(folder / ".venv" / "bin", Path(sys.executable), "python")
    done = make(folder, path=tmp_path / "bin")
    assert done.returncode == 0 and "make bench can run here" in done.stdout, done.stdout + done.stderr
    assert "missing: torch" in make(folder, "PYTHON=mine", path=tmp_path / "bin").stdout


def test_make_doctor_without_a_python_that_is_new_enough(tmp_path: Path) -> None:
    old = tmp_path / "bin" / "old"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(checkout(tmp_path / "checkout"), "PYTHON=old", path=tmp_path / "bin")
    assert done.returncode == 2 and "missing: Python 3.11 or newer; none of these is: old" in done.stdout


def test_the_version_names_this_checkout_and_what_it_would_run_with(cli: Cli, bare: Path, few: Path) -> None:
    done = cli("--version")
    assert done.returncode == 0 and not done.stderr
    told = rf"lorabench {re.escape(__version__)}( \(commit [0-9a-f]{{10}}(, dirty)?\))?, Python [\d.]+, torch \d\S*, "
    assert re.match(told, done.stdout) and done.stdout.count("\n") == 1
    without = run(bare, "-m", "bench", "--version", PYTHONPATH=str(few))
    assert without.returncode == 0 and without.stdout.endswith(", no torch, no triton\n"), without.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_the_version_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(sorted({'torch', 'triton', 'numpy'} & set(sys.modules))))\n"
        "from bench.cli import main; main(['--version'])"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
