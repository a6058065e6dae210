"""All kinds of data sets, and how to open one by its kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mmms_deploy.errors import FileReadError
from mmms_deploy.evaluation.datasets import (
    coco,
    davis,
    deliver,
    drawn,
    fmb,
    folder,
    grabcut,
    hqseg,
    mcubes,
    mfnet,
    sbd,
    voc,
)
from mmms_deploy.evaluation.datasets.kind import Kind, Option
from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.errors import DatasetOptionError
from mmms_deploy.files import as_path
from mmms_deploy.spelling import did_you_mean

NAME = Option("name", "what results are filed under; the kind unless given")
"""The option that every kind has."""

_KINDS = (
    folder.KIND,
    grabcut.GRABCUT,
    grabcut.BERKELEY,
    davis.KIND,
    sbd.KIND,
    voc.KIND,
    hqseg.KIND,
    coco.KIND,
    deliver.KIND,
    mfnet.KIND,
    fmb.KIND,
    mcubes.KIND,
    drawn.KIND,
)

DATASETS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every kind of data set that can be read, by name."""


def open_dataset(kind: str, path: str | os.PathLike[str], **options: object) -> ListedDataset[Any]:
    """Open a data set: list its scenes, without reading any.

    Args:
        kind: One of :data:`DATASETS`.
        path: Its folder (or file, where the kind says so).
        options: Those of the kind, and ``name``; text as on a command line, or Python values. ``None`` is accepted
            where it is the default.

    Raises:
        DatasetOptionError: The kind or an option is unknown, or an option has a wrong value.
        DatasetLayoutError: The folder has another layout; the message shows the right one.
        DatasetFileError: A file that belongs to a scene is missing.
        DatasetLibraryError: The library that reads the set's files is not installed.
    """
    found = find_kind(kind)
    known = {option.name: option for option in (NAME, *found.options)}
    unknown = [name for name in options if name not in known]
    if unknown:
        raise DatasetOptionError(
            f"data sets of kind {kind!r} have no option {unknown[0]!r}{did_you_mean(unknown[0], known)}",
            expected="".join(f"\n  {option.name}: {option.help}" for option in known.values()),
            fix="leave it out, or correct its name",
        )
    values = {
        name: option.read(kind, options[name]) if name in options else option.default for name, option in known.items()
    }
    if values["name"] is None:
        values["name"] = kind
    try:
        place = as_path(path)
    except FileReadError as error:
        raise DatasetOptionError(
            f"the path of the data set: {error.reason}", expected="the path of a folder", fix="pass its path as text"
        ) from error
    return found.open(place, **values)


def find_kind(name: str) -> Kind:
    """Return a kind of data set by its name.

    Raises:
        DatasetOptionError: There is no such kind.
    """
    if not isinstance(name, str) or name not in DATASETS:
        meant = did_you_mean(name, DATASETS) if isinstance(name, str) else ""
        raise DatasetOptionError(
            f"there is no kind of data set {name!r}{meant}",
            expected="".join(f"\n  {kind.name}: {kind.description}" for kind in DATASETS.values()),
            fix="name one of these; 'folder' reads images and masks of any origin",
        )
    return DATASETS[name]
