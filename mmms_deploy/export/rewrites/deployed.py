"""The networks that rewrites work on: with modules of their own and, at first, the paper network's weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models import MMMS, InteractiveNetwork
from mmms_deploy.models.segformer import tokens


class LogitResize(nn.Module):
    """Bilinear interpolation to a fixed size.

    Args:
        size: Output (H, W).
        corners: Whether corners are aligned.
    """

    def __init__(self, size: tuple[int, int], *, corners: bool) -> None:
        super().__init__()
        self.size, self.corners = size, corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)."""
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=self.corners)


class Deployed(InteractiveNetwork):
    """A network in a form that engines run faster: the same interface, the same answers.

    Its features may differ from the paper's: they may already hold more of what depends on the image alone. They fit
    only its own :meth:`respond`.

    Args:
        network: The network in the paper's form. Its modules are copied and its weights are shared, so a rewrite must
            put a new weight into a module and never write into a weight.

    Attributes:
        enlarge: Brings logits (B, 1, *coarse_size) to (B, 1, H, W).
        coarse_size: Height and width of the logits before ``enlarge``.
        corners: Whether ``enlarge`` aligns corners.
    """

    enlarge: nn.Module
    coarse_size: tuple[int, int]
    corners: bool

    def __init__(self, network: InteractiveNetwork) -> None:
        nn.Module.__init__(self)
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.config = network.config
        self.corners = network.config.logits_resize.align_corners
        self.enlarge = LogitResize(network.config.size, corners=self.corners)
        self.feature_names = network.feature_names
        self.fuser = None
        for name, part in copy.deepcopy(dict(network.named_children()), shared).items():
            setattr(self, name, part)

    def enlarge_logits(self, logits: Tensor) -> Tensor:
        """Bring logits (B, 1, *coarse_size) to the network's size, (B, 1, H, W)."""
        enlarged: Tensor = self.enlarge(logits)
        return enlarged


class DeployedMMMS(Deployed, MMMS):
    """MMMS in a form that engines run faster.

    Args:
        network: The network in the paper's form.

    Attributes:
        token_features: Whether features are tokens (B, H/i * W/i, C_i) instead of maps (B, C_i, H/i, W/i).
        feature_biases: What is added to the features' maps, (C_i,) per scale; empty for nothing.
    """

    def __init__(self, network: MMMS) -> None:
        super().__init__(network)
        self.token_features = False
        self.feature_biases = nn.ParameterList()
        height, width = network.config.size
        self.coarse_size = (height // 4, width // 4)

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Everything between the backbone and the clicks; returns the features for :meth:`respond`, one per scale."""
        pyramid = super().mix(maps, modalities, present)
        if len(self.feature_biases):
            pyramid = tuple(x + b.reshape(1, -1, 1, 1) for x, b in zip(pyramid, self.feature_biases, strict=True))
        return tuple(tokens(x) for x in pyramid) if self.token_features else pyramid


def replace_modules(root: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module | None]) -> bool:
    """Replace every module of exactly one class.

    Args:
        root: Where to look.
        kind: The class; its subclasses do not count, since they may compute something else.
        make: Returns a module's replacement, or None to leave it as it is.

    Returns:
        Whether any was replaced.
    """
    changed = False
    for name, module in list(root.named_modules()):
        if type(module) is kind and (replacement := make(module)) is not None:
            owner, _, attribute = name.rpartition(".")
            setattr(root.get_submodule(owner), attribute, replacement)
            changed = True
    return changed


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer with this weight (out, in) and bias (out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return layer


def pointwise_of(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a 1x1 convolution with this weight (out, in) and bias (out,)."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(weight[:, :, None, None].contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return conv
