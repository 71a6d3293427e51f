"""Situations in which an accelerated model does what PEFT's own does: the same output, or an error of the same class.

Each takes a model of peft_models.stack and returns what is compared: tensors, numbers and strings in lists. The kernels
run some of them themselves; most are calls that they could not serve.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.kernels.peft.odd_tensors import COMPUTED_WEIGHTS, ODD_X, first
from tests.kernels.peft.peft_models import inputs, observe

SITUATIONS: dict[str, Callable[[nn.Module], Any]] = {**ODD_X, **COMPUTED_WEIGHTS}


def situation(function: Callable[[nn.Module], Any]) -> Callable[[nn.Module], Any]:
    SITUATIONS[function.__name__] = function
    return function


def outcome(name: str, model: nn.Module) -> Any:
    """What comes of it: the result, or the class and the first line of the error, without its numbers."""
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return SITUATIONS[name](model)
        except Exception as error:
            return f"{type(error).__name__}: {re.sub(r'[0-9]+', '#', str(error).splitlines()[0])}"


def assert_agree(ours: Any, theirs: Any) -> None:
    """Tensors within a change of the order of float32 sums; all else equal."""
    if isinstance(theirs, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_agree(one, other)
    else:
        assert ours == theirs


@situation
def complex_layer(model: nn.Module) -> Any:
    return model.to(torch.complex64)(inputs().to(torch.complex64))


@situation
def all_on_meta(model: nn.Module) -> Any:
    return list(model.to("meta")(inputs().to("meta")).shape)


@situation
def fake_tensors(model: nn.Module) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return list(model(mode.from_tensor(inputs())).shape)


@situation
def inference_mode(model: nn.Module) -> Any:
    x = inputs().requires_grad_()
    with torch.inference_mode():
        y = model(x)
        return [y.clone(), y.is_inference(), model(inputs())]


@situation
def inference_tensor(model: nn.Module) -> Any:
    with torch.inference_mode():
        x = inputs()
    return model(x)


@situation
def sparse_base_weight(model: nn.Module) -> Any:
    base = first(model).base_layer
    base.weight = nn.Parameter(base.weight.detach().to_sparse(), requires_grad=False)
    return model(inputs()[0])


@situation
def casting_switched_off(model: nn.Module) -> Any:
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data if "lora_" in name else parameter.data.bfloat16()
    with disable_input_dtype_casting(model):
        return model(inputs().bfloat16())


# tracers


@situation
def jit_trace(model: nn.Module) -> Any:
    traced = torch.jit.trace(model.base_model.model.eval(), (inputs(),), check_trace=False)
    return [traced(2 * inputs()), [node.kind() for node in traced.inlined_graph.nodes()]]


@situation
def jit_script(model: nn.Module) -> Any:
    return torch.jit.script(model.base_model.model)(inputs())


@situation
def export(model: nn.Module) -> Any:
    exported = torch.export.export(model.base_model.model.eval(), (inputs(),))
    return [exported.module()(2 * inputs()), [str(node.target) for node in exported.graph.nodes]]


@situation
def strict_export(model: nn.Module) -> Any:
    exported = torch.export.export(model.base_model.model.eval(), (inputs(),), strict=True)
    return [exported.module()(2 * inputs()), [node.op for node in exported.graph.nodes]]


@situation
def symbolic_trace(model: nn.Module) -> Any:
    traced = torch.fx.symbolic_trace(model.base_model.model)
    return [traced(inputs()), [str(node.target) for node in traced.graph.nodes]]


@situation
def proxies(model: nn.Module) -> Any:
    traced = make_fx(lambda x: model(x))(inputs())
    return [traced(2 * inputs()), [str(node.target) for node in traced.graph.nodes]]


# derivatives of other kinds


@situation
def dual_tensors(model: nn.Module) -> Any:
    with forward_ad.dual_level():
        return list(forward_ad.unpack_dual(model(forward_ad.make_dual(inputs(), 2 * inputs()))))


@situation
def dual_weight(model: nn.Module) -> Any:
    a = first(model).lora_A["default"]
    with forward_ad.dual_level():
        a.weight = nn.Parameter(forward_ad.make_dual(a.weight.detach(), torch.ones_like(a.weight)))
        return list(forward_ad.unpack_dual(model(inputs())))


@situation
def functional_transforms(model: nn.Module) -> Any:
    x = torch.stack([inputs(), 2 * inputs()])
    return [
        torch.func.vmap(model)(x),
        torch.func.grad(lambda x: model(x).square().sum())(inputs()),
        torch.func.jvp(model, (inputs(),), (2 * inputs(),)),
        torch.func.jacrev(model)(inputs()[0, 0]),
        torch.func.functionalize(model)(inputs()),
    ]


def trained(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@situation
def batched_gradients(model: nn.Module) -> Any:
    x = inputs().requires_grad_()
    y = model(x)
    rows = torch.randn(3, *y.shape)
    return [
        list(torch.autograd.grad(y, [x, *trained(model)], rows, is_grads_batched=True, retain_graph=True)),
        torch.func.vmap(lambda row: torch.autograd.grad(y, x, row, retain_graph=True)[0])(rows),
        torch.autograd.functional.jacobian(model, inputs()[0, :1], vectorize=True),
        torch.autograd.functional.jacobian(model, inputs()[0, :1], vectorize=True, strategy="forward-mode"),
    ]


@situation
def second_derivatives(model: nn.Module) -> Any:
    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum(), [x, *trained(model)]))


@situation
def stacked_parameters(model: nn.Module) -> Any:
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data.mul_(0.5)
    parameters, buffers = torch.func.stack_module_state([model, twin])
    call = torch.func.functional_call
    return torch.func.vmap(lambda p, b, x: call(model, (p, b), (x,)), (0, 0, None))(parameters, buffers, inputs())


@situation
def saved_on_cpu(model: nn.Module) -> Any:
    with torch.autograd.graph.save_on_cpu():
        return list(observe(model, inputs()).values())


# who watches


@situation
def counted_flops(model: nn.Module) -> Any:
    with FlopCounterMode(display=False) as counter:
        model(inputs()).sum().backward()
    return [counter.get_total_flops(), str(sorted(counter.get_flop_counts()))]


class Dispatched(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@situation
def modes(model: nn.Module) -> Any:
    heard: list[Any] = []
    for mode in (Dispatched(), Called()):
        with mode:
            heard.append(model(inputs()))
        heard.append(mode.names)
    return heard


GLOBAL_HOOKS = {
    "forward": modules.register_module_forward_hook,
    "forward, always": lambda hook: modules.register_module_forward_hook(hook, always_call=True),
    "forward, with keywords": lambda hook: modules.register_module_forward_hook(hook, with_kwargs=True),
    "forward, before": modules.register_module_forward_pre_hook,
    "backward": modules.register_module_full_backward_hook,
    "backward, before": modules.register_module_full_backward_pre_hook,
}


def heard_by(register: Callable[..., Any]) -> Callable[[nn.Module], Any]:
    def act(model: nn.Module) -> Any:
        names: list[str] = []

        def hook(module: nn.Module, *_: Any) -> None:
            names.append(type(module).__name__)

        handle = register(hook)
        try:
            y = model(inputs().requires_grad_())
            y.sum().backward()
        finally:
            handle.remove()
        return [y, names]

    return act


SITUATIONS |= {f"hooks on all modules: {name}": heard_by(register) for name, register in GLOBAL_HOOKS.items()}


# weights of other kinds


@situation
def bias_of_a(model: nn.Module) -> Any:
    a = first(model).lora_A["default"]
    a.bias = nn.Parameter(torch.ones(a.out_features))
    return model(inputs())
