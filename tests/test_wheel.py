"""The wheel: what is in it, and that it works where there is no checkout."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def test_every_folder_of_the_library_is_packaged() -> None:
    folders = {path.parent.relative_to(ROOT / "kernels") for path in (ROOT / "kernels").rglob("*.py")}
    assert set(PACKAGES) == {".".join(("lorabench", *folder.parts)) for folder in folders}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` builds it, from a copy of what goes into it: the checkout stays as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "bench", "plots", "tests"):
        (source / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "kernels", source / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "kernels" / "tuned").mkdir(exist_ok=True)
    (source / "kernels" / "tuned" / "test-9000.json").write_text("{}")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("lorabench-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment: this one's dependencies, the wheel, and no way to the checkout."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A .pth file names a folder, and .pth files inside that folder are not read: an editable install does not follow.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(found), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def run(python: Path, code: str, folder: Path, **env: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET")}
    done = subprocess.run(
        [str(python), "-c", code],
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_holds_the_library_and_asks_for_no_more_than_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(
            next(archive.read(name) for name in names if name.endswith(".dist-info/METADATA"))
        )
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lorabench"}
    inside = {name.removeprefix("lorabench/") for name in names if name.startswith("lorabench/")}
    sources = {str(path.relative_to(ROOT / "kernels")) for path in (ROOT / "kernels").rglob("*.py")}
    tuned = {f"tuned/{path.name}" for path in (ROOT / "kernels" / "tuned").glob("*.json")}
    assert inside == sources | tuned | {"py.typed", "tuned/test-9000.json"}
    assert any(name.endswith("LICENSE") for name in names)
    needs = [need for need in metadata.get_all("Requires-Dist") or [] if "extra ==" not in need]
    assert {need.split(">")[0] for need in needs} == {"torch", "triton", "safetensors", "numpy"}


WHERE = """
import importlib.util, sys
from pathlib import Path
import lorabench
assert Path(lorabench.__file__).is_relative_to(sys.prefix), lorabench.__file__
for name in ("kernels", "bench", "plots", "tests"):
    assert importlib.util.find_spec(name) is None, name
assert "torch" not in sys.modules
import torch
"""

LORA = """
from lorabench import lora_linear
torch.manual_seed(0)
x, w, a, b = (torch.randn(*shape, requires_grad=True) for shape in ((5, 48), (32, 48), (4, 48), (32, 4)))
w.requires_grad_(False)
y = lora_linear(x, w, a, b, scale=0.5)
y.square().sum().backward()
X, W, A, B = (t.detach().double().requires_grad_() for t in (x, w, a, b))
Y = X @ W.t() + 0.5 * X @ A.t() @ B.t()
Y.square().sum().backward()
for one, other in ((y, Y), (x.grad, X.grad), (a.grad, A.grad), (b.grad, B.grad)):
    torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
"""

PACA = """
import transformers
from lorabench.paca import load_paca, paca, remove_paca, save_paca
config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=101, bos_token_id=0,
                                 eos_token_id=1)
model = transformers.GPT2LMHeadModel(config).eval()
before = {name: p.detach().clone() for name, p in model.named_parameters()}
base = transformers.GPT2LMHeadModel(config).eval()
base.load_state_dict(model.state_dict())
optimizer = torch.optim.SGD([p for p in paca(model, rank=4, alpha=8).parameters() if p.requires_grad], lr=0.5)
ids = torch.arange(3, 15)[None]
losses = []
for _ in range(3):
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[2] < losses[1] < losses[0], losses
save_paca(model, "delta")
assert torch.equal(load_paca(base, "delta", trainable=False)(input_ids=ids).logits, model(input_ids=ids).logits)
remove_paca(model)
assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
"""

PEFT = """
import peft, transformers
from lorabench.peft import accelerate, restore
config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=101, bos_token_id=0,
                                 eos_token_id=1)
lora = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], init_lora_weights=False)
model = peft.get_peft_model(transformers.GPT2LMHeadModel(config), lora).eval()
ids = torch.arange(3, 15)[None]
with torch.no_grad():
    expected = model(input_ids=ids).logits
    print(accelerate(model))
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    restore(model)
    assert torch.equal(model(input_ids=ids).logits, expected)
"""


@pytest.mark.slow
def test_peft_is_accelerated_from_the_wheel(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run(python, WHERE + PEFT, tmp_path)


LAUNCHES = """
from lorabench.runtime import launch
print(sum(launch.counts.values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("use", ["lora", "paca"])
def test_the_kernels_themselves_run_from_the_wheel(use: str, python: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    code = WHERE + {"lora": LORA, "paca": PACA}[use] + LAUNCHES
    assert int(run(python, code, tmp_path)) == 0, "on the CPU the reference runs"
    assert int(run(python, code, tmp_path, TRITON_INTERPRET="1", TRITON_CACHE_DIR=str(tmp_path / "cache"))) >= 2
