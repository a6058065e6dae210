"""Networks in PyTorch as predictors, where they take all clicks as a list."""

from __future__ import annotations

import numpy as np

from mmms_deploy.evaluation.checkpoint_predictor import TorchPredictor, torch_predictor
from mmms_deploy.evaluation.predictor import JointPredictor
from mmms_deploy.evaluation.scene import Scene, Surface
from mmms_deploy.evaluation.surfaces import multi_instance
from mmms_deploy.export.joint import JointReference
from tests.support.disnet import random_disnet, tiny_disnet
from tests.support.dynamite import random_dynamite

IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)


def test_all_objects_at_once() -> None:
    network = random_dynamite("mit").eval()
    predictor, reference = torch_predictor(network), JointReference(network)
    assert isinstance(predictor, JointPredictor)
    assert predictor.most_clicks == 256
    for one in (predictor, reference):
        one.set_image(IMAGE) if one is predictor else one.set_image(IMAGE, {})
    for number, x, y in ((1, 10, 10), (2, 50, 30), (0, 30, 30)):
        labels = predictor.click_on(number, x, y)
        np.testing.assert_array_equal(labels, reference.click(x, y, number > 0, number).labels)
    predictor.reset()
    reference.reset()
    np.testing.assert_array_equal(predictor.click(20, 20, True), reference.click(20, 20, True, 1).labels == 1)
    truth = np.zeros(IMAGE.shape[:2], np.bool_)
    truth[:20, :30] = True
    scene = Scene("two", IMAGE, (Surface("a", truth), Surface("b", np.roll(truth, 35, axis=1))))
    assert multi_instance(predictor, scene, 0.99, clicks_per_object=2).clicks == 4


def test_proposals() -> None:
    predictor = torch_predictor(random_disnet(tiny_disnet()).eval())
    assert isinstance(predictor, TorchPredictor)
    predictor.set_image(IMAGE)
    for click in ((30, 20, True), (10, 40, False)):
        assert predictor.click(*click).mask.shape == (50, 70)
