"""A data set as one word of a command line: ``KIND=PATH``, with options ``KIND=PATH:OPTION=VALUE:OPTION=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmms_deploy.evaluation.datasets.listed import ListedDataset
from mmms_deploy.evaluation.datasets.registry import find_kind, open_dataset
from mmms_deploy.evaluation.errors import DatasetOptionError

SYNTAX = "KIND=PATH or KIND=PATH:OPTION=VALUE:OPTION=VALUE, e.g. deliver=data/DELIVER:split=val:modalities=depth,lidar"

# The path takes as much as it can: a colon starts an option only when a word and an equals sign follow.
_ARGUMENT = re.compile(r"(?P<kind>[^=:]+)=(?P<path>.+?)(?P<options>(?::[a-z_]+=[^:]*)*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DatasetArgument:
    """A data set as an argument names it.

    Attributes:
        kind: One of :data:`~mmms_deploy.evaluation.datasets.DATASETS`.
        path: Its folder or file; ``~`` is the home folder.
        options: By name, as text.
    """

    kind: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> ListedDataset[Any]:
        """Open it; raises what :func:`~mmms_deploy.evaluation.datasets.open_dataset` raises."""
        return open_dataset(self.kind, self.path, **self.options)

    def __str__(self) -> str:
        return f"{self.kind}={self.path}" + "".join(f":{name}={value}" for name, value in self.options.items())


def parse_dataset_argument(text: str) -> DatasetArgument:
    """Take a data set argument apart; nothing is opened.

    Args:
        text: ``KIND=PATH``, or ``KIND=PATH:OPTION=VALUE:...``; no character of it is special to shells.

    Raises:
        DatasetOptionError: It has another form, the kind is not known, or an option is given twice.
    """
    match = _ARGUMENT.fullmatch(text)
    if match is None:
        raise DatasetOptionError(
            f"data set {text!r}",
            expected=SYNTAX,
            fix="name the kind and the path; for a folder of images and masks: folder=PATH",
        )
    kind = find_kind(match["kind"]).name
    options: dict[str, str] = {}
    for part in match["options"].split(":")[1:]:
        name, _, value = part.partition("=")
        if name in options:
            raise DatasetOptionError(f"data set {text!r} has the option {name} twice", fix="give it once")
        options[name] = value
    return DatasetArgument(kind, Path(match["path"]).expanduser(), options)
