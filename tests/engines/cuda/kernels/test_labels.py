"""What ``labels.cu`` computes, by its model: the decision that the CPU makes tile by tile."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda import decider as deciding
from mmms_deploy.engines.cuda.decider import KERNEL, LabelDecider
from mmms_deploy.engines.cuda.kernels.module import KernelModules
from mmms_deploy.engines.cuda.memory import Account, Moved
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.imaging.decision import Enlargement, LargestMap
from tests.standins.cuda import CudaStandIn, Kind
from tests.support.near import assert_same_labels

RULES = [
    ResizeRule(align_corners=aligned, antialias=smooth)
    for aligned, smooth in ((False, False), (True, False), (False, True))
]
PLAIN = RULES[0]


def decided(planes: np.ndarray, owners: list[int], how: Enlargement) -> np.ndarray:
    """Return the owners that the kernel finds; the first run and the second one must agree."""
    standin = CudaStandIn()
    cuda = Cuda(standin, driver=standin.driver_calls)
    cuda.activate()
    moved, numbers = Moved(), np.array(owners, dtype=np.uint8)

    def wait() -> None:
        cuda.synchronize(stream)
        decider.settled()

    with ExitStack() as cleanup:
        modules, stream = KernelModules(cuda), cuda.create_stream()
        cleanup.callback(cuda.destroy_stream, stream)
        cleanup.callback(modules.close)
        decider = LabelDecider(cuda, Account(cuda), modules.kernel(KERNEL, KERNEL), stream, wait, cleanup)
        decider.expect(how, planes.shape, moved)  # type: ignore[arg-type]
        found = decider.decide(planes, numbers, how, moved)
        np.testing.assert_array_equal(decider.decide(planes, numbers, how, moved), found)
        assert not decider.busy
        assert (moved.up, moved.down) == (standin.copied[Kind.cudaMemcpyHostToDevice], 2 * found.size)
        assert standin.copied[Kind.cudaMemcpyDeviceToHost] == 2 * found.size
    assert not standin.leaked
    return found


def check(planes: np.ndarray, owners: list[int], how: Enlargement) -> np.ndarray:
    found = decided(planes, owners, how)
    assert (found.dtype, found.shape, found.flags.owndata) == (np.uint8, how.size, True)
    assert_same_labels(found.astype(np.int32), planes, np.array(owners, dtype=np.int32), how)
    return found


SIDES = st.integers(1, 24)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[int], Enlargement]:
    height, width, stride = draw(SIDES), draw(SIDES), draw(st.sampled_from([1, 2, 4, 8]))
    between = (height * stride, width * stride)
    kept = (draw(st.integers(1, between[0])), draw(st.integers(1, between[1])))
    size = (draw(st.integers(1, 130)), draw(st.integers(1, 130)))
    owners = draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 254, 255]), min_size=1, max_size=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-3, 4.0, 1e4]))
    planes = (scale * rng.normal(size=(len(owners), height, width))).astype(np.float32)
    return planes, owners, Enlargement(between, kept, size, draw(st.sampled_from(RULES)))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_the_owners_are_those_of_the_cpu(case: tuple[np.ndarray, list[int], Enlargement]) -> None:
    check(*case)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("size", [(333, 517), (40, 30), (448, 448), (1, 200), (97, 1), (1, 1)], ids=str)
def test_sizes_above_and_below_the_networks(rule: ResizeRule, size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).normal(size=(9, 28, 20)).astype(np.float32)
    check(planes, [4, 0, 2, 2, 9, 4, 0, 0, 1], Enlargement((112, 80), (100, 77), size, rule))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([0, 1, 2, 5, 255]), min_size=1, max_size=12),
    st.sampled_from([(8, 12), (16, 24), (32, 48), (64, 96)]),
)
def test_ties_go_as_on_the_cpu(seed: int, owners: list[int], size: tuple[int, int]) -> None:
    """With sizes that are powers of two of each other, weights and numbers are exact, and many of them equal."""
    planes = np.random.default_rng(seed).integers(-1, 2, (len(owners), 8, 12)).astype(np.float32)
    how = Enlargement((32, 48), (32, 48), size, PLAIN)
    expected = LargestMap(planes, np.array(owners, dtype=np.int32), how).labels()
    np.testing.assert_array_equal(decided(planes, owners, how), expected)


def test_the_order_of_ties() -> None:
    equal, how = np.ones((4, 4, 4), dtype=np.float32), Enlargement((16, 16), (16, 16), (50, 37), PLAIN)
    assert (decided(equal, [7, 0, 3, 7], how) == 3).all()
    assert (decided(equal, [0, 9, 0, 0], how) == 9).all()
    assert (decided(equal, [0, 0, 0, 0], how) == 0).all()
    assert (decided(equal[:1], [255], how) == 255).all()
    assert (decided(np.full((1, 4, 4), -3.0e38, np.float32), [6], how) == 6).all()


@pytest.mark.parametrize("limit", [1, 200, 997, 1 << 20])
def test_bands_make_no_difference(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """The last band is shorter than the others, and a band of one row is wider than the limit."""
    monkeypatch.setattr(deciding, "BAND", limit)
    planes = np.random.default_rng(3).normal(size=(5, 10, 14)).astype(np.float32)
    check(planes, [1, 2, 0, 1, 3], Enlargement((40, 56), (37, 50), (67, 83), PLAIN))


def test_memory_does_not_grow_with_the_image() -> None:
    standin = CudaStandIn()
    with ExitStack() as cleanup:
        decider = LabelDecider(Cuda(standin), Account(Cuda(standin)), None, 0, lambda: None, cleanup)
        shape = (9, 112, 112)
        rooms = [
            decider.room(Enlargement((448, 448), (448, 448), size, PLAIN), shape)
            for size in ((4000, 4000), (8000, 8000), (16000, 16000))
        ]
    assert rooms[2] - rooms[0] < 2 << 20  # the tables
    assert rooms[0] < 17 << 20
