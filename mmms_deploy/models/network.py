"""The base class of all networks: the image's encoder, everything else about the image, and the answer to a click."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from mmms_deploy.models.config import NetworkConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.models.fuser import MMFuser


class InteractiveNetwork(nn.Module):
    """A click-based segmentation network in three parts.

    :meth:`encode` is the image's encoder, in a late-fusion network the frozen backbone, a black box that a provider may
    run; :meth:`mix` computes everything else that depends on the image and its modalities alone; :meth:`respond`
    answers a click.

    Attributes:
        config: The network's description.
        backbone: What the family calls its backbone: FM_RGB of a late-fusion network, or the ViT that clicks go
            through, too.
        fuser: MMFuser; None without modalities.
        feature_names: Names of what :meth:`mix` returns, in order. Where it returns more, such as the image, those are
            inputs as they came, which :meth:`respond` reads, too.
    """

    config: NetworkConfig
    backbone: nn.Module
    fuser: MMFuser | None
    feature_names: tuple[str, ...]

    @property
    def frozen(self) -> FrozenBackbone | None:
        """FM_RGB, which sees the image alone and has a release of its own; None in a network without one."""
        return self.backbone if isinstance(self.backbone, FrozenBackbone) else None

    @property
    def patch(self) -> tuple[int, int] | None:
        """Height and width, in network pixels, of one entry of the position table; None without one."""
        return None if self.frozen is None else self.frozen.patch

    def image_layer(self) -> nn.Module | None:
        """The patch embedding whose convolution ``proj`` alone reads the image; None where there is none."""
        return None if self.frozen is None else getattr(self.frozen.model, "patch_embed", None)

    def watched(self) -> list[nn.Module]:
        """The blocks whose largest activations an export records, in the order in which they run."""
        return [] if self.frozen is None else self.frozen.watched()

    def encode(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            rgb: (B, 3, H, W) float32, normalised.

        Returns:
            What :meth:`mix` takes. In a late-fusion network F^(1..4): of a ViT four maps (B, d, H/P, W/P), of a pyramid
            maps of rising strides, finest first.
        """
        maps: tuple[Tensor, ...] = self.backbone(rgb)
        return maps

    def mix(
        self, maps: tuple[Tensor, ...], modalities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Compute the features of an image and its modalities.

        Args:
            maps: F^(1..4) from :meth:`encode`.
            modalities: Images by name, (B, C_m, H, W) float32, normalised; optional ones may be left out.
            present: By name, a bool tensor of shape (): whether a given modality counts; without an entry it does.

        Returns:
            The features for :meth:`respond`, named by :attr:`feature_names`.
        """
        raise NotImplementedError

    def respond(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click.

        Args:
            features: From :meth:`mix`.
            interaction: (B, C, H, W) float32: click disks and previous mask, in the channel order and form of
                ``config.clicks``.

        Returns:
            Logits (B, 1, H, W) float32.
        """
        return self.enlarge_logits(self.coarse_logits(features, interaction))

    def coarse_logits(self, features: tuple[Tensor, ...], interaction: Tensor) -> Tensor:
        """Answer a click on the head's grid, before the enlargement; as :meth:`respond`, but (B, 1, h, w)."""
        raise NotImplementedError

    def enlarge_logits(self, logits: Tensor) -> Tensor:
        """Bring the head's logits (B, 1, h, w) to the network's size, (B, 1, H, W), as the description says."""
        corners = self.config.logits_resize.align_corners
        return F.interpolate(logits, size=self.config.size, mode="bilinear", align_corners=corners)

    def adapt(self, state: dict[str, Tensor], grid: tuple[int, int] | None) -> dict[str, Tensor]:
        """Resample a checkpoint's weights, the backbone's left out, to this network's size.

        Args:
            state: Weights under their release names.
            grid: The checkpoint's own grid (H/P, W/P), if it describes itself.

        Returns:
            The weights to load; those that do not fit are unchanged, and the caller reports them.
        """
        return state

    def features(self, rgb: Tensor, modalities: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """Everything that does not depend on clicks: :meth:`encode` and :meth:`mix`."""
        return self.mix(self.encode(rgb), modalities or {})

    def forward(self, rgb: Tensor, interaction: Tensor, modalities: Mapping[str, Tensor] | None = None) -> Tensor:
        """Both rates in one go; logits (B, 1, H, W)."""
        return self.respond(self.features(rgb, modalities), interaction)
