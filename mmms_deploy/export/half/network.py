"""A network in half precision, made of the float32 network's modules. No tool converts the exported graph.

All weights but the wide norms' are half, and so are all activations but these, which are float32:

- norms, which sum hundreds of squares: GroupNorm, BatchNorm, RMSNorm, and in BF16 LayerNorm. In FP16 a LayerNorm is one
  operator between half tensors that sums in float32 (``stash_type`` 1 of ONNX's LayerNormalization);
- images, modalities and given backbone maps as they come in, and the image's normalisation: pixels are 0..255, where
  neighbours in float16 are up to 0.125 apart, and in bfloat16 1;
- click coordinates and squared distances, and every number that is compared with a threshold;
- the sigmoid.

docs/precision.md has the costs and gains.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmms_deploy.bundle import Precision
from mmms_deploy.bundle.contract import ImageSpec
from mmms_deploy.export.cut import Cut
from mmms_deploy.export.labelled import recurrent_network
from mmms_deploy.export.network import OPSET, RecurrentNetwork
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.disnet import DISNet
from mmms_deploy.models.disnet_proposals import Proposals

Module = TypeVar("Module", bound=nn.Module)

DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
)
OPSETS: Mapping[Precision, int] = MappingProxyType({Precision.FP16: OPSET, Precision.BF16: 22})
"""For these networks, opset 22 is 21 with bfloat16 convolutions; attention stays decomposed in both."""
STATE = torch.float16
"""Maps, previous mask and probability, in FP16 and BF16: from 0 to 1, float16 has eight times as many steps."""
_NORMS = (nn.GroupNorm, nn.RMSNorm, _NormBase)
WIDE_NORMS: Mapping[torch.dtype, tuple[type[nn.Module], ...]] = MappingProxyType(
    {torch.float16: _NORMS, torch.bfloat16: (nn.LayerNorm, *_NORMS)}
)
"""The norms that are float32 between casts, by the type of the network.

