"""Graphs of whole networks that one test of a run exports, and the tests of what follows the export read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import pytest
import torch

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.export import exporter
from mmms_deploy.export.network import RecurrentNetwork
from tests.support.shared import shared


def fingerprint(network: RecurrentNetwork) -> str:
    """A hash of all that a network's graph depends on, but for its code: description, modules, weights, borders."""
    said = (
        type(network).__name__,
        repr(network),
        to_builtins(network.network.config),
        sorted(network.cuts),
        network.state,
        network.input_names(),
        network.output_names(),
    )
    digest = hashlib.sha256(repr(said).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def traced_once(factory: pytest.TempPathFactory) -> Iterator[None]:
    """In this context an export takes the float32 graph of a network that this run has exported before.

    For tests of what an export does with the graph: torch takes most of an export's time, and gives the same graph
    again. Every rewrite must be applied, and the test must not change the code of the network.
    """
    real = exporter.export_whole

    def export_whole(network: RecurrentNetwork) -> ir.Model:
        folder = shared(
            factory,
            f"graph-{fingerprint(network)}",
            lambda made: ir.save(real(network), made / "whole.onnx"),
        )
        return ir.load(folder / "whole.onnx")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "export_whole", export_whole)
        yield
