"""The methods there are: one folder each, here or named by LORABENCH_METHODS. Importing this needs no torch."""

import ast
import os
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import bench.methods as package
from bench.case import Case
from bench.case.schema import BASELINE
from bench.case.shapes import trains_ends
from bench.errors import UserError, one_of
from bench.methods.method import Impl, Linear, Method
from bench.methods.requirements import PAGED_STAYS, options, paged

if TYPE_CHECKING:
    from torch import nn

VARIABLE = "LORABENCH_METHODS"  # folders of further methods, separated as in PATH; worker processes inherit it

_HERE = Path(__file__).parent


def folders() -> list[Path]:
    """The folders of methods from outside, as LORABENCH_METHODS names them."""
    return [Path(name).resolve() for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


@cache
def methods() -> dict[str, Method]:
    """All methods by name: full first, since ratios are taken over it.

    Raises UserError for a folder of LORABENCH_METHODS that is no method, or half of one, with what is missing.
    """
    own = sorted(p.parent for p in _HERE.glob("*/method.py"))
    own.sort(key=lambda folder: folder.name != BASELINE)
    found: dict[str, Method] = {}
    for folder in [*own, *folders()]:
        name = name_of(folder)
        if name in found:
            raise UserError(f"{VARIABLE}: {folder}: there is a method {name!r} already. Rename the folder.")
        found[name] = load(folder)
    return found


def name_of(folder: Path) -> str:
    """The method of a folder: lora-fa of lora_fa, since a package of Python has no hyphen in its name."""
    return folder.name.replace("_", "-")


def load(folder: Path) -> Method:
    """The method of a folder. Raises UserError, with the file and what is missing, where the folder holds none."""
    path, name = folder / "method.py", folder.name
    if not path.is_file():
        raise UserError(
            f"{VARIABLE}: {folder}: the folder has no method.py in it. A method is a folder with method.py,"
            " reference.py and a module for each impl."
        )
    if not name.isidentifier():
        raise UserError(
            f"{VARIABLE}: {folder}: {name!r} is no name of a package of Python. Write a hyphen as an underscore: the"
            " method of my_method is my-method."
        )
    if folder.parent != _HERE and str(folder.parent) not in package.__path__:
        package.__path__.append(str(folder.parent))
    try:
        module = import_module(f"bench.methods.{name}.method")
    except (Exception, SystemExit) as e:  # whatever a stranger's file raises, an abstract method left out among it
        raise UserError(f"{path}: the file cannot be imported ({type(e).__name__}: {e}).") from None
    if Path(str(module.__file__)).resolve() != path.resolve():
        raise UserError(
            f"{VARIABLE}: {folder}: {module.__file__} has the same name and comes first. Rename the folder."
        )
    method = getattr(module, "METHOD", None)
    if method is None:
        raise UserError(f"{path}: no METHOD in it. METHOD is the one instance of a subclass of Method.")
    if not isinstance(method, Method):
        raise UserError(f"{path}: METHOD is of type {type(method).__name__}. Give an instance of a subclass of Method.")
    for attribute in ("label", "colours", "impls"):
        if not getattr(method, attribute, None):
            raise UserError(f"{path}: METHOD has no {attribute!r}. A method needs label, colours and impls.")
    if "eager" not in method.impls:
        raise UserError(f"{path}: METHOD.impls has no 'eager'. Every method needs its textbook form in plain PyTorch.")
    impls = {}
    for key, impl in method.impls.items():
        if not isinstance(impl, Impl):
            raise UserError(f"{path}: METHOD.impls[{key!r}] is of type {type(impl).__name__}. Give an Impl.")
        impls[key] = replace(impl, module=impl.module or f"bench.methods.{name}.{key}")
        _needs(path, impls[key].module, "apply", f"impl {key!r}")
    if method.adapts:
        _needs(path, f"bench.methods.{name}.reference", "Reference", "the reference of the correctness check")
    setattr(method, "impls", impls)  # noqa: B010
    return method


def _needs(path: Path, module: str, name: str, what: str) -> None:
    """Raises UserError unless the module's source defines a name; the module itself would import torch."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"{path}: {what} is the module {module}, which is not there.")
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as e:
        raise UserError(f"{spec.origin}: {what} is no valid Python ({e}).") from None
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    imported = (a for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names)
    assigned = (t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets)
    defined |= {a.asname or a.name for a in imported} | {t.id for t in assigned if isinstance(t, ast.Name)}
    if name not in defined:
        raise UserError(f"{spec.origin}: {what} has no {name!r}.")


def method_of(case: Case) -> Method:
    """Raises UserError for a method that is not known."""
    if case.method not in methods():
        raise UserError(one_of("method", case.method, methods()))
    return methods()[case.method]


def impl_of(case: Case) -> Impl:
    """Raises UserError for an impl that the case's method does not have."""
    impls = method_of(case).impls
    if case.impl not in impls:
        raise UserError(one_of(f"impl of {case.method}", case.impl, impls))
    return impls[case.impl]


def unsupported(case: Case, device: str) -> str | None:
    """Why this case's impl cannot express it on `device` ('cpu', 'cuda:0' ...), in a sentence, or what its axes need is
    not there; None if it can."""
    stages = len(case.stages)
    if stages > 1 and case.compiles:
        return f"trainable_layers {case.trainable_layers} has {stages} stages, and each would be compiled anew"
    if stages > 1 and paged(case.optimizer):
        return f"trainable_layers {case.trainable_layers} with optimizer {case.optimizer}: {PAGED_STAYS}"
    return impl_of(case).refuses(case, device) or options(case, device)


def trainable_params(case: Case) -> int:
    """Trained values by closed form: each adapted layer's, or all of the weights under full fine-tuning; under lisa-G
    those of one stage, which train at a time."""
    method = method_of(case)
    if method.adapts:
        layers = (Linear(p.out_features, p.in_features, p.params) for p in case.target_projections)
        return case.trained_at_a_time * sum(method.trained(layer, case.rank or 0) for layer in layers)
    if case.level == "linear":
        return sum(p.params for p in case.projections)
    assert case.shape is not None
    whole = case.level == "model" and trains_ends(case.trainable_layers)
    return case.trained_at_a_time * case.shape.block_params + (case.shape.outside_params if whole else 0)


def apply(model: "nn.Module", case: Case) -> "list[tuple[str, nn.Parameter]]":
    """Makes `model` train by the case's method and impl, in place; returns what trains, by its name in the model.

    model: at level model a causal language model of transformers; at levels block and linear a module that holds the
    block as its submodule `block`, the linear layer as its submodule `layer`. Everything not returned is frozen.
    LoRA's B is zero afterwards, as in training. Raises ValueError where the case names no layer of the model.
    """
    trained: list[tuple[str, nn.Parameter]] = impl_of(case).load()(model, case)
    if case.compiles:
        from bench.methods.compiled import compile_timed

        compile_timed(model, case)
    return trained


def note(model: "nn.Module", case: Case) -> str | None:
    """What the rows of the case should say beside their numbers: graph breaks, a rounding loss, and of what a time is
    the mean. Ask after a call."""
    remark, stages = impl_of(case).remark(), len(case.stages)
    found = [f"mean over a cycle of {stages} stages"] if stages > 1 else []
    found += [] if remark is None else [remark(model, case)]
    if case.compiles:
        from bench.methods import compiled

        found.append(compiled.note())
    return "; ".join(found) or None
