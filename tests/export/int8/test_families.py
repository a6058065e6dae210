"""Graphs in 8 bits of every family: a bundle that passed the gate, or a refusal that names the layer at fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmms_deploy.bundle import Precision
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import GateError
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.source import Source
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from mmms_deploy.replay import verify
from tests.support.disnet import centred_disnet, tiny_disnet
from tests.support.dynamite import random_dynamite
from tests.support.icmformer import tiny_icmformer
from tests.support.interformer import tiny_interformer
from tests.support.ritm import tiny_mfp, tiny_simpleclick
from tests.support.skipclick import tiny_skipclick
from tests.support.tiny import DEPTH, tiny_config

pytestmark = pytest.mark.slow

NAMED = r"alone, layer \S+ of stage \w+ costs 0\.\d+ of the masks' IoU|the worst at stage \w+, image \w+"
"""What a refusal says: the layer that costs most, or where a session's mask differs."""
NETWORKS: dict[str, Callable[[], Any]] = {
    "mmms": lambda: random_network(tiny_config(DEPTH), 0),
    "skipclick": lambda: random_network(tiny_skipclick(), 0),
    "simpleclick": lambda: random_network(tiny_simpleclick(), 0),
    "mfp": lambda: random_network(tiny_mfp(), 0),
    "icmformer": lambda: random_network(tiny_icmformer("vit"), 0),
    "icmformer-swin": lambda: random_network(tiny_icmformer("swin"), 0),
    "interformer": lambda: random_network(tiny_interformer(), 0),
    "dynamite": lambda: random_dynamite("mit"),
    "disnet": lambda: centred_disnet(tiny_disnet()),
}
"""Narrow networks with random weights, whose masks are harder to keep than those of trained ones."""


@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_in_8_bits(family: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", NETWORKS[family]())
    source = Source(checkpoint=tmp_path / "net.safetensors")
    try:
        bundle = export_bundle(source, tmp_path / "out", precisions=[Precision.INT8]).bundle
    except GateError as error:
        assert re.search(NAMED, error.given)  # noqa: PT017 - a refusal is one of two right answers
        assert not (tmp_path / "out").exists()
        print(f"{family}: refused: {error.given}")
        return
    made = bundle.manifest.provenance.quantisation
    assert made
    assert made.layers
    for engine in ("openvino", "onnxruntime"):
        report = verify(bundle, EngineRequest(engine=engine, precision=Precision.INT8, strict=True))
        assert not report.failures
    left = sum(map(len, made.float_layers.values()))
    print(f"{family}: {left} of {made.layers} layers in float32, share in 8 bits {made.share}")
