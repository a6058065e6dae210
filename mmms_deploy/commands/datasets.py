"""Data sets on the command line: ``KIND=PATH:OPTION=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mmms_deploy.commands.common import wrong_usage
from mmms_deploy.commands.places import check_dataset
from mmms_deploy.errors import Door

if TYPE_CHECKING:
    from mmms_deploy.evaluation.datasets.argument import DatasetArgument
    from mmms_deploy.evaluation.datasets.listed import ListedDataset

DEFAULT = "drawn=20"
"""The data set when none is given."""


def parse_datasets(texts: Sequence[str], option: str) -> list[DatasetArgument]:
    """Take data set arguments apart, and check that each names a kind and something that may be a data set.

    Args:
        texts: What was given.
        option: The option it was given with.

    Raises:
        UsageError: One has another form or an unknown kind, or two have one name.
        DatasetLayoutError: One is a bundle, a picture or the like.
    """
    if not texts:
        return []
    from mmms_deploy.evaluation.datasets import DATASETS, parse_dataset_argument
    from mmms_deploy.evaluation.errors import DatasetLayoutError

    with wrong_usage():
        arguments = [parse_dataset_argument(text) for text in texts]
    names = [argument.options.get("name", argument.kind) for argument in arguments]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise click.UsageError(
            f"{option} names {len(twice)} data sets {twice[0]!r}; name each with KIND=PATH:name=NAME."
        )
    for argument in arguments:
        if DATASETS[argument.kind].drawn:
            continue
        check_dataset(argument.kind, argument.path, DatasetLayoutError)
    return arguments


def notes_on(arguments: Sequence[DatasetArgument]) -> list[str]:
    """Return what has to be said about the results of these data sets."""
    from mmms_deploy.evaluation.datasets import DATASETS

    drawn = [str(argument) for argument in arguments if DATASETS[argument.kind].drawn]
    return [
        f"the scenes of {one} are drawn: they show how an evaluation works, and whether two engines agree; they say"
        " nothing about photographs"
        for one in drawn
    ]


def open_datasets(arguments: Sequence[DatasetArgument]) -> list[ListedDataset[Any]]:
    """List the data sets.

    Raises:
        UsageError: A kind has no such option, or an option has a wrong value.
        DatasetError: One cannot be read, or has another layout.
    """
    from mmms_deploy.evaluation.errors import DatasetOptionError

    try:
        return [argument.open() for argument in arguments]
    except DatasetOptionError as error:
        raise click.UsageError(error.message(Door.COMMAND_LINE), click.get_current_context(silent=True)) from error
