"""FM_RGB as a pyramid: a frozen backbone whose stages have strides 4, 8, 16 and 32 already.

Backbones come from timm. SAM 2's image encoders are known by name; any other network of timm that gives maps of these
strides is used under timm's name.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any, Final

import timm
import torch
from timm.models.hieradet_sam2 import HieraDet
from torch import Tensor, nn

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.backbone import check_size, timm_release
from mmms_deploy.models.backbone_names import RELEASES, PyramidNames, Release, SAM2Names, TimmHieraNames
from mmms_deploy.models.config import BackboneConfig
from mmms_deploy.models.frozen_backbone import FrozenBackbone, Shape
from mmms_deploy.models.hiera import HieraEncoder

STRIDES: Final = (4, 8, 16, 32)
_STRIDED = ("patch_", "q_", "dim_")
"""How the names of a Hiera's arguments begin that change its strides or widths."""


class PyramidBackbone(FrozenBackbone):
    """FM_RGB, a pyramid: F^(1..4) are its maps of strides 4, 8, 16 and 32, finest first.

    They are what the last block of each stage gives, without a norm. Of SAM 2's encoders they may also be what its neck
    gives to the mask decoder.

    Args:
        config: Which network, and which of its maps.
        size: Network size (H, W) in pixels, multiples of 32.

    Attributes:
        encoder: timm's network without what follows its last map; a :class:`HieraEncoder` where it is SAM 2's.

    Raises:
        DescriptionError: timm cannot build the network, or it gives no such maps.
        SizeError: The size is no multiple of 32.
    """

    part = "encoder"
    patch = (4, 4)
    strides = STRIDES

    def __init__(self, config: BackboneConfig, size: tuple[int, int]) -> None:
        super().__init__()
        check_size(size, None)
        _check_fields(config)
        release = RELEASES.get(config.name) or timm_release(config.name)
        trunk = _build(release, config, size)
        self._indices, places = _stages(trunk.feature_info)
        modules = [str(trunk.feature_info[k]["module"]) for k in self._indices]
        channels = [int(trunk.feature_info[k]["num_chs"]) for k in self._indices]
        tops = {name.partition(".")[0] for name, _ in trunk.named_parameters()}
        # Without what follows the last map: norms, pooling, classifiers.
        trunk.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        if isinstance(trunk, HieraDet):
            neck = config.maps == "neck"
            self.names = replace(release.names, neck=neck) if isinstance(release.names, SAM2Names) else TimmHieraNames()
            self.encoder: Any = HieraEncoder(trunk, (size[0] // 4, size[1] // 4), neck=neck)
            channels = list(self.encoder.channels)
        else:
            unread = {"norm", "fc_norm", "head", "head_dist", "fc", "classifier"} | tops
            unread -= {name.partition(".")[0] for name, _ in trunk.named_parameters()}
            self.names = PyramidNames(unread=re.compile(rf"({'|'.join(map(re.escape, sorted(unread)))})(\..*)?"))
            self.encoder = trunk
        self._watched = modules
        self._shapes = tuple((c, size[0] // s, size[1] // s) for c, s in zip(channels, places, strict=True))
        # timm's Hiera gives what timm says, unless an argument changes the strides; that takes a second to find out.
        if not isinstance(trunk, HieraDet) or any(name.startswith(_STRIDED) for name in config.overrides):
            self._check_maps(config, size)

    def map_shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of F^(1..4), finest first."""
        return self._shapes

    def watched(self) -> list[nn.Module]:
        """A Hiera's blocks, or the modules of other networks that give the maps; none where timm misnames them."""
        if isinstance(self.encoder, HieraEncoder):
            return list(self.encoder.trunk.blocks)
        modules = dict(self.encoder.named_modules())
        found = [modules[name] for name in self._watched if name in modules]
        return found if len(found) == len(self._watched) else []

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> F^(1..4), (B, C_k, H / s, W / s) for the strides s = 4, 8, 16, 32."""
        if isinstance(self.encoder, HieraEncoder):
            maps: tuple[Tensor, ...] = self.encoder(rgb)
            return maps
        return tuple(
            self.encoder.forward_intermediates(
                rgb, indices=self._indices, norm=False, stop_early=True, intermediates_only=True, output_fmt="NCHW"
            )
        )

    def _check_maps(self, config: BackboneConfig, size: tuple[int, int]) -> None:
        """Run the network without numbers, and check that its maps are what timm says of them."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        training = self.training
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                found = tuple(tuple(x.shape[1:]) for x in self.eval()(torch.zeros(1, 3, *size)))
        except (TypeError, ValueError, AssertionError, RuntimeError, IndexError) as error:
            raise DescriptionError(
                f"backbone {config.name} does not run at {size[0]}x{size[1]}: {_first_line(error)}",
                expected="a network of timm that takes this size",
                fix="choose another size or backbone in the description",
                command_fix="choose another --size or --backbone",
            ) from error
        finally:
            self.train(training)
        if found != self._shapes:
            raise DescriptionError(
                f"backbone {config.name} gives maps of (channels, height, width) {', '.join(map(str, found))}",
                expected=f"maps of strides 4, 8, 16, 32: {', '.join(map(str, self._shapes))}",
                fix="choose another backbone",
            )


@functools.cache
def is_pyramid(name: str) -> bool:
    """Whether a name, of a release or ``timm:NAME``, is that of a backbone with maps of strides 4, 8, 16 and 32."""
    if name in RELEASES:
        return RELEASES[name].pyramid
    release = timm_release(name)
    try:
        with torch.device("meta"):
            model = timm.create_model(release.architecture, pretrained=False, num_classes=0)
    except (TypeError, ValueError, AssertionError, RuntimeError, NotImplementedError):
        return False
    info = getattr(model, "feature_info", None) or []
    strides = {item.get("reduction") for item in info if isinstance(item, dict)}
    usable = hasattr(model, "forward_intermediates") and hasattr(model, "prune_intermediate_layers")
    return usable and set(STRIDES) <= strides


def _check_fields(config: BackboneConfig) -> None:
    if config.blocks is not None:
        raise DescriptionError(
            f"backbone blocks {config.blocks} of {config.name}",
            expected="no blocks: a pyramid's maps are those at the ends of its stages",
            fix="leave out 'backbone.blocks' in the description",
        )
    release = RELEASES.get(config.name)
    if config.maps == "neck" and (release is None or not release.pyramid):
        raise DescriptionError(
            f"backbone maps 'neck' of {config.name}",
            expected="'stages', which all pyramids have; only SAM 2's encoders by their own names have a neck",
            fix="leave out 'backbone.maps' in the description, or name sam2_hiera_t, sam2_hiera_s, ...",
        )


def _build(release: Release, config: BackboneConfig, size: tuple[int, int]) -> Any:
    """Build timm's network; one that is made for a size is made for the network's."""
    settings: dict[str, Any] = {**release.settings, **config.overrides}
    try:
        try:
            model = timm.create_model(
                release.architecture, pretrained=False, num_classes=0, **{"img_size": size, **settings}
            )
        except TypeError as error:
            if "img_size" not in str(error) or "img_size" in settings:
                raise
            model = timm.create_model(release.architecture, pretrained=False, num_classes=0, **settings)
    except (TypeError, ValueError, AssertionError, RuntimeError, IndexError, KeyError) as error:
        raise DescriptionError(
            f"timm cannot build {release.architecture} at {size[0]}x{size[1]} with {config.overrides}:"
            f" {_first_line(error)}",
            expected="a network and arguments that timm.create_model takes",
            fix="correct 'backbone' in the description",
        ) from error
    strides = [item.get("reduction") for item in model.feature_info]
    if not set(STRIDES) <= set(strides):
        raise DescriptionError(
            f"backbone {config.name} with {config.overrides} gives maps of strides {strides}",
            expected="maps of strides 4, 8, 16 and 32",
            fix="correct 'backbone.overrides' in the description",
        )
    return model


def _stages(info: Any) -> tuple[list[int], tuple[int, ...]]:
    """Return the number of the last map of each stride, and the strides."""
    last = {item["reduction"]: number for number, item in enumerate(info)}
    return [last[stride] for stride in STRIDES], STRIDES


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
