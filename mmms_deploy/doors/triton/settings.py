"""What can be chosen about a model repository."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mmms_deploy.arguments import shown
from mmms_deploy.bundle import Manifest, Precision
from mmms_deploy.doors.opening import Opening
from mmms_deploy.doors.triton.pbtxt import Value, Word
from mmms_deploy.errors import DoorError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class Form(StrEnum):
    """Which of Triton's backends answers."""

    PYTHON = "python"
    ONNX = "onnx"
    TENSORRT = "tensorrt"


@dataclass(frozen=True, kw_only=True)
class RepositorySettings:
    """How a model repository is written.

    Attributes:
        form: Which of Triton's backends answers.
        name: Name of the model, or what the names of the stages' models begin with; None takes the bundle's.
        sequences: How many sequences each instance holds at once; those beyond wait in Triton's queue.
        idle: Seconds after which a sequence that asks for nothing is forgotten.
        instances: How many instances a model has; in the Python form each is a process with an engine of its own.
        opening: How the bundle is opened; the Python form alone.
        python_path: Folders in which the model's process looks for packages first; the Python form alone.
        copy: Whether the bundle is copied into the repository, and not named by its path; the Python form alone.
        precision: In which precision the graphs are; the other forms alone.

    Raises:
        DoorError: A number is not positive, or the name is none for a folder.
    """

    form: Form = Form.PYTHON
    name: str | None = None
    sequences: int = 64
    idle: float = 600.0
    instances: int = 1
    opening: Opening = field(default_factory=Opening)
    python_path: tuple[Path, ...] = ()
    copy: bool = True
    precision: Precision = Precision.FP32

    def __post_init__(self) -> None:
        numbers = {"sequences": self.sequences, "idle": self.idle, "instances": self.instances}
        for name, number in numbers.items():
            if not number > 0:
                raise DoorError(f"{name} is {shown(number)}", expected="a number above 0", fix=f"give another {name}")
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise DoorError(
                f"the model is to be called {shown(self.name)}",
                expected="letters, digits, underscores, dots and hyphens, as it is a folder and a part of an address",
                fix="give it another name",
            )

    def named(self, manifest: Manifest) -> str:
        """Return the name of the model of a bundle."""
        return self.name or re.sub(r"[^A-Za-z0-9_.\-]", "_", manifest.name).lstrip("_.-") or "mmms"

    def batching(self) -> dict[str, Value]:
        """Return what a model's ``sequence_batching`` says in every form.

        ``oldest``, because ``direct`` keeps a sequence's place until it ends: with one instance the second annotator
        would wait for the first one.
        """
        return {
            "max_sequence_idle_microseconds": round(self.idle * 1e6),
            "oldest": {"max_candidate_sequences": self.sequences},
        }


def input_of(name: str, data_type: str, dims: tuple[int, ...], *, optional: bool = False) -> dict[str, Value]:
    """Return an entry of a model's ``input``; -1 is a side of any length."""
    return {"name": name, "data_type": Word(data_type), "dims": list(dims), **({"optional": True} if optional else {})}
