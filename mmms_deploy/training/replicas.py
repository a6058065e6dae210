"""Replicas of a network that work at the same time on a CPU: shared weights, own gradients; and averaged weights.

Each thread takes a share of a batch through a replica of its own. That is faster than several threads inside each of a
thousand small operations, and does not suffer from a busy machine. Sums run in a fixed order, so that a step gives the
same bits every time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def replicate(network: Network, count: int) -> list[Network]:
    """Return a network and its replicas, ``count`` in all; they use the first one's weights."""
    replicas = [network] + [copy.deepcopy(network) for _ in range(count - 1)]
    for replica in replicas[1:]:
        for parameter, own in zip(replica.parameters(), network.parameters(), strict=True):
            parameter.data = own.data
    return replicas


@torch.no_grad()
def gather_gradients(replicas: Sequence[nn.Module]) -> None:
    """Sum the replicas' gradients in the first one, in a fixed order; the others have none afterwards."""
    for replica in replicas[1:]:
        for parameter, other in zip(replicas[0].parameters(), replica.parameters(), strict=True):
            if parameter.grad is None:
                parameter.grad = other.grad
            elif other.grad is not None:
                parameter.grad += other.grad
            other.grad = None


@torch.no_grad()
def average_statistics(replicas: Sequence[nn.Module]) -> None:
    """Give all replicas the mean of their batch statistics."""
    for same in zip(*(replica.buffers() for replica in replicas), strict=True):
        if same[0].dtype.is_floating_point:
            mean = torch.stack(same).mean(0)
            for buffer in same:
                buffer.copy_(mean)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move averaged weights and batch statistics towards the current ones.

    Args:
        average: The averaged network.
        network: The network that is trained.
        decay: Share of the old average that stays.
    """
    current = network.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])
