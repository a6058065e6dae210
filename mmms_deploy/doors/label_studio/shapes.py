"""What Label Studio sends, as far as it is read; everything else in it is left alone."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import decode_json
from mmms_deploy.server.errors import RequestError

T = TypeVar("T")


class Region(msgspec.Struct, frozen=True):
    """A region of a context: what the annotator drew with a smart tag.

    Attributes:
        type: The kind of the tag, e.g. ``keypointlabels``.
        to_name: Name of the picture.
        value: Place in per cent, and labels.
        from_name: Name of the tag.
        original_width: W0 of the picture.
        original_height: H0 of the picture.
        image_rotation: Degrees by which the picture is shown turned.
        is_positive: Whether it is on the object; False where Alt was held.
        item_index: Which of several pictures, from 0.
    """

    type: str
    to_name: str
    value: dict[str, Any]
    from_name: str = ""
    original_width: int = 0
    original_height: int = 0
    image_rotation: float = 0.0
    is_positive: bool = True
    item_index: int | None = None


class Context(msgspec.Struct, frozen=True):
    """What an annotator did.

    Attributes:
        result: The regions, oldest first.
    """

    result: list[Region] = []


class Params(msgspec.Struct, frozen=True):
    """Parameters of a prediction.

    Attributes:
        context: What an annotator did; None for predictions without one.
    """

    context: Context | None = None


class Task(msgspec.Struct, frozen=True):
    """A task.

    Attributes:
        data: Its data, with the addresses of its pictures.
        id: Its number.
    """

    data: dict[str, Any]
    id: int | str | None = None


class Prediction(msgspec.Struct, frozen=True):
    """The body of ``POST /predict``.

    Attributes:
        tasks: The tasks.
        project: The project, as ``number.time``.
        label_config: Its labelling configuration.
        params: What is asked.
    """

    tasks: list[Task]
    project: str | None = None
    label_config: str | None = None
    params: Params | None = None

    @property
    def context(self) -> Context | None:
        """What an annotator did; None for predictions without one."""
        return None if self.params is None else self.params.context


class Setup(msgspec.Struct, frozen=True):
    """The body of ``POST /setup``.

    Attributes:
        project: The project, as ``number.time``.
        schema: Its labelling configuration.
        hostname: Where Label Studio says that it is.
        access_token: A legacy token of the project's owner.
    """

    project: str | None = None
    schema: str | None = None
    hostname: str | None = None
    access_token: str | None = None


class Validation(msgspec.Struct, frozen=True):
    """The body of ``POST /validate``.

    Attributes:
        config: A labelling configuration.
    """

    config: str


def read_shape(content: bytes, kind: type[T]) -> T:
    """Return a body, checked.

    Args:
        content: The body.
        kind: What it is to be.

    Raises:
        RequestError: It is no JSON, or a field that is read is missing or of another type.
    """
    try:
        return msgspec.convert(decode_json(content, "the request"), kind)
    except FileReadError as error:
        raise RequestError(error.given, expected=error.expected, fix="send JSON in UTF-8") from None
    except msgspec.ValidationError as error:
        raise RequestError(
            f"the request: {error}",
            expected=f"what Label Studio sends, with the fields {', '.join(kind.__struct_fields__)}",  # type: ignore[attr-defined]
            fix="call it as Label Studio 1.23 does",
        ) from None
