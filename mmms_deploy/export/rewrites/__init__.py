"""Exact rewrites: from the network in the paper's form to one that answers the same and that engines run faster.

This file lists them, without torch; :func:`~mmms_deploy.export.rewrites.deploy.deploy_form` applies them. Each is a
small function on a :class:`~mmms_deploy.export.rewrites.deployed.Deployed`, and its docstring, or that of the module
that it inserts, says why it is exact. Only the order of float32 sums differs: about 1e-6 on logits. In reading order:

- ``deploy``: applies them
- ``deployed``: the networks that they change, one class for a family, and what all of them use
- ``head``, ``attention``, ``ffn``, ``stream``, ``fpn`` (with ``interpolation``): MMMS, part by part
- ``simple_head``: SimpleClick's neck and head, which other families have, too
- ``skipclick``: SkipClick's network and its own rewrites
- ``ritm``: the networks of SimpleClick and MFP
- ``icmformer``: iCMFormer's network, its rewrites and those of a Swin
- ``interformer``: InterFormer's network and its own rewrites
- ``disnet``: DISNet's network and its own rewrites
- ``dynamite``: DynaMITe's network and its own rewrite
- ``vit``: the backbone
- ``gate``: compares the rewritten network with the paper's form
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

EVERY = "all"
"""Stands for the names of all rewrites."""


@dataclass(frozen=True)
class Rewrite:
    """A rewrite's entry in the list.

    Attributes:
        name: Its name, that of its function.
        description: What it does, in one line.
        needs: Name of the rewrite that it builds on; left out together with it.
        families: The families of networks that it is for.
    """

    name: str
    description: str
    needs: str | None = None
    families: tuple[str, ...] = ("mmms", "skipclick", "simpleclick", "icmformer", "mfp")


_MMMS, _SKIPCLICK, _ICMFORMER, _INTERFORMER = ("mmms",), ("skipclick",), ("icmformer",), ("interformer",)
_DISNET = ("disnet",)
_VIT = ("mmms", "skipclick", "simpleclick", "icmformer", "mfp", "disnet")
"""Families with a plain ViT's blocks and patch embedding."""
_DYNAMITE = ("dynamite",)
_SEGFORMER = ("mmms", "skipclick", "simpleclick", "icmformer", "mfp", "dynamite")
"""Families with SegFormer's layers, or those of a part of them."""
_HEAD = ("skipclick", "simpleclick", "icmformer", "mfp")
"""Families with SimpleClick's neck and head."""

REWRITES = (
    Rewrite(
        "fold_head",
        "head: linear, concatenation, fuse convolution and BatchNorm as one 1x1 convolution per scale",
        families=_MMMS,
    ),
    Rewrite(
        "matrix_resize",
        "enlarge the logits by two small matrix products",
        families=("mmms", *_HEAD, *_INTERFORMER),
    ),
    Rewrite("plain_attention", "attention as two linears, MatMul, Softmax, MatMul", families=_SEGFORMER),
    Rewrite(
        "fold_attention",
        "attention's factor, biases and single-head projection in its weights",
        "plain_attention",
        _SEGFORMER,
    ),
    Rewrite("split_queries", "a single head's queries in groups, which TensorRT fuses", "plain_attention", _SEGFORMER),
    Rewrite("ffn_as_convs", "Mix-FFN's linears as 1x1 convolutions", families=_SEGFORMER),
    Rewrite("token_stream", "features, and the sums inside CSNet, as tokens", families=_MMMS),
    Rewrite("feature_biases", "the click embedding's biases added to the features, once an image", families=_MMMS),
    Rewrite("small_convolutions", "the pyramid's 3x3 convolutions at the smaller size beside their interpolation"),
    Rewrite(
        "split_skips", "SkipClick: the neck's first layers on the backbone's maps, once an image", None, _SKIPCLICK
    ),
    Rewrite("split_fusion", "SimpleClick's head: the fusing convolution before enlarging, level by level", None, _HEAD),
    Rewrite(
        "pixel_shuffle", "SimpleClick's neck: transposed convolutions as 1x1 ones, then moved", None, (*_HEAD, *_DISNET)
    ),
    Rewrite("fold_mix_attention", "SkipClick: the mixing blocks' attention factor and biases", None, _SKIPCLICK),
    Rewrite(
        "fold_cross_attention",
        "iCMFormer: the cross-modality attention's linears apart, its factor and biases in them",
        families=_ICMFORMER,
    ),
    Rewrite(
        "fold_swin_attention",
        "a Swin's attention factor and biases in its weights, relative positions as constants",
        families=("icmformer", "dynamite"),
    ),
    Rewrite(
        "fold_pixel_attention",
        "DynaMITe: the projections of the pixels' attention in its few keys and values",
        families=_DYNAMITE,
    ),
    Rewrite("keys_once", "InterFormer: the first blocks' pooled keys and values, once an image", None, _INTERFORMER),
    Rewrite("label_planes", "InterFormer: the labels embedded at a quarter of the size", None, _INTERFORMER),
    Rewrite(
        "fold_click_attention",
        "DISNet: the click attention's keys and values on the token's side, not on every place",
        families=_DISNET,
    ),
    Rewrite("gather_clicks", "DISNet: the map of pixels at clicks by gathering cells", families=_DISNET),
    Rewrite("fold_vit_attention", "the backbone's attention factor and biases in its weights", families=_VIT),
    Rewrite("fold_layer_scale", "the backbone's LayerScale in the weights before it"),
    Rewrite(
        "fold_positions",
        "the position tables of SAM 2's encoder as one constant at the network's grid",
        families=_MMMS,
    ),
    Rewrite(
        "fold_normalisation",
        "the image's mean and standard deviation in the backbone's patch embedding",
        families=_VIT,
    ),
)
"""All rewrites, in the order in which they are applied."""

NAMES = tuple(rewrite.name for rewrite in REWRITES)

BACKBONE = ("fold_vit_attention", "fold_layer_scale", "fold_positions", "fold_normalisation")
"""Those that change the backbone or its input; left out when a provider runs the backbone."""


def names_for(family: str) -> tuple[str, ...]:
    """Return the names of the rewrites for a family of networks, in order."""
    return tuple(rewrite.name for rewrite in REWRITES if family in rewrite.families)


def remaining(skip: Collection[str]) -> tuple[str, ...]:
    """Return the names of the rewrites that are left, in order.

    Args:
        skip: Names of rewrites to leave out, or ``all``.

    Raises:
        ValueError: A name is unknown.
    """
    unknown = sorted(set(skip) - {*NAMES, EVERY})
    if unknown:
        raise ValueError(f"no rewrite is named {', '.join(unknown)}; there are {', '.join(NAMES)}, and {EVERY}")
    if EVERY in skip:
        return ()
    return tuple(r.name for r in REWRITES if r.name not in skip and (r.needs is None or r.needs not in skip))
