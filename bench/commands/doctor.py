"""python -m bench doctor: what this machine can run, what is missing, and the command that mends it.

`look` gathers facts, `judge` turns them into findings; the two are apart so that any machine can be judged in a test.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.busy import QUIET, busy_cores, sentence
from bench.devices import Device, cpu_device, gpus
from bench.errors import install
from bench.methods.registry import methods
from bench.needs import NEEDED
from bench.record.environment import ROOT, version
from bench.terminal import output, plain_table, shown

# Oldest driver for each major CUDA version (CUDA Toolkit Release Notes, table 'Minor Version Compatibility').
OLDEST_DRIVER = {13: 580, 12: 525, 11: 450}
# Package -> its extra in pyproject.toml, and what it is for.
OPTIONAL = {
    "peft": ("peft", "the impls of PEFT, and accelerate"),
    "bitsandbytes": ("quant", "qlora of PEFT, and 8-bit optimizers"),
    "torchao": ("quant", "qlora of torchao"),
    "accelerate": ("train", "bench train"),
    "datasets": ("train", "bench train on Hub data and Parquet"),
    "tensorboard": ("train", "bench train"),
    "lm-eval": ("accuracy", "bench evaluate by lm-evaluation-harness"),
    "submitit": ("cluster", "bench run --on slurm and --on local"),
}
INSTALL = install("dev")
# Names of both packages called kernels: this checkout's, and Hugging Face's by way of what transformers imports of it.
TOGETHER = "from kernels import LoRALinear, get_kernel; import transformers.integrations.hub_kernels"


@dataclass(frozen=True)
class Facts:
    """What was found on a machine."""

    python: tuple[int, int]
    system: str  # Linux, Darwin, Windows
    packages: dict[str, str | None]  # name -> version, None where absent
    torch_cuda: str | None  # the CUDA version torch was built for, None for a CPU build
    compiler: str | None  # path of a C compiler
    tools: dict[str, str | None]  # git, make -> path
    gpus: list[Device] = field(default_factory=list)
    cpu: str = ""
    busy: float = 0.0  # cores that other work keeps busy
    namesake: tuple[str, str] | None = None  # Hugging Face's package kernels: its version, and what failed with it
    operator: tuple[float, float] | None = None  # what one costs the host, forward and backward, in us; None: unknown


@dataclass(frozen=True)
class Finding:
    """One line of the report. A `missing` finding keeps something from running; a `note` does not."""

    verdict: str  # ok, note or missing
    what: str
    found: str
    mend: str = ""  # the command or step that mends it


def look() -> Facts:
    """The facts of this machine. Imports neither torch nor triton."""
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CC") or "cc", "gcc", "clang"])), None)
    return Facts(
        python=sys.version_info[:2],
        system=platform.system(),
        packages={name: version(name) for name in (*NEEDED, "triton", *OPTIONAL)},
        torch_cuda=_torch_cuda(),
        compiler=compiler,
        tools={name: shutil.which(name) for name in ("git", "make")},
        gpus=gpus(),
        cpu=cpu_device().name,
        busy=busy_cores(),
        namesake=_namesake(),
        operator=_operator(),
    )


def _operator() -> tuple[float, float] | None:
    with suppress(ImportError):  # of numpy, say, which this report is to find missing
        from bench.predict.host import remembered_host

        if host := remembered_host():
            return host.forward_us, host.backward_us
    return None


def _namesake() -> tuple[str, str] | None:
    """Hugging Face's package `kernels`, tried together with this checkout's folder of that name where it is there."""
    found = version("kernels")
    if found is None:
        return None
    done = subprocess.run([sys.executable, "-c", TOGETHER], cwd=ROOT, capture_output=True, text=True)
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return found, "" if done.returncode == 0 else said[-1]


def _torch_cuda() -> str | None:
    """The CUDA version in torch/version.py, read as text: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "version.py"
    found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", path.read_text(), re.MULTILINE) if path.exists() else None
    return found.group(1) if found else None


