"""The base of every engine of this package."""

from __future__ import annotations

from collections.abc import Mapping

from mmms_deploy.bundle import Bundle, StageGraph
from mmms_deploy.engines.process import OwnProcess
from mmms_deploy.engines.protocol import EngineInfo


class EngineBase:
    """The three properties of :class:`~mmms_deploy.engines.protocol.Engine`, and the process that an engine belongs to.

    An engine sets them when it is made.
    """

    _own: OwnProcess
    _info: EngineInfo
    _bundle: Bundle
    _graphs: dict[str, StageGraph]

    @property
    def info(self) -> EngineInfo:
        """What this engine really is."""
        return self._info

    @property
    def bundle(self) -> Bundle:
        """The bundle whose stages it executes."""
        return self._bundle

    @property
    def graphs(self) -> Mapping[str, StageGraph]:
        """The graph of every stage, by name."""
        return self._graphs
