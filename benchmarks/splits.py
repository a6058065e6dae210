"""What the split of full-size networks gains, counted without exporting them: on PyTorch's meta device, in seconds.

    python benchmarks/splits.py                                prints the table
    python benchmarks/export_table.py --no-export              counts again, and puts it into results/export.md

Counts the rewritten networks with PyTorch's own counter, a multiply-add as 2. An export counts its graphs, and both
agree (tests/bench/test_export_table.py). Sizes whose export needs much memory are counted here alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SWIN_B: dict[str, Any] = {"family": "icmformer", "size": [384, 384], "swin": {}}
SWIN_S: dict[str, Any] = {
    "family": "icmformer",
    "size": [224, 224],
    "swin": {"width": 96, "heads": [3, 6, 12, 24]},
    "head_width": 192,
}
VIT_L: dict[str, Any] = {"vit": {"dim": 1024, "depth": 24, "heads": 16}, "neck_widths": [192, 384, 768, 1536]}
_VIT_H: dict[str, Any] = {
    "vit": {"patch": [14, 14], "dim": 1280, "depth": 32, "heads": 16},
    "neck_widths": [240, 480, 960, 1920],
}
INTERFORMER_TINY: dict[str, Any] = {"dim": 1024, "depth": 24, "heads": 16, "refine_depths": [1, 1, 4, 2]}


def _on(backbone: str) -> dict[str, Any]:
    return {"backbone": {"name": backbone}}


def _of(family: str, *fields: dict[str, Any]) -> dict[str, Any]:
    description: dict[str, Any] = {"family": family}
    for part in fields:
        description |= part
    return description


NETWORKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("MMMS, DINOv2-B14 reg", {}),
    ("MMMS, MAE-B16", _on("mae_b16")),
    ("MMMS, SAM-B16", _on("sam_b16")),
    ("MMMS, I-JEPA-H16", _on("ijepa_h16")),
    ("MMMS, SAM 2 Hiera-T", _on("sam2_hiera_t")),
    ("SkipClick, DINOv2-B14 reg", _of("skipclick")),
    ("SimpleClick ViT-B", _of("simpleclick")),
    ("SimpleClick ViT-L", _of("simpleclick", VIT_L)),
    ("SimpleClick ViT-H", _of("simpleclick", _VIT_H)),
    ("iCMFormer ViT-B", _of("icmformer")),
    ("iCMFormer ViT-L", _of("icmformer", VIT_L)),
    ("iCMFormer ViT-H", _of("icmformer", _VIT_H)),
    ("iCMFormer Swin-B, 384 x 384", SWIN_B),
    ("iCMFormer Swin-S, 224 x 224", SWIN_S),
    ("MFP ViT-B (the first click twice)", _of("mfp")),
    ("MFP HRNet-18 (the first click twice)", _of("mfp", {"hrnet": {}})),
    ("InterFormer-Light, 512 x 512", _of("interformer")),
    ("InterFormer-Tiny, 512 x 512", _of("interformer", INTERFORMER_TINY)),
    ("DynaMITe Swin-T, 16 clicks", _of("dynamite")),
    ("DISNet ViT-B, reconstructed, 16 clicks", _of("disnet")),
)
"""Name for people, and the fields of the description that differ from the full-size MMMS."""


@dataclass(frozen=True)
class Counted:
    """What was counted of a network.

    Attributes:
        name: For people.
        parameters: In millions.
        image: 10^9 operations once an image.
        click: 10^9 operations a click.
        boundary: MB of features, in float32, that stay resident.
        first: 10^9 operations of the first click, where it has a stage of its own; ``click`` is a later one then.
    """

    name: str
    parameters: float
    image: float
    click: float
    boundary: float
    first: float | None = None

    @property
    def gain(self) -> float:
        """How many times the operations of a click the whole network has."""
        return (self.image + (self.first or 0.0) + self.click) / self.click


def count(name: str, overrides: dict[str, Any]) -> Counted:
    """Count a network; no weight is made.

    Args:
        name: What to call it.
        overrides: The fields of its description.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mmms_deploy.export.labelled import recurrent_network
    from mmms_deploy.export.proposing import ProposingNetwork
    from mmms_deploy.export.rewrites.deploy import deploy_form
    from mmms_deploy.models.checkpoint import parse_description
    from mmms_deploy.models.families import build_network

    config = parse_description(overrides, name)
    with torch.no_grad(), torch.device("meta"):
        network = build_network(config).eval().requires_grad_(False)
        recurrent = recurrent_network(deploy_form(network)[0]).eval()
        inputs = recurrent.example_inputs()
        with FlopCounterMode(display=False) as whole:
            outputs = recurrent(*inputs)
        with FlopCounterMode(display=False) as image:
            modalities = {m.name: torch.empty(1, m.channels, *config.size) for m in config.modalities}
            recurrent.network.features(inputs[0], modalities)
        before, first = image.get_total_flops(), None
        read = outputs[: len(recurrent.network.feature_names)]
        if isinstance(recurrent, ProposingNetwork):
            read = recurrent.read(outputs[1:-1])
            with FlopCounterMode(display=False) as later:
                recurrent.answered(read, dict(zip(recurrent.input_names(), inputs, strict=True)))
            first = (whole.get_total_flops() - before - later.get_total_flops()) / 1e9
    kept = sum(tensor.numel() for tensor in read)
    return Counted(
        name=name,
        parameters=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        image=before / 1e9,
        click=(whole.get_total_flops() - before) / 1e9 - (first or 0.0),
        boundary=4 * kept / 1e6,
        first=first,
    )


def count_all() -> list[Counted]:
    """Count all networks of the families that are known."""
    from mmms_deploy.models.families import FAMILIES

    return [count(name, fields) for name, fields in NETWORKS if fields.get("family", "mmms") in FAMILIES]


def table(counted: Sequence[Counted]) -> list[str]:
    """Return the counts as lines of Markdown."""
    lines = [
        "| network | parameters, M | GFLOP an image | GFLOP a click | gain of the split | features, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in counted:
        numbers = (
            f"{one.parameters:,.1f}",
            f"{one.image:,.1f}",
            f"{one.click:,.1f}" + ("" if one.first is None else f" (the first {one.first:,.1f})"),
            f"{one.gain:.2f}x",
            f"{one.boundary:,.1f}",
        )
        lines.append(f"| {one.name} | {' | '.join(numbers)} |")
    return lines


def main() -> int:
    """Print the table."""
    print("\n".join(table(count_all())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
