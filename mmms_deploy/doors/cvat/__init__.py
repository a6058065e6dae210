"""CVAT: an agent function for servers that have agents, and a nuclio function for community servers.

``cvat-cli`` takes this module as it is:

    cvat-cli --server-host HOST function create-native NAME --function-module mmms_deploy.doors.cvat -p bundle=str:demo

In reading order:

- ``prompts``: the points and the box of a request, checked, in a session's pixels
- ``order``: in which order the points of a request are clicked; a request does not say it
- ``frames``: sessions on frames, and the order of the clicks on them
- ``pictures``: the pixels of frames, in files that end with the process
- ``agent``: the function that ``cvat-cli function run-agent`` calls; the only module that needs ``cvat-sdk``
- ``function``: what a nuclio function answers
- ``function_folder``, ``nuclio``: the folder that ``nuctl deploy`` takes; the command that writes it
- ``conformance``: both doors, for ``mmms-verify --doors``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmms_deploy.doors.cvat.agent import Interactor


def create(bundle: str = "demo", **settings: Any) -> Interactor:
    """Return the function of an agent; ``cvat-cli`` calls this with the parameters of its command line.

    Args:
        bundle: A folder, ``demo``, or ``hf:owner/name``.
        **settings: Settings by name, ``-p engine=str:openvino``: those of
            :class:`~mmms_deploy.doors.cvat.agent.AgentSettings`.

    Raises:
        DoorError: ``cvat-sdk`` is not installed, a setting is unknown or of another type, or the network needs more
            than pictures.
        BundleError: There is no usable bundle.
        EngineError: There is no usable engine.
    """
    from mmms_deploy.doors.cvat.agent import AgentSettings, Interactor

    return Interactor(bundle, AgentSettings.of(settings))
