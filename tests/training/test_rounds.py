"""Click rounds: what the network sees, guard clicks, and what is learned from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

from mmms_deploy.bundle.contract import ClickChannel, ClickContract, PreviousMask, ResizeRule
from mmms_deploy.imaging.resize import resize
from mmms_deploy.training.clicks import ClickMaps, draw_disk
from mmms_deploy.training.losses import growth, normalized_focal_loss, soft_iou_loss
from mmms_deploy.training.rounds import RoundRules, Targets, _fed_back, click_rounds, interaction_of
from tests.support.trainable import narrow_network

RULES = RoundRules(first_gamma=0.0, gamma=2.0, first_iou_weight=0.5, iou_weight=0.5, bfloat16=False)


def square(side: int = 64) -> np.ndarray:
    target = np.zeros((1, side, side), bool)
    target[:, 20:44, 16:40] = True
    return target


def test_guard_clicks_touch_neither_the_target_nor_the_mask() -> None:
    target, mask = square(), square()
    mask[:, 20:50, 16:46] = True
    for seed in range(40):
        maps = ClickMaps(target, np.random.default_rng(seed))
        assert maps.guard(mask, 1.0).all()
        assert not maps.maps[:, 0].any()
        assert maps.maps[:, 1].any()
        assert not (maps.maps[:, 1].astype(bool) & (target | mask)).any()


def test_guard_clicks_need_a_mask_and_room_and_leave_void_alone() -> None:
    target = square()
    rng = np.random.default_rng(0)
    assert not ClickMaps(target, rng).guard(target & False, 1.0).any()
    assert not ClickMaps(target, rng).guard(target, 0.0).any()
    assert not ClickMaps(target, rng).guard(np.ones_like(target), 1.0).any()
    void = ~target
    void[:, :, 50:] = False
    for seed in range(20):
        maps = ClickMaps(target, np.random.default_rng(seed), void=void, radius=3)
        assert maps.guard(target, 1.0).all()
        assert not (maps.maps[:, 1].astype(bool) & void).any()


def test_a_guarded_target_gets_no_other_click() -> None:
    maps = ClickMaps(np.concatenate([square(), square()]), np.random.default_rng(1))
    wrong = np.ones((2, 64, 64), bool)
    maps.correct(wrong, np.array([True, False]))
    assert not maps.maps[0].any()
    assert maps.maps[1, 1].any()


def test_void_is_no_error() -> None:
    target = square()
    maps = ClickMaps(target, np.random.default_rng(0), void=~target)
    everything = np.ones_like(target)
    maps.correct(everything)
    assert not maps.maps.any()
    assert maps.iou(everything) == 1


def test_the_disks_have_the_networks_radius() -> None:
    channel = np.zeros((40, 40), np.float32)
    draw_disk(channel, 20, 20, 2.0)
    assert channel.sum() == 13
    maps = ClickMaps(square(), np.random.default_rng(0), radius=2.0)
    maps.guard(square(), 1.0)
    assert maps.maps[0, 1].sum() == 13


def test_void_counts_in_no_loss() -> None:
    logits = torch.randn(2, 1, 8, 8)
    truth = (torch.arange(8) % 2).repeat(2, 1, 8, 1).float()
    valid = torch.ones_like(truth)
    valid[..., :3] = 0
    changed = logits.clone()
    changed[..., :3] += 5
    for loss in (normalized_focal_loss, soft_iou_loss):
        torch.testing.assert_close(loss(logits, truth, valid=valid), loss(changed, truth, valid=valid))
        assert not torch.allclose(loss(logits, truth), loss(changed, truth))


def test_growth_is_what_a_mask_gains_as_a_share_of_itself() -> None:
    before = torch.zeros(1, 1, 10, 10)
    before[..., :5] = 1.0
    logits = torch.full((1, 1, 10, 10), -40.0)
    logits[..., :6] = 40.0
    assert growth(logits, before).item() == pytest.approx(10 / 51)
    logits[..., 3:] = -40.0
    assert growth(logits, before).item() == pytest.approx(0.0)


def test_the_interaction_has_the_descriptions_order_and_form() -> None:
    maps = np.zeros((1, 2, 4, 4), np.float32)
    maps[0, 0], maps[0, 1] = 2, 3
    previous = torch.full((1, 1, 4, 4), 0.6)
    order = (ClickChannel.PREVIOUS, ClickChannel.NEGATIVE, ClickChannel.POSITIVE)
    probability = interaction_of(maps, previous, ClickContract(channels=order, previous=PreviousMask.PROBABILITY))
    assert [round(float(channel.mean()), 3) for channel in probability[0]] == [0.6, 3, 2]
    mask = interaction_of(maps, previous, ClickContract(previous=PreviousMask.MASK, threshold=0.5))
    assert [float(channel.mean()) for channel in mask[0]] == [2, 3, 1]


def test_the_previous_mask_passes_through_the_pictures_size_where_the_description_says_so() -> None:
    rule = ResizeRule(antialias=True)
    contract = ClickContract(previous_resize=rule)
    answered = torch.rand(2, 1, 16, 16)
    fed = _fed_back(answered, [(40, 30), (12, 50)], contract)
    for one, plane, size in zip(fed, answered, [(40, 30), (12, 50)], strict=True):
        expected = resize(resize(plane[0].numpy(), size, contract.mask_resize), (16, 16), rule)
        np.testing.assert_allclose(one[0].numpy(), expected, atol=1e-5)
    assert _fed_back(answered, (), ClickContract()) is answered


class Swelling(torch.nn.Module):
    """Answers with the square, and a mask that grows everywhere by ``swell`` for every pixel of a negative disk."""

    def __init__(self) -> None:
        super().__init__()
        self.config = narrow_network().config
        self.swell = torch.nn.Parameter(torch.tensor(0.001))

    def respond(self, features: tuple[torch.Tensor, ...], interaction: torch.Tensor) -> torch.Tensor:
        base = torch.from_numpy(square()[:, None]).float() * 8 - 4
        return base + features[0] + self.swell * interaction[:, 1:2].sum()


def test_a_guarded_round_punishes_growth() -> None:
    gradients = {}
    for weight in (0.0, 1.0):
        network = Swelling()
        rules = RoundRules(0.0, 2.0, 0.5, 0.5, guard_share=1.0, guard_weight=weight, bfloat16=False)
        maps = ClickMaps(square(), np.random.default_rng(0))
        maps.first()
        targets = Targets(torch.zeros(1, dtype=torch.long), torch.from_numpy(square()[:, None]), torch.ones(1))
        leaves = (torch.zeros(1, 1, 64, 64, requires_grad=True),)
        click_rounds(network, leaves, maps, targets, rules, 3, 1.0)
        assert maps.maps[0, 1].sum() > 100  # two guard clicks
        gradients[weight] = float(network.swell.grad)
    assert gradients[1.0] > gradients[0.0] + 0.1  # growth costs, so that the parameter is pushed down


def test_every_round_adds_to_the_features_gradient() -> None:
    network = narrow_network()
    features = network.features(torch.rand(1, 3, 64, 64))
    truth = torch.from_numpy(square()[:, None])
    sums = []
    for weight in (1.0, 0.0):
        leaves = tuple(feature.detach().requires_grad_() for feature in features)
        maps = ClickMaps(square(), np.random.default_rng(0))
        maps.first()
        click_rounds(
            network,
            leaves,
            maps,
            Targets(torch.zeros(1, dtype=torch.long), truth, torch.full((1,), weight)),
            RULES,
            1,
            1.0,
        )
        sums.append(float(leaves[0].grad.abs().sum()))
    assert sums[0] > 0
    assert sums[1] == 0  # the first click of a target without weight teaches nothing
