"""The network in PyTorch that a bench compares with answers as the reference: labels, modulation, two passes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mmms_deploy.bench.eager import EagerMMMS, EagerProposals, Form, open_eager
from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle, Manifest
from mmms_deploy.bundle.contract import (
    ClickContract,
    ClickList,
    ClickMemory,
    Coordinates,
    ImageSpec,
    ModalitySpec,
    ResizeRule,
    to_builtins,
)
from mmms_deploy.export.joint import JointReference
from mmms_deploy.export.proposal_reference import reference_for
from mmms_deploy.export.reference import TorchReference
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.models.checkpoint import random_network
from mmms_deploy.models.config import NetworkConfig
from mmms_deploy.models.dynamite import DynaMITe
from tests.support.disnet import tiny_disnet
from tests.support.dynamite import tiny_dynamite
from tests.support.interformer import tiny_interformer
from tests.support.ritm import tiny_mfp, tiny_simpleclick
from tests.support.tiny import described

CONFIGS = {"labels": tiny_interformer(), "early": tiny_simpleclick(), "modulated": tiny_mfp()}


def manifest_of(bundle: Bundle, config: NetworkConfig) -> Manifest:
    """A manifest that describes a network of random weights."""
    provenance = msgspec.structs.replace(bundle.manifest.provenance, description=to_builtins(config), random_seed=3)
    return msgspec.structs.replace(bundle.manifest, provenance=provenance, image=config.image)


@pytest.mark.parametrize(("name", "whole"), [("labels", False), ("early", True), ("modulated", False)])
def test_it_answers_as_the_reference(paint: Bundle, name: str, whole: bool) -> None:
    config = CONFIGS[name]
    manifest = manifest_of(paint, config)
    (picture,) = make_pictures(manifest, 1, 4, (80, 120))
    network = random_network(config, 3)
    eager, reference = EagerMMMS(manifest, 1, whole=whole), TorchReference(network)
    for _ in range(2):  # a new image forgets clicks and answers
        eager.set_image(picture)
        reference.set_image(picture.rgb, {})
        for x, y, positive in picture.clicks:
            mask, answer = eager.click(x, y, positive), reference.click(x, y, positive)
            assert eager.probability == pytest.approx(answer.network_probability[0, 0].numpy(), abs=1e-5)
            assert np.array_equal(mask[answer.certain], answer.mask[answer.certain])


@pytest.mark.parametrize("rule", [ResizeRule(antialias=True), ResizeRule(), ResizeRule(align_corners=True)])
def test_on_a_gpu_pytorch_prepares_images_as_the_host_does(paint: Bundle, rule: ResizeRule) -> None:
    """What it calls there, on the CPU."""
    eager = EagerMMMS(manifest_of(paint, CONFIGS["early"]), 1)
    size = eager._config.size
    pixels = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    image = ImageSpec(resize=rule)
    depth = ModalitySpec(name="depth", resize=rule, mean=(20.0,), std=(5.0,))
    for array, spec in ((pixels, image), (pixels[..., :1].astype(np.float32), depth)):
        ours = eager._prepared_by_torch(array, spec).numpy()
        np.testing.assert_allclose(ours, prepare(array, spec, size), rtol=0, atol=1e-3)


def test_it_answers_for_the_object_of_a_joint_network(paint: Bundle) -> None:
    """Past the smallest list, the object starts over, as in a measured session."""
    clicks = ClickContract(
        memory=ClickMemory.CLICKS, listed=ClickList(sizes=(3,), objects=5), coordinates=Coordinates.SCALE
    )
    config = tiny_dynamite("mit", clicks=clicks)
    manifest = manifest_of(paint, config)
    (picture,) = make_pictures(manifest, 1, 4, (80, 120))
    network = random_network(config, 3)
    assert isinstance(network, DynaMITe)
    eager, reference = EagerMMMS(manifest, 1), JointReference(network)
    eager.set_image(picture)
    reference.set_image(picture.rgb, {})
    for number, (x, y, positive) in enumerate(picture.clicks):
        if number == 3:
            reference.reset()
        mask, answer = eager.click(x, y, positive), reference.click(x, y, positive, 1)
        assert np.array_equal(mask[answer.certain], (answer.labels == 1)[answer.certain])


def test_a_network_with_proposals_answers_as_the_reference(paint: Bundle) -> None:
    config = tiny_disnet(proposals={"layers": 1}, refinement={"layers": 1})
    manifest = msgspec.structs.replace(manifest_of(paint, config), clicks=config.clicks)
    (picture,) = make_pictures(manifest, 1, 3, (80, 120))
    eager, reference = open_eager(manifest, 1), reference_for(random_network(config, 3))
    assert isinstance(eager, EagerProposals)
    for form in (eager, eager.variant(Form())):
        form.set_image(picture)
        reference.set_image(picture.rgb, {})
        for x, y, positive in picture.clicks:
            mask, answer = form.click(x, y, positive), reference.click(x, y, positive)
            assert form.probability == pytest.approx(answer.network_probability[0, 0].numpy(), abs=1e-5)
            assert np.array_equal(mask[answer.certain], answer.mask[answer.certain])


def test_the_first_click_of_mfp_runs_the_network_twice(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(paint, CONFIGS["modulated"])
    (picture,) = make_pictures(manifest, 1, 3, (80, 120))
    eager, counted = EagerMMMS(manifest, 1, whole=True), []
    usual = eager._image_part
    monkeypatch.setattr(eager, "_image_part", lambda *image: counted.append(image) or usual(*image))
    eager.set_image(picture)
    assert counted == []
    for number, point in enumerate(picture.clicks, start=1):
        eager.click(*point)
        assert len(counted) == number + 1


def test_several_objects_at_once_answer_as_each_alone(paint: Bundle) -> None:
    manifest = described(paint)
    (picture,) = make_pictures(manifest, 1, 6, (50, 70))
    together, alone = EagerMMMS(manifest, 1), EagerMMMS(manifest, 1)
    together.set_image(picture)
    rounds = [picture.clicks[:3], picture.clicks[3:]]
    found = [together.click_objects(points) for points in rounds]
    assert found[0].shape == (3, 50, 70)
    for number in range(3):
        alone.set_image(picture)
        for masks, points in zip(found, rounds, strict=True):
            np.testing.assert_array_equal(masks[number], alone.click(*points[number]))
    together.set_image(picture)
    # A new image starts over.
    np.testing.assert_array_equal(together.click_objects(rounds[0]), found[0])


def test_several_objects_of_a_network_with_labels_are_not_measured(paint: Bundle) -> None:
    manifest = manifest_of(paint, CONFIGS["labels"])
    (picture,) = make_pictures(manifest, 1, 2, (80, 120))
    eager = EagerMMMS(manifest, 1)
    eager.set_image(picture)
    with pytest.raises(NotMeasuredError, match="where clicks are disks alone"):
        eager.click_objects(picture.clicks)


@pytest.mark.slow
def test_pytorch_really_compiles_the_whole_click(paint: Bundle) -> None:
    """On the CPU, where ``reduce-overhead`` captures nothing. Needs a C++ compiler and minutes."""
    torch = pytest.importorskip("torch")
    torch.compiler.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    manifest = described(paint)
    (picture,) = make_pictures(manifest, 1, 3, (50, 70))
    plain = EagerMMMS(manifest, 1)
    compiled = plain.variant(Form(compiled=True, graphs=True))
    for one in (plain, compiled):
        one.set_image(picture)
    for point in picture.clicks:
        mask, other = plain.click(*point), compiled.click(*point)
        assert compiled.probability == pytest.approx(plain.probability, abs=1e-4)
        assert (mask != other).mean() < 1e-3
    assert not counts["graph_break"]
    assert counts["stats"]["unique_graphs"] == 2, "the image part, and all of a click down to its mask"
