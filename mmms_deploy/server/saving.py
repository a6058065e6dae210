"""Annotations in the server's folder for results: a label map and a session's annotation for each picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmms_deploy.errors import FileReadError
from mmms_deploy.files import read_json, replacing, writing
from mmms_deploy.reporting.visible import visible
from mmms_deploy.server.errors import StateError
from mmms_deploy.server.settings import MIB, ServedPicture
from mmms_deploy.session import Session

_LARGEST = 64 * MIB


class Saved(NamedTuple):
    """An annotation that was saved before; None where there is none, or it cannot be read, and why."""

    annotation: dict[str, Any] | None = None
    problem: str | None = None


class Results:
    """The folder for results.

    Args:
        folder: The folder; None where nothing is saved.
        pictures: The pictures of the server. None of their files is ever replaced.
    """

    def __init__(self, folder: Path | None, pictures: Sequence[ServedPicture]) -> None:
        self._folder = folder
        self._inputs = {path.resolve() for picture in pictures for path in (picture.path, *picture.modalities.values())}

    def has(self, picture: ServedPicture) -> bool:
        """Whether an annotation of a picture was saved."""
        return self._folder is not None and self._place(self._folder, picture, ".json").is_file()

    def read(self, picture: ServedPicture) -> Saved:
        """Return the annotation of a picture that was saved before."""
        if self._folder is None or not self.has(picture):
            return Saved()
        try:
            found = read_json(self._place(self._folder, picture, ".json"), _LARGEST)
        except FileReadError as error:
            return Saved(problem=visible(error.given))
        if not isinstance(found, dict):
            return Saved(problem=f"{visible(picture.key)}.json is no annotation of a session")
        return Saved(found)

    def save(self, picture: ServedPicture, session: Session) -> list[str]:
        """Write the label map and the annotation of a picture, each whole or not at all, and return their names.

        Args:
            picture: The picture.
            session: The session that holds it.

        Raises:
            StateError: There is no folder, or a file would take the place of a picture.
            OutputWriteError: A file cannot be written.
        """
        if self._folder is None:
            raise StateError(
                "there is no folder for results",
                expected="a folder, named when the server was started",
                fix="start it with a folder, or download the annotation",
            )
        labels, annotation = (self._place(self._folder, picture, suffix) for suffix in (".png", ".json"))
        for place in (labels, annotation):
            if place.resolve() in self._inputs:
                raise StateError(
                    f"{place.name} is a picture, and the results would replace it",
                    expected="a folder for results that holds no pictures",
                    fix="start the server with another folder",
                )
        with writing(labels.parent):
            labels.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(session.to_dict(), ensure_ascii=False).encode()
        # The annotation comes into place after the label map: where one cannot be written, it is the old one.
        with replacing(annotation, sync=True) as stream:
            stream.write(content)
            session.save_labels(labels, overwrite=True)
        return [visible(f"{picture.key}{suffix}") for suffix in (".png", ".json")]

    @staticmethod
    def _place(folder: Path, picture: ServedPicture, suffix: str) -> Path:
        return folder / f"{picture.key}{suffix}"