ONNX Runtime's CUDA provider runs each cast as a kernel of its own, and its LayerNormalization of float16 needs none.
TensorRT, the only engine for BF16, puts casts into the norm's kernel, so that there the weights stay exact for nothing.
It computes a norm in the type of its input, and adds its casts itself to an FP16 graph
(:mod:`mmms_deploy.engines.tensorrt.norms`).
"""


class WideNorm(nn.Module):
    """A norm in float32 between half tensors.

    Args:
        norm: The norm, with float32 weights.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that the norm takes, half -> the same shape and type."""
        wide: Tensor = self.norm(x.float())
        return wide.to(x.dtype)


class HalfNetwork(InteractiveNetwork):
    """A network that computes in half precision, with the inputs and outputs of the float32 one.

    Images, modalities and a provider's maps come in as float32, features stay half, logits leave as float32.

    Args:
        network: The rewritten network, in evaluation mode; it is left as it is, and shares the wide norms' weights.
        paper: The network in the paper's form. Where a rewrite put the image's normalisation into the first layer, it
            is taken out again and done in float32. Otherwise the layer's weights would be divided by 57 and meet pixels
            of 128 on average, and rounding errors would be most of the layer's result.
        precision: FP16 or BF16.
    """

    def __init__(self, network: InteractiveNetwork, paper: InteractiveNetwork, precision: Precision) -> None:
        nn.Module.__init__(self)
        self.dtype = DTYPES[precision]
        self.network = half_of(network, self.dtype)
        self.config, self.feature_names = network.config, network.feature_names
        self.fuser = None
        # Not registered a second time, so that every weight has one name.
        object.__setattr__(self, "backbone", self.network.backbone)
        if network.config.image != paper.config.image:
            embed: Any = self.network.image_layer()
            embed.proj = half_of(_patch_convolution(paper), self.dtype)
            factor, shift = _normalisation(paper.config.image)
            self.register_buffer("factor", factor)
            self.register_buffer("shift", shift)

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 as the bundle says -> F^(1..4), four maps (B, d, H/P, W/P), half."""
        if hasattr(self, "factor"):
            rgb = rgb * self.get_buffer("factor") + self.get_buffer("shift")
        return self.network.encode(rgb.to(self.dtype))

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Maps, half or float32, and modalities, float32 -> features, half."""
        images = {name: image.to(self.dtype) for name, image in modalities.items()}
        return self.network.mix(tuple(x.to(self.dtype) for x in maps), images, present)

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Features, half, and interaction tensor or labels (B, C, H, W) -> logits (B, 1, H, W) float32."""
        return self.network.respond(features, interaction.to(self.dtype)).float()

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Features, half, and a list of clicks (B, Q, C), float32 -> logits of every row (B, n, h, w) float32."""
        return self.network.coarse_logits(features, interaction).float()


class HalfProposals(HalfNetwork):
    """A network with proposals that computes in half precision; see :class:`HalfNetwork`.

    Clicks, the chosen proposal's mask and what is computed of both alone are float32.

    Args:
        network: As for :class:`HalfNetwork`.
        paper: As for :class:`HalfNetwork`.
        precision: FP16 or BF16.
    """

    network: DISNet

    def propose(self, patches: Tensor, click: Tensor) -> Proposals:
        """Patches, half, and a first click (1, 4) float32 -> the proposals, half."""
        return self.network.propose(patches, click)

    def answer(self, token: Tensor, features: Tensor, mask: Tensor, clicks: Tensor) -> Tensor:
        """Token and F, half, mask and clicks, float32 -> logits (1, 1, h, w), half."""
        return self.network.answer(token, features, mask, clicks)


def half_network(
    network: InteractiveNetwork, paper: InteractiveNetwork, precision: Precision, cuts: Collection[Cut]
) -> RecurrentNetwork:
    """Return the recurrent network to export in a reduced precision; see :class:`HalfNetwork`.

    Args:
        network: The rewritten network.
        paper: The network in the paper's form.
        precision: FP16 or BF16.
        cuts: Where it is cut, beside the cut where clicks come in.
    """
    answers = network.config.clicks.answers
    proposes = answers is not None and answers.proposals
    half = (HalfProposals if proposes else HalfNetwork)(network, paper, precision)
    return recurrent_network(half.eval(), cuts, STATE)


def half_of(module: Module, dtype: torch.dtype) -> Module:
    """Return a copy of a module with half weights and constants.

    Its :data:`WIDE_NORMS` stay in float32 and share their weights.

    So do the buffers that a module names in its attribute ``in_float32``, which hold coordinates.

    Args:
        module: The module; it is left as it is.
        dtype: float16 or bfloat16.
    """
    kept = WIDE_NORMS[dtype]
    norms = [part for part in module.modules() if isinstance(part, kept)]
    wide = {id(tensor) for norm in norms for tensor in (*norm.parameters(), *norm.buffers())}
    wide |= {id(part.get_buffer(name)) for part in module.modules() for name in getattr(part, "in_float32", ())}
    copies: dict[int, Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) in wide or not tensor.is_floating_point():
            copies[id(tensor)] = tensor
        else:
            narrow = tensor.detach().to(dtype)
            copies[id(tensor)] = nn.Parameter(narrow, False) if isinstance(tensor, nn.Parameter) else narrow
    converted = copy.deepcopy(module, copies)
    for name, part in list(converted.named_modules()):
        if isinstance(part, kept):
            owner, _, attribute = name.rpartition(".")
            setattr(converted.get_submodule(owner), attribute, WideNorm(part))
    return converted


def _patch_convolution(network: InteractiveNetwork) -> nn.Conv2d:
    embed: Any = network.image_layer()
    conv: nn.Conv2d = embed.proj
    return conv


def _normalisation(image: ImageSpec) -> tuple[Tensor, Tensor]:
    """Return the factor and the shift that normalise pixels as ``pixel * factor + shift``; (1, 3, 1, 1) each."""
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (image.mean, image.std))
    return (image.scale / std).float(), (-mean / std).float()
