from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ClickContract, PreviousMask
from tests.support.fake_engine import FakeGpu, tidy

SIDE = 448
EXPORTING = ("onnx_ir", "onnxscript", "safetensors", "skimage", "timm", "torch")
"""What exporting needs, which a GPU host need not have."""


@pytest.fixture(params=[False, True], ids=["own-stream", "shared-stream"])
def engine(request: pytest.FixtureRequest, paint: Bundle) -> Iterator[FakeGpu]:
    """What stands for TensorRT, and what stands for ONNX Runtime."""
    with tidy(paint, shared=request.param) as engine:
        yield engine


@pytest.fixture
def graphs(paint: Bundle) -> Iterator[FakeGpu]:
    """What stands for TensorRT, where clicks are graphs of ours."""
    with tidy(paint) as engine:
        yield engine


@pytest.fixture(scope="session")
def cell448(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real exported click cell at 448 x 448, its network narrow; the previous mask is thresholded inside.

    The seed is one whose masks are neither empty nor full.
    """
    for name in EXPORTING:
        pytest.importorskip(name, reason=f"exporting a bundle needs {name}", exc_type=ImportError)
    from mmms_deploy.export.exporter import export_bundle
    from mmms_deploy.export.source import Source
    from mmms_deploy.models import BackboneConfig
    from mmms_deploy.models.checkpoint import random_network, save_checkpoint
    from tests.support.tiny import tiny_config

    folder = tmp_path_factory.mktemp("cell448")
    checkpoint = folder / "narrow.safetensors"
    patches = {"patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2}
    config = tiny_config(
        size=(SIDE, SIDE),
        clicks=ClickContract(previous=PreviousMask.MASK),
        backbone=BackboneConfig(name="timm:vit_tiny_patch16_224", overrides=patches),
    )
    save_checkpoint(checkpoint, random_network(config, 5))
    return export_bundle(Source(checkpoint=checkpoint), folder / "narrow").bundle
