"""Checkpoints that official software saved: whose software, what network they hold, and its weights under our names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmms_deploy.models.disnet_checkpoint import describe_disnet, is_disnet
from mmms_deploy.models.dynamite_checkpoint import describe_dynamite, dynamite_names, is_dynamite
from mmms_deploy.models.interformer_checkpoint import describe_interformer, is_interformer
from mmms_deploy.models.interformer_checkpoint import native_names as interformer_names
from mmms_deploy.models.ritm_checkpoint import describe_ritm, is_ritm, without_unread
from mmms_deploy.models.skipclick_checkpoint import describe_official, is_official, native_names

State = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """How the files of one software are read.

    Attributes:
        wrote: Whether it saved a file, by the file's entry ``config`` and its weights.
        describe: Returns a description, from the same and the file's name for messages; raises
            :class:`~mmms_deploy.errors.DescriptionError`.
        native: Returns the weights under our names, without what no network runs, from weights, ``config`` and the
            file's name.
    """

    wrote: Callable[[object, State], bool]
    describe: Callable[[object, State, str], dict[str, Any]]
    native: Callable[[State, object, str], State]


OFFICIAL: tuple[Official, ...] = (
    Official(
        lambda config, state: is_interformer(state),
        lambda config, state, source: describe_interformer(state),
        lambda state, config, source: interformer_names(state, source),
    ),
    Official(
        lambda config, state: is_dynamite(state),
        lambda config, state, source: describe_dynamite(dynamite_names(state, source)),
        lambda state, config, source: dynamite_names(state, source),
    ),
    Official(
        lambda config, state: is_disnet(state),
        lambda config, state, source: describe_disnet(state),
        lambda state, config, source: state,
    ),
    Official(is_official, describe_official, lambda state, config, source: native_names(state)),
    Official(is_ritm, describe_ritm, lambda state, config, source: without_unread(state, config)),
)
"""The software whose files are read, in the order in which it is asked."""


def official_of(config: object, state: State) -> Official | None:
    """Return whose software saved a file; None where no known one did.

    Args:
        config: The file's entry ``config``; None when it has none.
        state: Its weights, as the file names them.
    """
    return next((one for one in OFFICIAL if one.wrote(config, state)), None)
