"""The largest activations of the backbone, block by block, on the gate's pictures; every export records them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmms_deploy.bundle import BlockPeak
from mmms_deploy.models import InteractiveNetwork

_FLOAT32_LARGEST = torch.finfo(torch.float32).max
_BEFORE_SCALE = {"ls1": ("attn.proj", "attn.proj_drop"), "ls2": ("mlp.fc2", "mlp.drop2")}
"""Layers that only LayerScale follows. When it is folded into them, the graph does not hold their result."""


class Peaks:
    """Records the largest absolute values, block by block, while the network runs.

    Args:
        network: The network in the paper's form.
        rewrites: Names of the rewrites that were applied.
    """

    def __init__(self, network: InteractiveNetwork, rewrites: Collection[str]) -> None:
        blocks = network.watched()
        self._outputs = [0.0] * len(blocks)
        self._inside: list[tuple[float, str]] = [(0.0, "")] * len(blocks)
        self._blocks: list[nn.Module] = blocks
        self._folded = "fold_layer_scale" in rewrites

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the blocks for as long as the context lasts."""
        handles = []
        for number, block in enumerate(self._blocks):
            handles.append(block.register_forward_hook(partial(self._see_output, number)))
            for name, layer in block.named_modules():
                if not any(True for _ in layer.children()) and name not in self._unseen(block):
                    handles.append(layer.register_forward_hook(partial(self._see_layer, number, name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _unseen(self, block: nn.Module) -> set[str]:
        scaled = [s for s in _BEFORE_SCALE if not isinstance(getattr(block, s, nn.Identity()), nn.Identity)]
        return {name for scale in scaled for name in _BEFORE_SCALE[scale]} if self._folded else set()

    def _see_output(self, number: int, block: nn.Module, inputs: Any, output: Tensor) -> None:
        self._outputs[number] = max(self._outputs[number], _peak(output))

    def _see_layer(self, number: int, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self._inside[number] = max(self._inside[number], (_peak(output), name))

    def found(self) -> tuple[BlockPeak, ...]:
        """Return the largest values so far."""
        return tuple(
            BlockPeak(block=number, output=output, inside=inside, layer=layer)
            for number, (output, (inside, layer)) in enumerate(zip(self._outputs, self._inside, strict=True), start=1)
        )


def _peak(x: Tensor) -> float:
    # JSON has no infinity.
    return min(float(x.detach().abs().max()), _FLOAT32_LARGEST)
