"""Official SkipClick checkpoints: their ``config`` as a description, and the names of their weights.

Such a file is ``torch.save({"state_dict": ..., "config": ...})``. The config holds the arguments of the model's class;
one of them is a whole pickled loss module, so the pickle names classes and functions. None of them is imported
(:mod:`mmms_deploy.models.passive_pickle`).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmms_deploy.errors import DescriptionError
from mmms_deploy.models.ritm_params import describe_it

State = dict[str, Tensor]

MODEL_CLASS = "isegm.model.is_featurevit_model.FeatureVitModel"
EXTRACTOR = "feature_extractor.dinov2."
_EXTRACTOR_DINOV3 = "feature_extractor.dinov3."
_UNREAD = re.compile(r"head\.up_conv[12]\.[0-3]\.(weight|bias)")
"""Layers of the head that no published network runs: they are for ways of upsampling other than "x1"."""

_BLOCKS = (2, 5, 8, 11)
_FIXED = {
    "use_disks": True,
    "with_prev_mask": True,
    "with_aux_output": False,
    "random_split": False,
    "use_conv_stack": False,
    "cpu_dist_maps": False,
}
_REQUIRED = ("use_disks", "norm_radius", "with_prev_mask", "backbone_params", "neck_params", "use_intermediate")
_WITHOUT_EFFECT = ("trained_extractor", "backbone_weight_path", "backbone_repo_path", "use_rgb_conv", "use_leaky_relu")
"""How the network was trained and from which file, and layers that would show in the names of its weights."""


# --- names ------------------------------------------------------------------------------------------------------------


def native_names(state: State) -> State:
    """Rename a SkipClick's official weights to ours: the backbone's to ``backbone.*``, without layers that never run.

    Args:
        state: Any network's weights; other than SkipClick's are returned unchanged.
    """
    if not any(name.startswith(EXTRACTOR) for name in state):
        return state
    return {
        f"backbone.{name.removeprefix(EXTRACTOR)}" if name.startswith(EXTRACTOR) else name: tensor
        for name, tensor in state.items()
        if not _UNREAD.fullmatch(name)
    }


# --- the config -------------------------------------------------------------------------------------------------------


def is_official(config: object, names: Collection[str]) -> bool:
    """Whether the official software saved a file.

    Args:
        config: The file's entry ``config``.
        names: The names of its weights.
    """
    if any(name.startswith("feature_extractor.dinov") for name in names):
        return True
    return isinstance(config, Mapping) and config.get("class") == MODEL_CLASS


def describe_official(config: object, names: Collection[str], source: str) -> dict[str, Any]:
    """Turn an official checkpoint's config into a description of the family ``skipclick``.

    Args:
        config: The file's entry ``config``; None when it has none.
        names: The names of its weights.
        source: Where it comes from, for messages.

    Returns:
        A description for :func:`~mmms_deploy.models.checkpoint.parse_description`.

    Raises:
        DescriptionError: The config is missing, is for another class, or has values that no published network has.
    """
    if any(name.startswith(_EXTRACTOR_DINOV3) for name in names):
        raise DescriptionError(
            f"{source}: a SkipClick on DINOv3 ({_EXTRACTOR_DINOV3}*)",
            expected=f"one on DINOv2 with registers ({EXTRACTOR}*)",
            fix="DINOv3 is not supported; take one of the published DINOv2 networks",
        )
    params = _params(config, source)
    for name in params.keys() - {*_FIXED, *_REQUIRED, *_WITHOUT_EFFECT, *_OTHERS}:
        raise _unknown(source, name, params[name], "no such parameter")
    for name, value in _FIXED.items():
        if params.get(name, value) is not value:
            raise _unknown(source, name, params[name], repr(value))
    extractor = params.get("extractor_type", "dinov2")
    if not isinstance(extractor, str) or "dino" not in extractor.lower() or "v3" in extractor.lower():
        raise _unknown(source, "extractor_type", extractor, "DINOv2 with registers, ViT-B/14")
    skips = params.get("skip_connections", False)
    if not isinstance(skips, bool):
        raise _unknown(source, "skip_connections", skips, "True or False")
    backbone, neck, head = (_table(params, name, source) for name in ("backbone_params", "neck_params", "head_params"))
    mean, std = _statistics(params, source)
    return {
        "family": "skipclick",
        "levels": _levels(params["use_intermediate"], source),
        "skips": skips,
        **_of_backbone(backbone, source),
        **_of_neck_and_head(neck, head, source),
        "backbone": {"name": "dinov2_b14_reg", "blocks": [block + 1 for block in _BLOCKS]},
        "image": {"resize": {"align_corners": True}, "mean": mean, "std": std},
        "clicks": {
            "radius": _number(params, "norm_radius", source),
            "channels": ["previous", "positive", "negative"],
            "previous": "probability",
            "coordinates": "scale",
            "mask_resize": {"align_corners": True},
            "previous_resize": {"align_corners": True},
        },
    }


_OTHERS = ("extractor_type", "head_params", "skip_connections", "norm_mean_std")


def _unknown(source: str, name: str, value: object, expected: str) -> DescriptionError:
    return DescriptionError(
        f"{source}: its config says {name} = {_short(value)}",
        expected=expected,
        **describe_it("skipclick", "if you know what network this is, describe it"),
    )


def _params(config: object, source: str) -> dict[str, Any]:
    described = config if isinstance(config, Mapping) else {}
    name, params = described.get("class"), described.get("params")
    if not isinstance(name, str) or not isinstance(params, Mapping):
        found = "no config" if config is None else f"a config without class and params: {_short(config)}"
        raise DescriptionError(
            f"{source}: SkipClick's weights with {found}",
            expected=f"a config of the class {MODEL_CLASS}, as the official software saves it",
            **describe_it("skipclick"),
        )
    if name != MODEL_CLASS:
        raise DescriptionError(
            f"{source}: a checkpoint of the class {name}",
            expected=f"{MODEL_CLASS}, SkipClick's",
            fix="other networks of that software are not supported",
        )
    for key, entry in params.items():
        if not isinstance(key, str) or not isinstance(entry, Mapping) or "value" not in entry:
            raise _unknown(source, f"params[{key!r}]", entry, "a table with type, value and specified")
    if missing := [key for key in _REQUIRED if key not in params]:
        raise DescriptionError(
            f"{source}: its config has no {', '.join(missing)}, but {', '.join(sorted(params))}",
            expected=f"the parameters of {MODEL_CLASS}",
            **describe_it("skipclick"),
        )
    return {key: entry["value"] for key, entry in params.items()}


def _levels(value: object, source: str) -> list[int]:
    """Return the numbers of the maps F^(1..4) that are used.

    The official software always takes blocks 2, 5, 8 and 11, whatever the config requests, and a network of one feature
    runs on the first of them.
    """
    if isinstance(value, list | tuple) and tuple(value) == _BLOCKS:
        return [1, 2, 3, 4]
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], int):
        return [1]
    raise _unknown(source, "use_intermediate", value, f"{list(_BLOCKS)}, or a single block such as [11]")


def _of_backbone(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    fixed = {"patch_size": (14, 14), "in_chans": 3, "qkv_bias": True, "primitive_stack": True}
    known = {*fixed, "img_size", "embed_dim", "depth", "num_heads", "mlp_ratio"}
    _check("backbone_params", table, known, fixed, source)
    size = table.get("img_size")
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        raise _unknown(source, "backbone_params.img_size", size, "height and width, such as (448, 448)")
    return {
        "size": list(size),
        "mix_depth": _number(table, "depth", source, whole=True),
        "mix_heads": _number(table, "num_heads", source, whole=True),
        "mix_mlp_ratio": _number(table, "mlp_ratio", source, default=4, whole=True),
    }


def _of_neck_and_head(neck: Mapping[str, Any], head: Mapping[str, Any], source: str) -> dict[str, Any]:
    _check("neck_params", neck, {"in_dim", "out_dims", "skip_connections"}, {}, source)
    widths = neck.get("out_dims")
    if not isinstance(widths, list | tuple) or len(widths) != 4 or not all(isinstance(n, int) for n in widths):
        raise _unknown(source, "neck_params.out_dims", widths, "four widths, such as [128, 256, 512, 1024]")
    fixed = {"in_channels": widths, "in_index": (0, 1, 2, 3), "num_classes": 1, "align_corners": False} | {
        "upsample": "x1"
    }
    _check("head_params", head, {*fixed, "channels", "dropout_ratio", "loss_decode"}, fixed, source)
    return {"neck_widths": list(widths), "head_width": _number(head, "channels", source, default=256, whole=True)}


def _check(
    table_name: str, table: Mapping[str, Any], known: Collection[str], fixed: Mapping[str, Any], source: str
) -> None:
    """Check that a table has only known parameters, and fixed ones their value; unknown ones may be None or False."""
    for name, value in table.items():
        if name not in known and value is not None and value is not False:
            raise _unknown(source, f"{table_name}.{name}", value, "no such parameter")
        if name in fixed and _plain(value) != _plain(fixed[name]):
            raise _unknown(source, f"{table_name}.{name}", value, repr(fixed[name]))


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _table(params: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    value = params.get(name, {})
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _unknown(source, name, value, "a table of parameters")
    return value


def _number(
    table: Mapping[str, Any], name: str, source: str, *, default: int | None = None, whole: bool = False
) -> float:
    value = table.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0 or (whole and value != int(value)):
        raise _unknown(source, name, value, "a positive whole number" if whole else "a positive number")
    return int(value) if whole else value


def _statistics(params: Mapping[str, Any], source: str) -> tuple[list[float], list[float]]:
    value = params.get("norm_mean_std", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    try:
        mean, std = ([float(x) for x in values] for values in value)
    except (TypeError, ValueError):
        raise _unknown(source, "norm_mean_std", value, "three means and three standard deviations") from None
    return mean, std


def _short(value: object) -> str:
    """Return a value's text; of deep ones only the beginning, which a crafted file could make endless."""
    texts = reprlib.Repr()
    texts.maxstring = texts.maxother = 200
    return texts.repr(value)
