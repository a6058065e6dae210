"""The settings of an opening as a form."""

from __future__ import annotations

import msgspec
import pytest

from mmms_deploy.doors.napari import form
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError


def test_every_setting_has_a_field_with_help() -> None:
    assert tuple(field.name for field in form.fields()) == Opening.__struct_fields__
    assert all(field.help and "`" not in field.help for field in form.fields())


def test_the_form_says_the_defaults_where_nothing_is_changed() -> None:
    assert form.opening_of({field.name: field.default for field in form.fields()}) == Opening()


def test_texts_are_settings() -> None:
    values = {"device": " cpu ", "threads": "2", "zoom": True, "precision": ""}
    assert form.opening_of(values) == Opening(device="cpu", threads=2, zoom=True)


def test_a_text_that_is_no_setting_is_refused() -> None:
    with pytest.raises(DoorError, match="threads"):
        form.opening_of({"threads": "many"})


def test_settings_that_come_later_are_there_at_once(monkeypatch) -> None:
    class More(Opening, frozen=True, kw_only=True):
        """More of them.

        Attributes:
            later: Whether it is late;
                two lines of it.
            latest: Pixels.
        """

        later: bool = False
        latest: int = 0

    monkeypatch.setattr(form, "Opening", More)
    added = form.fields()[len(msgspec.structs.fields(Opening)) :]
    assert added == (
        form.Field("later", True, False, "Whether it is late; two lines of it."),
        form.Field("latest", False, "0", "Pixels."),
    )
