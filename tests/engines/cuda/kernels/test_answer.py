"""What ``answer.cu`` computes, by its model."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack

import numpy as np
import pytest

from mmms_deploy.bundle import Role, TensorSpec
from mmms_deploy.bundle.contract import ResizeRule
from mmms_deploy.engines.cuda.finisher import KERNELS, MODULE, AnswerFinisher, makes_mask
from mmms_deploy.engines.cuda.kernels.module import KernelModules
from mmms_deploy.engines.cuda.memory import Account
from mmms_deploy.engines.cuda.runtime import Cuda
from mmms_deploy.engines.protocol import Finish
from mmms_deploy.imaging.resize import resize, resize_above
from tests.standins.cuda import CudaStandIn
from tests.support.near import HAIR

RULES = [
    ResizeRule(align_corners=aligned, antialias=smooth)
    for aligned, smooth in ((False, False), (True, False), (False, True))
]


def finished(stored: np.ndarray, dtype: str, finish: Finish) -> np.ndarray:
    """Return the mask of an answer (h, w) that is on the GPU, through the kernel."""
    standin = CudaStandIn()
    cuda = Cuda(standin, driver=standin.driver_calls)
    cuda.activate()
    with ExitStack() as cleanup:
        modules, stream = KernelModules(cuda), cuda.create_stream()
        cleanup.callback(cuda.destroy_stream, stream)
        cleanup.callback(modules.close)
        address = cuda.allocate(stored.nbytes)
        cleanup.callback(cuda.free, address)
        pinned = cuda.allocate_host(stored.nbytes)
        cleanup.callback(cuda.free_host, pinned)
        ctypes.memmove(pinned, np.ascontiguousarray(stored).ctypes.data, stored.nbytes)
        cuda.upload(address, pinned, stored.nbytes, stream)
        kernels = {dtype: modules.kernel(MODULE, KERNELS[dtype])}
        account = Account(cuda)
        finisher = AnswerFinisher(cuda, account, kernels, stream, lambda: cuda.synchronize(stream), cleanup)
        finisher.expect(finish, stored.shape)  # type: ignore[arg-type]
        finisher.enqueue(address, dtype)
        cuda.synchronize(stream)
        mask = finisher.mask()
    assert not standin.leaked
    return mask


def assert_near(mask: np.ndarray, numbers: np.ndarray, finish: Finish) -> None:
    expected = resize_above(numbers, finish.size, finish.rule, finish.limit)
    assert mask.shape == finish.size
    assert 0 < expected.mean() < 1
    odd = mask != expected
    assert odd.mean() < 1e-3
    assert (np.abs(resize(numbers, finish.size, finish.rule)[odd] - finish.limit) <= HAIR).all()


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "size", [(133, 247), (448, 448), (64, 96), (96, 65), (40, 33), (31, 200), (1, 1), (1, 97), (1081, 1919)], ids=str
)
def test_the_mask_is_that_of_the_cpu(rule: ResizeRule, size: tuple[int, int]) -> None:
    numbers = np.random.default_rng(0).random((64, 96), dtype=np.float32)
    finish = Finish(size, rule, 0.5)
    mask = finished(numbers, "float32", finish)
    if np.prod(size) < 100:
        np.testing.assert_array_equal(mask, resize_above(numbers, size, rule, 0.5))
    else:
        assert_near(mask, numbers, finish)


def test_half_precision_and_logits() -> None:
    logits = np.random.default_rng(1).normal(0, 4, (64, 64)).astype(np.float32)
    finish = Finish((301, 222), RULES[0], -0.4)
    half = logits.astype(np.float16)
    assert_near(finished(half, "float16", finish), half.astype(np.float32), finish)
    upper = (logits.view(np.uint32) >> 16).astype(np.uint16)
    widened = (upper.astype(np.uint32) << 16).view(np.float32)
    assert_near(finished(upper, "bfloat16", finish), widened, finish)


def test_what_a_mask_can_be_made_of() -> None:
    spec = TensorSpec(name="p", role=Role.PROBABILITY, dtype="float16", shape=(1, 1, 8, 8))
    assert makes_mask(spec)
    for other in (
        TensorSpec(name="p", role=Role.PROBABILITY, dtype="uint8", shape=(1, 1, 8, 8)),
        TensorSpec(name="p", role=Role.PROBABILITY, dtype="float16", shape=(1, 3, 8, 8)),
        TensorSpec(name="p", role=Role.CANDIDATES, dtype="float16", shape=(1, 1, 8, 8)),
        TensorSpec(name="p", role=Role.MASK, dtype="float16", shape=(1, 1, 8, 8)),
    ):
        assert not makes_mask(other)
