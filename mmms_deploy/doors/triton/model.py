"""The model.py of a model repository for Triton's Python backend, written by mmms-serve triton.

Triton starts it in a process of its own. Its Python may see other packages than the one that wrote the repository: the
parameter python_path of config.pbtxt names folders to look in first. All else is in mmms_deploy.doors.triton.serving.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


class TritonPythonModel:
    """One instance of the model; Triton knows it by this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle.

        Args:
            args: What Triton says of the model: its configuration as JSON, its folder, its version.
        """
        config = json.loads(args["model_config"])
        settings = {name: given["string_value"] for name, given in config.get("parameters", {}).items()}
        # The folders come first: this process may have an older package of the same name.
        sys.path[:0] = [folder for folder in settings.pop("python_path", "").split(os.pathsep) if folder]
        from mmms_deploy.doors.triton.serving import Serving

        idle = int(config["sequence_batching"]["max_sequence_idle_microseconds"]) / 1e6
        self.serving = Serving(settings, idle, Path(args["model_repository"]) / args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, each by itself.

        Args:
            requests: Triton's requests.

        Returns:
            A response for each.
        """
        return [self.serving.respond(request) for request in requests]

    def finalize(self) -> None:
        """Free everything."""
        self.serving.close()
