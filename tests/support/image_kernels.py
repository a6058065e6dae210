"""The kernels that prepare images, on the CUDA stand-in or a real GPU, without an engine or a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import numpy as np
import pytest

from mmms_deploy.bundle.contract import ImageSpec, ModalitySpec
from mmms_deploy.engines.cuda.images import plan as plans
from mmms_deploy.engines.cuda.images.plan import Plan, plan_for
from mmms_deploy.engines.cuda.images.preparation import ImagePreparation, image_kernels
from mmms_deploy.engines.cuda.kernels.module import KernelModules
from mmms_deploy.engines.cuda.memory import Account, Use
from mmms_deploy.engines.cuda.runtime import Cuda
from tests.standins.cuda import CudaStandIn


class ImageGpu:
    """A GPU that prepares images.

    Args:
        cuda: The GPU; None for a new stand-in.
    """

    def __init__(self, cuda: Cuda | None = None) -> None:
        self.standin = CudaStandIn()
        self.cuda = Cuda(self.standin, driver=self.standin.driver_calls) if cuda is None else cuda
        self.cuda.activate()
        self.account = Account(self.cuda)
        self.stream = self.cuda.create_stream()
        self.modules = KernelModules(self.cuda)
        self.cleanup = ExitStack()
        self.preparation = ImagePreparation(
            self.cuda, image_kernels(self.modules), self.account, self.stream, nullcontext(), self.cleanup
        )

    @staticmethod
    def planned(
        array: np.ndarray, rule: ImageSpec | ModalitySpec, result: tuple[int, int], mirrored: bool = False
    ) -> Plan:
        """Return the plan of an image that the kernels can prepare."""
        plan = plan_for(array, rule, result, mirrored=mirrored)
        assert plan is not None
        return plan

    def prepared(self, array: np.ndarray, plan: Plan) -> np.ndarray:
        """Return what the kernels make of an image, (1, C, H, W) float32."""
        out = np.empty((1, plan.channels, *plan.result), dtype=np.float32)
        address = self.account.allocate(Use.INPUTS, out.nbytes)
        self.preparation.prepare(array, plan, address)
        self.cuda.download(out.ctypes.data, address, out.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        self.account.free(Use.INPUTS, address, out.nbytes)
        return out

    def close(self) -> None:
        """Free everything."""
        self.cleanup.close()
        self.modules.close()
        self.cuda.destroy_stream(self.stream)


@contextmanager
def bands_of(nbytes: int) -> Iterator[None]:
    """Let images go up in bands of so many bytes; plans are kept, and those of other tests have larger ones."""
    plans._plan.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "BAND", nbytes)
        yield
    plans._plan.cache_clear()
