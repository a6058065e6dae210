"""Real files of depth, lidar and thermal sensors through bundles of two and of three modalities, against torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.bundle.contract import ClickContract, ModalitySpec, PreviousMask
from mmms_deploy.errors import ModalityError
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.imaging.io import load_rgb
from mmms_deploy.models.checkpoint import random_network, save_checkpoint
from tests.support.real_modalities import DATA, mfnet, read, selma
from tests.support.tiny import tiny_config

pytestmark = pytest.mark.skipif(not (DATA / "selma").is_dir(), reason="the test data is not there")

DEPTH = ModalitySpec(
    name="depth",
    scale={"uint16": 0.001, "float32": 1.0},
    invalid=(0, "nan", "inf"),
    clip=(0.0, 80.0),
    fill=80.0,
    mean=(10.0,),
    std=(20.0,),
    optional=True,
)
LIDAR = ModalitySpec(name="lidar", channels=3, invalid=(0,), clip=(-80.0, 80.0), std=(20.0, 20.0, 20.0), optional=True)
THERMAL = ModalitySpec(
    name="thermal", scale={"uint8": 1 / 255, "uint16": 1 / 65535}, mean=(0.5,), std=(0.25,), optional=True
)
Pair = tuple[Bundle, TorchReference]


def pair(folder: Path, modalities: tuple[ModalitySpec, ...]) -> Pair:
    config = tiny_config(modalities=modalities, clicks=ClickContract(previous=PreviousMask.PROBABILITY))
    save_checkpoint(folder / "tiny.safetensors", random_network(config, 3))
    source = Source(checkpoint=folder / "tiny.safetensors")
    return export_bundle(source, folder / "bundle").bundle, TorchReference(open_source(source).network)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Depth, lidar and thermal: each picture has some of them."""
    return pair(tmp_path_factory.mktemp("three"), (DEPTH, LIDAR, THERMAL))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Depth and lidar, both required."""
    specs = (DEPTH, LIDAR)
    required = tuple(
        ModalitySpec(**{f: getattr(s, f) for f in s.__struct_fields__} | {"optional": False}) for s in specs
    )
    return pair(tmp_path_factory.mktemp("two"), required)


def agree(both: Pair, rgb: Any, given: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> None:
    """Check that a session and torch answer clicks alike; torch receives the same numbers as arrays."""
    bundle, reference = both
    image = load_rgb(rgb)
    reference.set_image(image, stored)
    height, width = image.shape[:2]
    with Session(bundle, engine="onnxruntime") as session:
        session.set_image(rgb, **given)
        assert session.modalities == set(given)
        for x, y, positive in ((width // 2, height // 2, True), (width // 4, height // 3, False)):
            wanted = reference.click(x, y, positive)
            got = session.click(x, y, positive)
            np.testing.assert_allclose(got.network_probability, wanted.network_probability[0, 0].numpy(), atol=2e-4)
            np.testing.assert_array_equal(got.mask[wanted.certain], wanted.mask[wanted.certain])


def test_thermal_bytes_of_mfnet(three: Pair, tmp_path: Path) -> None:
    rgb, thermal = mfnet()
    agree(three, rgb, {"thermal": thermal}, {"thermal": thermal})
    file = tmp_path / "thermal.png"  # and as a camera with 16 bits stores it
    Image.fromarray(thermal.astype(np.uint16) * 257).save(file)
    agree(three, rgb, {"thermal": file}, {"thermal": thermal})


@pytest.mark.parametrize("number", ["000000080", "000000153"])
def test_depth_in_millimetres_with_holes(three: Pair, number: str) -> None:
    """ClearGrasp: glass gives no depth, up to half of the pixels are 0."""
    folder = DATA / "rgbd-real" / "cleargrasp"
    file = folder / f"{number}-transparent-depth-mm.png"
    stored = read(file)
    assert (stored == 0).mean() > 0.1
    agree(three, folder / f"{number}-transparent-rgb-img.jpg", {"depth": file}, {"depth": stored})
    holes = np.where(stored == 0, np.nan, stored.astype(np.float32) * np.float32(0.001)).astype(np.float32)
    agree(three, folder / f"{number}-transparent-rgb-img.jpg", {"depth": holes}, {"depth": stored})


def test_depth_in_millimetres_without_holes(three: Pair) -> None:
    file = next((DATA / "rgbd-real" / "nlpr" / "Depth").glob("*.png"))
    (rgb,) = (DATA / "rgbd-real" / "nlpr" / "RGB").glob("*.jpg")
    agree(three, rgb, {"depth": file}, {"depth": read(file)})


def test_depth_of_unknown_unit_is_refused(three: Pair) -> None:
    """SSD stores 8 bits of something; a colour-mapped depth is no measurement at all."""
    with Session(three[0], engine="onnxruntime") as session:
        with pytest.raises(ModalityError, match=r"dtype uint8\n  expected: uint16, float32"):
            session.set_image(
                DATA / "rgbd-real/ssd/RGB/histrory10301.jpg", depth=DATA / "rgbd-real/ssd/depth/histrory10301.png"
            )
        with pytest.raises(ModalityError, match="4 channels"):
            session.set_image(DATA / "rgbd-real/nyuv2/image.png", depth=DATA / "rgbd-real/nyuv2/depth.png")


@pytest.mark.parametrize("view", ["FRONT", "LEFT"])
def test_depth_and_lidar_of_selma(two: Pair, three: Pair, view: str, tmp_path: Path) -> None:
    rgb, depth, lidar = selma(view)
    hit = lidar[..., 0] > 0
    assert np.median(np.abs(lidar[..., 0] - depth)[hit]) < 0.1  # the same scene, registered
    np.save(tmp_path / "lidar.npy", lidar)
    stored = {"depth": depth, "lidar": lidar}
    agree(two, rgb, {"depth": depth, "lidar": tmp_path / "lidar.npy"}, stored)
    agree(three, rgb, stored, stored)


def test_a_lidar_sweep_that_comes_later(two: Pair, three: Pair) -> None:
    rgb, depth, lidar = selma("BACK")
    with Session(three[0], engine="onnxruntime") as session:
        session.set_image(rgb, depth=depth)
        session.click(640, 500)
        session.set_modalities(lidar=lidar)
        late = session.result.network_probability
        session.set_image(rgb, depth=depth, lidar=lidar)
        np.testing.assert_array_equal(session.click(640, 500).network_probability, late)
        assert session.runs == {"image": 2, "modality": 3, "click": 3}
    with Session(two[0], engine="onnxruntime") as session, pytest.raises(ModalityError, match="--cut late"):
        session.set_image(rgb, depth=depth, lidar=LATER)
