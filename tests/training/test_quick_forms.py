"""The forms that a CPU trains faster compute what the paper's forms compute, and keep their weights."""

import copy

import pytest
import torch
from torch import nn

from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.families import build_network
from mmms_deploy.models.segformer import EfficientAttention, SegFormerHead
from mmms_deploy.training.quick_forms import QuickAttention, QuickHead, quicken
from mmms_deploy.training.recipe import Recipe
from mmms_deploy.training.run import TrainingRun, take_out_backbone
from tests.support.tiny import tiny_config


def _alike(plain: nn.Module, quick: nn.Module, *inputs: object) -> None:
    """Compare outputs and gradients of a module and of its quickened copy."""
    quicken(quick)
    results = []
    for module in (plain, quick):
        torch.manual_seed(1)
        out = module(*inputs)
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        results.append((out.detach(), {name: p.grad for name, p in module.named_parameters()}))
    (expected, gradients), (got, own) = results
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert own.keys() == gradients.keys()
    # A bias before a BatchNorm has no gradient but rounding's.
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max()) + 0.01 * largest
        torch.testing.assert_close(own[name] / scale, gradient / scale, rtol=0, atol=1e-3, msg=name)


@pytest.mark.parametrize(("heads", "reduction"), [(1, 4), (2, 2), (4, 1)])
def test_attention(heads: int, reduction: int) -> None:
    torch.manual_seed(0)
    attention = EfficientAttention(16, heads, reduction)
    tokens = torch.randn(2, 64, 16)
    quick = copy.deepcopy(attention)
    _alike(attention, quick, tokens, tokens.flip(1), 8, 8)
    assert type(quick) is QuickAttention


@pytest.mark.parametrize("training", [False, True])
def test_head(training: bool) -> None:
    torch.manual_seed(0)
    head = SegFormerHead((8, 12, 16, 20), 24).train(training)
    head.linear_fuse.bn.get_buffer("running_mean").normal_()
    maps = tuple(torch.randn(2, c, 32 // s, 48 // s) for c, s in zip((8, 12, 16, 20), (1, 2, 4, 8), strict=True))
    quick = copy.deepcopy(head)
    _alike(head, quick, maps)
    assert type(quick) is QuickHead


def test_a_run_on_a_cpu_trains_quick_forms_and_keeps_the_papers() -> None:
    network: InteractiveNetwork = build_network(tiny_config())
    take_out_backbone(network)
    names = list(network.state_dict())
    run = TrainingRun(network, Recipe(), torch.device("cpu"))
    try:
        assert {type(module) for module in run.head.modules()} >= {QuickAttention, QuickHead}
        assert not {type(module) for module in run.average.modules()} & {QuickAttention, QuickHead}
        assert list(run.average.state_dict()) == list(run.head.state_dict()) == names
    finally:
        run.close()
