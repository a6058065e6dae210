"""Descriptions: from JSON or TOML to the configuration of a family of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mmms_deploy.documents import document
from mmms_deploy.errors import DescriptionError, FileReadError
from mmms_deploy.files import as_path, read_json, read_toml
from mmms_deploy.models.config import NetworkConfig
from mmms_deploy.models.families import FAMILIES

Config = TypeVar("Config", bound=NetworkConfig)


def parse_description(raw: object, source: str) -> NetworkConfig:
    """Turn a decoded JSON or TOML description into a configuration.

    Args:
        raw: The decoded object.
        source: Where it comes from, for messages.

    Returns:
        The configuration, of its family's class.

    Raises:
        DescriptionError: A field is unknown, missing or has an impossible value.
    """
    name = raw.get("family", next(iter(FAMILIES))) if isinstance(raw, dict) else next(iter(FAMILIES))
    if name == "onnx":
        raise DescriptionError(
            f"{source} describes an encoder and a decoder in ONNX files",
            expected="the description of a network in PyTorch",
            fix="pass it to export_pair, with the two files",
            command_fix="pass it to mmms-export with --encoder FILE and --decoder FILE",
        )
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise DescriptionError(
            f"{source}: network family {name!r}",
            expected=f"one of {', '.join(FAMILIES)}",
            fix="use a version that knows this family",
        )
    return convert_description(raw, family.config, source)


def convert_description(raw: object, kind: type[Config], source: str) -> Config:
    """Turn a decoded description into a configuration of one class.

    Args:
        raw: The decoded object.
        kind: The class.
        source: Where it comes from, for messages.

    Raises:
        DescriptionError: A field is unknown, missing or has an impossible value.
    """
    try:
        return msgspec.convert(raw, kind)
    # msgspec passes Python's own exceptions on for numbers that are too large and values nested too deeply.
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DescriptionError(
            f"{source}: {error}",
            expected=f"fields {', '.join(kind.__struct_fields__)} as in {document('checkpoints')}",
            fix="correct the description",
        ) from error


def read_description(path: Path) -> dict[str, Any]:
    """Read a description from a ``.toml`` or ``.json`` file.

    Raises:
        DescriptionError: The file is missing or cannot be decoded.
    """
    try:
        place = as_path(path, "the description")
        raw = read_toml(place) if place.suffix.lower() == ".toml" else read_json(place)
    except FileReadError as error:
        raise DescriptionError(
            f"description {path!s:.200} cannot be read: {error.reason}",
            expected="a TOML (.toml) or JSON file that describes the network",
            fix=f"see {document('checkpoints')} for its fields",
        ) from error
    if not isinstance(raw, dict):
        raise DescriptionError(f"description {path} holds a {type(raw).__name__}", expected="a table of fields")
    return raw
