"""Weights outside the parameters are refused by `stack` and `inspect`, by name, with what to do instead."""

from __future__ import annotations

import warnings

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from modhook import fit_masks
from modhook.cli.inspect import inspect_command
from modhook.errors import StackError
from modhook.stacked import inspect, prepare, shared, stack

D = 4
OUTSIDE = nn.Parameter(torch.ones(D, D))


class Holder:
    """An object that is no module."""

    def __init__(self, weight):
        self.weight = weight


class Hidden(nn.Module):
    """Keeps a weight, or a layer, where nn.Module does not look."""

    def __init__(self, kept, use=True):
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.kept, self.use = kept, use

    def forward(self, x):
        y = self.linear(x)
        if not self.use:
            return y
        kept = self.kept
        while not isinstance(kept, (torch.Tensor, nn.Module)):
            kept = (
                kept.weight
                if isinstance(kept, Holder)
                else next(iter(kept.values() if isinstance(kept, dict) else kept))
            )
        return kept(y) if isinstance(kept, nn.Module) else y @ kept


class Listed(Hidden):
    """The usual mistake: a list of layers made in `__init__`."""

    def __init__(self):
        super().__init__([nn.Linear(D, D)])


class Global(nn.Module):
    """Uses a weight of its file."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)

    def forward(self, x):
        return self.linear(x) @ OUTSIDE


class Leaf(Global):
    """Makes a tensor that requires a gradient, as checkpointing needs it."""

    def forward(self, x):
        return self.linear((x + 0).detach().requires_grad_())


def weight():
    """Return a parameter."""
    return nn.Parameter(torch.randn(D, D))


@pytest.mark.parametrize(
    "route", [inspect, lambda model, x: stack(model, example=((x,), {}))], ids=["inspect", "stack"]
)
@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (lambda: [weight()], r"submodule '0' uses a weight from 'kept\[0\]'.*nn.ParameterList"),
        (lambda: {"a": [weight().requires_grad_(False)]}, r"kept\['a'\]\[0\].*nn.ParameterList"),
        (lambda: Holder(weight()), r"'kept.weight'.*nn.ParameterList"),
        (lambda: (nn.Linear(D, D),), r"the weights of the Linear in 'kept\[0\].weight'.*nn.ModuleList"),
        (lambda: torch.randn(D, D).requires_grad_(), r"'kept', where PyTorch does not register it"),
    ],
)
def test_weights_that_are_no_parameters(kept, message, route):
    """A list, a dict, an object, a list of layers, a tensor that is trained: the message says where and what to do."""
    with pytest.raises(StackError, match=message):
        route(nn.Sequential(Hidden(kept())), torch.randn(2, D))


def test_what_is_kept_and_not_used_is_no_matter():
    """A model may hold another network, such as its teacher, as long as its outputs do not depend on it."""
    assert stack(Hidden([nn.Linear(D, D)], use=False), example=((torch.randn(2, D),), {})).route == "vmap"


def test_parameters_of_a_file():
    """`stack` and `inspect` refuse a parameter that the model does not even hold; a loss may use other networks."""
    with pytest.raises(StackError, match=r"parameter of shape \(4, 4\) that none of its modules holds"):
        inspect(Global(), torch.randn(2, D))
    assert stack(Leaf(), example=((torch.randn(2, D),), {})).route in ("vmap", "loop")
    teacher, model = nn.Linear(D, D), nn.Linear(D, D)
    x = torch.randn(2, 3, D)
    assert prepare(model, lambda net, x: (net(x) - teacher(x)).square().mean(), (x,), ["weight"], 2).route == "vmap"


def test_the_command_refuses_too():
    """`modhook inspect` says the same."""
    result = CliRunner().invoke(
        inspect_command, [f"{__name__.rsplit('.', 1)[-1]}:Listed", "--input", "float[2,4]"], standalone_mode=False
    )
    assert isinstance(result.exception, StackError)
    assert "nn.ModuleList" in str(result.exception)


@pytest.mark.parametrize("route", [inspect, lambda model, x: stack(model)], ids=["inspect", "stack"])
def test_quantised_models(route):
    """A quantised layer is refused by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves its quantisation to another package
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.ReLU(), nn.Linear(D, D)), {nn.Linear})
    with pytest.raises(
        StackError, match=r"submodule '1' is quantised \(Linear\): give the network before quantisation"
    ):
        route(model, torch.randn(2, D))


