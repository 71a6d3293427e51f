"""Hugging Face's package `kernels` beside this checkout, whose folder of that name hides it: both work."""

import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils.import_utils import KERNELS_MIN_VERSION

from kernels.namesake import namesake
from tests.conftest import ROOT, Bench, rows_of
from tests.models.tiny import LLAMA, write_config

# What transformers imports, as Hugging Face's package gives it: from modules of its own, which ask the package back.
NAMES = (
    "CUDAProperties", "Device", "KernelizeFallback", "LayerRepository", "LocalLayerRepository", "Mode",
    "ROCMProperties", "register_kernel_mapping", "replace_kernel_forward_from_hub", "use_kernel_mapping", "get_kernel",
    "kernelize",
)  # fmt: skip
STAND_IN = {
    "__init__.py": f"""
import importlib.metadata
__version__ = importlib.metadata.version("kernels")
from kernels.layer import {", ".join(NAMES)}, use_kernel_forward_from_hub, use_kernelized_func, whole
from .status import audit
nothing = None
""",
    "status.py": "audit = 'theirs'\n",
    "layer/__init__.py": f"""
def _of(name):
    return type(name, (), {{}})
{", ".join(NAMES)} = map(_of, {NAMES!r})
def use_kernel_forward_from_hub(name):  # functions become other objects
    return lambda wrapped: wrapped if isinstance(wrapped, type) else type(name, (), {{"__call__": wrapped}})()
def use_kernelized_func(*functions):
    return lambda wrapped: wrapped
def whole():
    from kernels import get_kernel, nothing
    return get_kernel
""",
}


def installed(folder: Path, files: dict[str, str]) -> Path:
    """A package named kernels, as pip would install it into this folder, of a version that transformers takes."""
    for name, text in files.items():
        (folder / "kernels" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "kernels" / name).write_text(text)
    about = folder / f"kernels-{KERNELS_MIN_VERSION}.dist-info" / "METADATA"
    about.parent.mkdir(parents=True)
    about.write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")
    return folder


def real(folder: Path) -> Path:
    """The package that is installed here, else PyPI's newest, as if it were of a version that the transformers here
    takes."""
    try:
        found = Path(str(importlib.metadata.distribution("kernels").locate_file("kernels")))
    except importlib.metadata.PackageNotFoundError:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--target", folder / "pip", "kernels"], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"Hugging Face's package kernels cannot be installed: {done.stderr.strip()[-200:]}")
        found = folder / "pip" / "kernels"
    shutil.copytree(found, folder / "kernels")
    return installed(folder, {})


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return real(tmp_path / "site") if request.param == "real" else installed(tmp_path / "site", STAND_IN)


def answer(code: str, *before: Path, flags: tuple[str, ...] = ()) -> list[str]:
    """The lines that some code prints in a process of its own, which finds packages in `before` after the checkout."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *before)))}
    env.pop("USE_HUB_KERNELS", None)
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ASKED = """
import importlib.metadata, importlib.util, pickle, sys
import kernels
assert not sys.modules.keys() & {"torch", "kernels.layer", "kernels.hugging_face"}
print(importlib.util.find_spec("kernels").origin)
print(importlib.util.find_spec("kernels.layer").origin)
print(importlib.metadata.version("kernels") == kernels.__version__)
print(hasattr(kernels, "nonesuch"), hasattr(kernels, "__wrapped__"))
from kernels import get_kernel, Mode, layer, audit
print(get_kernel is layer.get_kernel if hasattr(layer, "get_kernel") else get_kernel.__module__ == "kernels.load")
print(audit.__file__, "LoRALinear" in dir(kernels))
print(getattr(kernels, "whole", lambda: get_kernel)() is get_kernel)
"""


def test_both_are_found_and_ours_come_first(site: Path) -> None:
    ours = ROOT / "kernels"
    told = answer(ASKED, site)
    assert told[:2] == [str(ours / "__init__.py"), str(site / "kernels" / "layer" / "__init__.py")]
    assert told[2:5] == ["True", "False False", "True"]
    assert told[5:] == [f"{ours / 'audit' / '__init__.py'} True", "True"]


def test_without_it_nothing_is_found(tmp_path: Path) -> None:
    """Nor is another checkout taken for it, nor a folder that is no package."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "kernels").symlink_to(ROOT / "kernels")
    shutil.copytree(ROOT / "kernels", tmp_path / "copy" / "kernels")
    (tmp_path / "plain" / "kernels").mkdir(parents=True)
    code = "import kernels; print(len(kernels.__path__), *(hasattr(kernels, n) for n in ('get_kernel', '__version__')))"
    before = [tmp_path / name for name in ("checkout", "copy", "plain")]
    assert answer(code, *before, flags=("-S",)) == ["1 False False"]  # -S: without what is installed here


MODELS = """
import bench
from types import FunctionType
from transformers.integrations import hub_kernels
from transformers.models.llama import modeling_llama
print(hub_kernels.is_kernels_available(), type(modeling_llama.apply_rotary_pos_emb) is FunctionType)
from kernels import CUDAProperties
print(hub_kernels.CUDAProperties is CUDAProperties)
"""


@pytest.mark.slow
def test_models_are_transformers_own(site: Path) -> None:
    """transformers takes its names from both packages in one; here it wraps none of its functions for all that."""
    assert answer(MODELS, site) == ["True True", "True"]
    assert answer(MODELS.replace("import bench\n", ""), site) == ["True False", "True"], "it would elsewhere"


SWEEP = """
description: a model
axes: {{level: model, model: {model}, batch: 1, seq: 8, precision: fp32}}
methods: [{{method: full}}]
measure: {{min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}}
"""


@pytest.mark.slow
def test_a_model_is_measured_beside_it(site: Path, bench: Bench, tmp_path: Path) -> None:
    sweep = tmp_path / "model.yaml"
    sweep.write_text(SWEEP.format(model=json.dumps(write_config(tmp_path, LLAMA))))
    bench.env["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, site)))
    done = bench("run", sweep, "--gpu", "cpu", "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert done.returncode == 0 and {row["status"] for row in rows} == {"ok"}, done.stderr


@pytest.mark.slow
def test_doctor_tries_both_together(site: Path, bench: Bench, tmp_path: Path) -> None:
    bench.env["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, site)))
    done = bench("doctor")
    assert done.returncode == 0 and f"{KERNELS_MIN_VERSION}, Hugging Face's; works" in done.stdout
    lacking = STAND_IN | {"__init__.py": STAND_IN["__init__.py"].replace("CUDAProperties, ", "")}
    bench.env["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, installed(tmp_path / "broken", lacking))))
    done = bench("doctor")
    assert done.returncode == 1 and "CUDAProperties" in done.stdout and "pip uninstall kernels" in done.stdout


def test_of_bitsandbytes_the_one_warning_that_this_folder_causes_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import kernels  # noqa: F401

    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no get_kernel")
    logger.warning("another one")
    assert caplog.messages[-1] == "another one"
    hidden = "gemm_4bit_forward" not in caplog.text
    assert hidden is (namesake() is None)