def judge(facts: Facts) -> list[Finding]:
    """What the facts mean for running the suite."""
    python = ".".join(map(str, facts.python))
    if facts.python >= (3, 11):
        found = [Finding("ok", "Python", python)]
    else:
        found = [Finding("missing", "Python", python, "install Python 3.11 or newer, and put it first on the PATH")]
    for name in NEEDED:
        have = facts.packages.get(name)
        found.append(Finding("ok" if have else "missing", name, have or "not installed", "" if have else INSTALL))
    found += [_triton(facts), _compiler(facts), *_optional(facts), *_beside(facts)]
    for name, path in facts.tools.items():
        without = "rows do not know their commit" if name == "git" else "type the Makefile's commands by hand"
        found.append(Finding("ok", name, path) if path else Finding("note", name, "not found", f"without it {without}"))
    quiet = facts.busy <= QUIET
    mend = "" if quiet else "what is timed beside other work varies: bench run --wait-quiet 10m waits for rest"
    found.append(Finding("ok" if quiet else "note", "machine", sentence(facts.busy), mend))
    return [*found, _host(facts), *_gpu(facts)]


def _host(facts: Facts) -> Finding:
    what = "host cost of an operator"
    if facts.operator is None:
        return Finding(
            "note", what, "not measured", "python -m bench predict measures it at its first eager prediction"
        )
    return Finding("ok", what, "forward {:.1f} us, backward {:.1f} us".format(*facts.operator))


def _triton(facts: Facts) -> Finding:
    have = facts.packages.get("triton")
    if have:
        return Finding("ok", "triton", have)
    if facts.system != "Linux":
        return Finding("note", "triton", f"none for {facts.system}", "all but impl triton works")
    return Finding("missing", "triton", "not installed", INSTALL)


def _compiler(facts: Facts) -> Finding:
    if facts.compiler:
        return Finding("ok", "C compiler", facts.compiler)
    mend = "apt-get install gcc (or your system's); Triton and torch.compile need one, everything else runs"
    return Finding("note", "C compiler", "not found", mend)


def _optional(facts: Facts) -> list[Finding]:
    found = []
    for name, (extra, use) in OPTIONAL.items():
        have = facts.packages.get(name)
        mend = "" if have else f"for {use}: {install(extra)}"
        found.append(Finding("ok" if have else "note", name, have or "not installed", mend))
    return found


def _beside(facts: Facts) -> list[Finding]:
    if facts.namesake is None:
        return []
    have, failed = facts.namesake
    if not failed:
        return [Finding("ok", "kernels", f"{have}, Hugging Face's; works beside this checkout's kernels/")]
    mend = "pip install --upgrade transformers kernels, or pip uninstall kernels: no model can be built as it is"
    return [Finding("missing", "kernels", f"{have}, Hugging Face's; transformers cannot be imported: {failed}", mend)]


def _gpu(facts: Facts) -> list[Finding]:
    if not facts.gpus:
        where = "one block of each model on the CPU; CPU times are no GPU times"
        return [Finding("note", "GPU", f"no NVIDIA GPU; CPU {facts.cpu}", f"make bench measures {where}")]
    found = [
        Finding("ok", "GPU", f"{d.name}, {d.memory_mib} MiB, driver {d.driver}: --gpu {d.key}") for d in facts.gpus
    ]
    if facts.packages.get("torch") is None:
        return found
    if facts.torch_cuda is None:
        mend = "pip install --force-reinstall torch==2.13.0 from an index with CUDA builds"
        return [*found, Finding("missing", "torch with CUDA", "a CPU build", mend)]
    driver = int((facts.gpus[0].driver or "0").split(".")[0])
    oldest = OLDEST_DRIVER.get(int(facts.torch_cuda.split(".")[0]))
    if oldest and driver < oldest:
        mend = (
            f"update the driver to {oldest} or newer, or install a torch for an older CUDA:"
            " pip install torch==2.11.0 --index-url https://download.pytorch.org/whl/cu126, then"
            " make bench PYTHON=python3"
        )
        found.append(Finding("missing", "GPU driver", f"{driver}, too old for CUDA {facts.torch_cuda}", mend))
    else:
        found.append(Finding("ok", "torch with CUDA", f"CUDA {facts.torch_cuda}"))
    return found


def report() -> int:
    """Prints the findings; 1 where something is missing that runs need, else 0."""
    methods()  # a folder of LORABENCH_METHODS that is half a method stops every command, so this one too
    findings = judge(look())
    columns = ("verdict", "what", "found", "to mend it")
    table = plain_table(columns, wrap=columns)
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for f in findings:
        table.add_row(shown(f.verdict, colours[f.verdict]), f.what, f.found, f.mend)
    console = output()
    console.print(table)
    missing = [f.what for f in findings if f.verdict == "missing"]
    console.print(f"missing: {', '.join(missing)}" if missing else "make bench can run here")
    return 1 if missing else 0