def test_lazy_models_are_refused_by_inspect():
    """A lazy layer is refused by name."""
    with pytest.raises(StackError, match=r"'0.weight' is not initialised yet .* run the model once"):
        inspect(nn.Sequential(nn.LazyLinear(3)), torch.randn(2, D))


class Pair(nn.Module):
    """Calls its first layer; what else happens, a hook says."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        return self.first(x)


def _closure(net):
    net.first.register_forward_hook(lambda module, inputs, output: output + net.second(inputs[0]))


def _before(net):
    net.first.register_forward_pre_hook(lambda module, inputs: (inputs[0] + net.second(inputs[0]),))


def _default(net):
    net.first.register_forward_hook(lambda module, inputs, output, net=net.second.weight: output + inputs[0] @ net)


def _detached(net):
    net.first.register_forward_hook(lambda module, inputs, output: output + net.second(inputs[0]).detach())


def _replaced(net):
    forward = net.first.forward
    net.first.forward = lambda x: forward(x) + net.second(x)


@pytest.mark.parametrize(
    ("install", "what"),
    [
        (_closure, "forward hook"),
        (_before, "forward pre-hook"),
        (_default, "forward hook"),
        (_detached, "forward hook"),
        (_replaced, "function in attribute 'forward'"),
    ],
)
def test_a_function_that_holds_another_module_is_named(install, what):
    """Which function of which submodule, in which line, through which variable: in stacks, reports and fits."""
    net, x = Pair(), torch.randn(4, D)
    install(net)
    line = install.__code__.co_firstlineno
    part = "a part of the network" if install is _detached else "'second.weight'"
    message = rf"the {what} of submodule 'first' \('<lambda>' in .*test_outside\.py, line {line + 1 + (install is _replaced)}\) "
    message += rf"uses a variable from outside it, 'net', and in it {part}, which stays the network's own"
    with pytest.raises(StackError, match=message):
        stack(net, ((x,), {}), samples=2)
    with pytest.raises(StackError, match=message):
        inspect(net, x)
    with pytest.raises(StackError, match=message):
        fit_masks(net, [x], lambda net, x: net(x).square().mean(), samples=2, steps=1, progress=False)


def test_a_hook_of_another_network():
    """A hook that brings weights of its own is named where the whole network is stacked; a fit takes them as they are."""
    net, other, x = Pair(), nn.Linear(D, D), torch.randn(4, D)
    net.first.register_forward_hook(lambda module, inputs, output: output + other(inputs[0]))
    with pytest.raises(StackError, match=r"outside it, 'other', and in it a parameter of shape \(4, 4\) that no module"):
        stack(net, ((x,), {}), samples=2)
    fit = fit_masks(net, [x], lambda net, x: net(x).square().mean(), sampler="gumbel", samples=2, steps=1, progress=False)
    assert fit.steps == 1


def test_what_a_hook_gets_may_be_used():
    """A hook that reaches a module through its argument, or as an object that is copied with the network, runs exactly."""

    class Adds(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def hook(self, module, inputs, output):
            return output + self.layer(inputs[0])

    torch.manual_seed(0)
    net, x = Pair().double(), torch.randn(4, D).double()
    net.adds = Adds(net.second)
    net.first.register_forward_hook(net.adds.hook)
    sets = {n: torch.stack([p.detach(), 2 * p.detach()]) for n, p in net.named_parameters()}
    w, v = sets["first.weight"], sets["second.weight"]
    plain = x @ w.mT + sets["first.bias"][:, None] + x @ v.mT + sets["second.bias"][:, None]
    torch.testing.assert_close(stack(net, samples=2)(sets, shared(x)), plain)
