"""The rewrites of SkipClick, with MMFuser and without, against the network in the paper's form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmms_deploy.export.rewrites import EVERY, NAMES, REWRITES, names_for
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.export.rewrites.simple_head import ShuffledConv
from mmms_deploy.models import SkipClickConfig
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.models.network import InteractiveNetwork
from tests.support.prepared import logits, pixels
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import DEPTH, EVENT

MINE = names_for("skipclick")
LIMIT = 1e-5
"""On logits of about +-3."""
CONFIGS = {
    "plain": tiny_skipclick(),
    "modalities": tiny_skipclick(DEPTH, EVENT),
    "one level": tiny_skipclick(levels=(1,), skips=False),
}
IDLE = {
    "plain": {"plain_attention", "fold_attention", "split_queries", "ffn_as_convs", "small_convolutions"},
    "modalities": set(),
}
IDLE["one level"] = IDLE["plain"] | {"split_skips"}
"""What finds nothing to do."""


def eventful(config: SkipClickConfig) -> InteractiveNetwork:
    """A random network whose norms, biases and scales are far from the identity, and no two alike."""
    network = random_network(config, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                low, high = (0.5, 1.5) if name.endswith(("norm1.weight", "norm2.weight", "gamma")) else (-0.3, 0.3)
                parameter.add_(low + (high - low) * torch.rand(parameter.shape, generator=generator))
    return network


def only(*names: str) -> set[str]:
    """Everything to skip so that these are left, with what they need."""
    needs = {rewrite.name: rewrite.needs for rewrite in REWRITES}
    return set(NAMES) - {*names, *(needs[name] for name in names)}


@pytest.fixture(scope="module", params=list(CONFIGS))
def case(request):
    network = eventful(CONFIGS[request.param])
    inputs = pixels(network.config, batch=2)
    expected = logits(network, inputs)
    assert expected.std() > 0.1
    return request.param, network, inputs, expected


class TestExactness:
    @pytest.mark.parametrize("name", MINE)
    def test_one_rewrite(self, case, name) -> None:
        label, network, inputs, expected = case
        deployed, applied = deploy_form(network, only(name))
        assert (name in applied) == (name not in IDLE[label])
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    def test_all_rewrites(self, case) -> None:
        label, network, inputs, expected = case
        deployed, applied = deploy_form(network)
        assert applied == tuple(name for name in MINE if name not in IDLE[label])
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    @pytest.mark.parametrize("name", MINE)
    def test_all_but_one(self, case, name) -> None:
        _, network, inputs, expected = case
        deployed, applied = deploy_form(network, {name})
        assert name not in applied
        torch.testing.assert_close(logits(deployed, inputs), expected, rtol=0, atol=LIMIT)

    def test_none(self, case) -> None:
        _, network, inputs, expected = case
        deployed, applied = deploy_form(network, {EVERY})
        assert applied == ()
        assert torch.equal(logits(deployed, inputs), expected)

    def test_the_network_is_left_as_it_was(self, case) -> None:
        _, network, inputs, expected = case
        before = copy.deepcopy(network.state_dict())
        deploy_form(network)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert torch.equal(logits(network, inputs), expected)


class TestWhatEachDoes:
    def test_no_rewrite_of_another_family_is_taken(self) -> None:
        _, applied = deploy_form(random_network(tiny_skipclick(DEPTH), 0))
        assert not {"fold_head", "token_stream", "feature_biases"} & set(applied)

    @torch.no_grad()
    def test_split_skips_moves_the_skips_out_of_the_click_part(self) -> None:
        """A click convolves nothing of them: the features are as large as the layers' results."""
        deployed, _ = deploy_form(random_network(tiny_skipclick(), 0), only("split_skips"))
        features = deployed.features(torch.rand(1, 3, 56, 84))
        # h4, h8 = max(2*8, 48/2), max(16, 48/2); w16; h32 = max(32, 2*48)
        assert [tuple(f.shape[1:]) for f in features] == [(24, 24), (24, 8, 12), (24, 8, 12), (16, 4, 6), (96, 2, 3)]
        inputs = [m.in_channels for m in deployed.neck.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert 48 not in inputs

    def test_a_transposed_convolution_that_is_no_shuffle_is_left_alone(self) -> None:
        network = random_network(tiny_skipclick(), 0)
        conv = network.neck.down_4[3]
        network.neck.down_4[3] = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, 2, padding=1)
        expected = logits(network, pixels(network.config, batch=2))
        deployed, _ = deploy_form(network)
        assert (
            sum(isinstance(m, ShuffledConv) for m in deployed.modules()) == 4
        )  # down_4 and down_8, of clicks and skips
        torch.testing.assert_close(logits(deployed, pixels(network.config, batch=2)), expected, rtol=0, atol=LIMIT)

    def test_weights_that_no_rewrite_changes_are_shared(self) -> None:
        network = random_network(tiny_skipclick(), 0)
        own = {parameter.data_ptr() for parameter in network.parameters()}
        deployed, _ = deploy_form(network, {EVERY})
        assert all(parameter.data_ptr() in own for parameter in deployed.parameters())


@pytest.mark.slow
def test_full_size() -> None:
    """As published, at 448 x 448."""
    network = eventful(SkipClickConfig())
    inputs = pixels(network.config, batch=2)
    inputs = (inputs[0][:1], {}, inputs[2][:1])
    expected = logits(network, inputs)
    for skip in ((), *(only(name) for name in MINE if name not in IDLE["plain"])):
        deployed, applied = deploy_form(network, skip)
        worst = (logits(deployed, inputs) - expected).abs().max().item()
        print(f"{'all' if not skip else applied[-1]}: {worst:.1e} on logits up to {expected.abs().max():.1f}")
        assert worst <= 1e-4
