"""An engine that fails when a test lets it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmms_deploy import Bundle
from mmms_deploy.bundle import StageGraph
from mmms_deploy.engines.protocol import Engine, EngineInfo, Runner, Value
from mmms_deploy.errors import EngineError


class Flaky:
    """An engine whose next run of a stage can be made to fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.fail: str | None = None
        self.opened: list[Runner] = []

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @property
    def graphs(self) -> Mapping[str, StageGraph]:
        return self.engine.graphs

    def open(self) -> Runner:
        self.opened.append(self.engine.open())
        return FlakyRunner(self, self.opened[-1])

    def close(self) -> None:
        self.engine.close()


class FlakyRunner:
    def __init__(self, flaky: Flaky, runner: Runner) -> None:
        self.flaky, self.runner = flaky, runner
        self.upload, self.zeros = runner.upload, runner.zeros
        self.detach, self.synchronize, self.close = runner.detach, runner.synchronize, runner.close

    def run(self, stage: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
        if self.flaky.fail == stage:
            raise EngineError("out of memory")
        return self.runner.run(stage, inputs)

    def download(self, value: Value) -> np.ndarray:
        if self.flaky.fail == "download":
            raise EngineError("device lost")
        return self.runner.download(value)

    def download_float32(self, value: Value) -> np.ndarray:
        if self.flaky.fail == "download":
            raise EngineError("device lost")
        return self.runner.download_float32(value)
