"""Write a demo checkpoint: ``python -m training.publish --weights RUN/weights.safetensors --out FILE``.

Weights are stored as float16, half the size, and widened to float32 when they are read; the description of the network
is in the file.
"""

from __future__ import annotations

from pathlib import Path

import click as cli
import torch
from rich.console import Console

from mmms_deploy.models.checkpoint import save_checkpoint
from training.predictor import load_network

LIMIT = 12_000_000
"""Bytes of the largest checkpoint that the package may ship."""


def publish(weights: Path, out: Path) -> int:
    """Write a run's weights as float16.

    Args:
        weights: ``weights.safetensors`` of a run.
        out: The file to write.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: A weight is too large for float16, or the file would be larger than ``LIMIT``.
    """
    model = load_network(weights)
    largest = max(float(v.abs().max()) for v in model.state_dict().values() if v.is_floating_point())
    if largest > torch.finfo(torch.float16).max:
        raise ValueError(f"a weight of {largest:.3g} is too large for float16")
    stored = 2 * sum(value.numel() for value in model.state_dict().values())
    if stored > LIMIT:
        raise ValueError(f"the weights take {stored} bytes as float16; the limit is {LIMIT}")
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, model, dtype=torch.float16)
    return out.stat().st_size


@cli.command()
@cli.option(
    "--weights", type=cli.Path(exists=True, path_type=Path), required=True, help="weights.safetensors of a run."
)
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="File to write.")
def main(weights: Path, out: Path) -> None:
    """Write a demo checkpoint."""
    size = publish(weights, out)
    Console().print(f"{out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
