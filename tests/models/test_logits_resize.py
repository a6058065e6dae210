"""How logits are enlarged is a field of the description, in both families and both forms."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch.nn import functional as F

from mmms_deploy.bundle.contract import ResizeRule, to_builtins
from mmms_deploy.errors import DescriptionError
from mmms_deploy.export.rewrites.deploy import deploy_form
from mmms_deploy.models.checkpoint import parse_description, random_network
from tests.support.prepared import logits, pixels
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import tiny_config

CONFIGS = {"mmms": tiny_config(), "skipclick": tiny_skipclick()}


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_both_forms_are_exact(family, corners) -> None:
    config = msgspec.structs.replace(CONFIGS[family], logits_resize=ResizeRule(align_corners=corners))
    network = random_network(config, 0)
    inputs = pixels(config)
    head = network.csnet if family == "mmms" else network.head
    coarse: list[torch.Tensor] = []
    head.register_forward_hook(lambda module, args, output: coarse.append(output))
    found = logits(network, inputs)
    expected = F.interpolate(coarse[0], size=config.size, mode="bilinear", align_corners=corners)
    assert torch.equal(found, expected)
    other = F.interpolate(coarse[0], size=config.size, mode="bilinear", align_corners=not corners)
    assert (found - other).abs().max() > 1e-3
    for skip in ((), {"matrix_resize"}):
        torch.testing.assert_close(logits(deploy_form(network, skip)[0], inputs), expected, rtol=0, atol=2e-5)


def test_the_defaults_are_the_papers_and_the_official_software_s() -> None:
    assert not tiny_config().logits_resize.align_corners
    assert tiny_skipclick().logits_resize.align_corners


def test_a_description_may_say_it() -> None:
    described = to_builtins(tiny_config()) | {"logits_resize": {"align_corners": True}}
    assert parse_description(described, "test").logits_resize == ResizeRule(align_corners=True)
    with pytest.raises(DescriptionError, match="antialias has no meaning"):
        parse_description(described | {"logits_resize": {"antialias": True}}, "test")
