"""The fields of requests and answers, as OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmms_deploy.imaging.cleaning import MaskCleaning

Pixels = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(max_length=1000)]


class Shape(BaseModel):
    """What all of them share: exact types, and no fields that are not described."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# --- requests ---------------------------------------------------------------------------------------------------------


class Nothing(Shape):
    """A call without fields."""


class CleaningFields(Shape):
    """What is done to masks after the network has answered; 0 leaves a step out."""

    fill_holes: Pixels = Field(0, description="Holes of at most so many pixels are filled.", le=1 << 30)
    drop_specks: Pixels = Field(0, description="Parts of at most so many pixels are dropped.", le=1 << 30)
    keep_largest: Pixels = Field(0, description="Only so many parts stay, clicked ones first.", le=1 << 30)
    simplify: float = Field(0.0, description="How far outlines may move, in pixels.", ge=0, le=1 << 30)


def cleaning_fields(cleaning: MaskCleaning | None) -> dict[str, Any] | None:
    """Return what is done to masks as the fields say it; None where nothing is done."""
    if cleaning is None:
        return None
    return {name: getattr(cleaning, name) for name in CleaningFields.model_fields}


class SessionCall(Shape):
    """A session to be opened."""

    cleaning: CleaningFields | None = Field(
        None, description="What is done to its masks; null for what the server does, {} for nothing."
    )


class ClickCall(Shape):
    """A click on the current object."""

    x: float = Field(description="Column in the image's own pixels; the centre of the first one is 0.")
    y: float = Field(description="Row in the image's own pixels; the centre of the first one is 0.")
    positive: bool | Literal[0, 1] = Field(True, description="Whether the pixel belongs to the object.")


class ClicksCall(Shape):
    """Several clicks on the current object, answered once."""

    clicks: list[ClickCall] = Field(
        description="The clicks, oldest first. All of them are taken, each a step for undo, or none is.",
        min_length=1,
        max_length=1000,
    )


class NameCall(Shape):
    """An object by its name; select makes it where it is new."""

    name: Name


class RenameCall(Shape):
    """Another name of an object."""

    name: Name
    to: Name = Field(description="Its new name, which no other object has.")


class ChooseCall(Shape):
    """One of the candidates of the newest click."""

    index: int = Field(description="Its place in candidates, from 0.")


class RestoreCall(Shape):
    """An annotation of this image to be put back."""

    annotation: dict[str, Any] = Field(description="What GET annotation gave, of an image of the same size.")


class OpenCall(Shape):
    """One of the server's pictures."""

    image: int = Field(description="Its id, as GET images lists it.")


# --- errors -----------------------------------------------------------------------------------------------------------


class ErrorFields(Shape):
    """What went wrong."""

    kind: str = Field(description="Name of the error, e.g. ClickError.")
    given: str = Field(description="What was given, or happened.")
    expected: str | None = Field(description="What would have been right.")
    fix: str | None = Field(description="What to do next.")
    text: str = Field(description="All of it as one text.")


class ErrorAnswer(Shape):
    """An error."""

    error: ErrorFields


# --- the model --------------------------------------------------------------------------------------------------------


class ModalityFields(Shape):
    """A modality that the network takes beside the image."""

    name: str
    channels: int
    optional: bool


class EngineFields(Shape):
    """What runs the network."""

    library: str
    version: str
    device: str
    precision: str
    threads: int | None = Field(description="Threads a stage computes with; null where the device decides.")
    reason: str = Field(description="Why this engine was chosen.")


class LimitFields(Shape):
    """The server's limits."""

    upload_bytes: int
    pixels: int
    idle_seconds: float
    sessions: int


class ModelAnswer(Shape):
    """The bundle, its engine and the server's limits."""

    name: str
    network: str = Field(description="Family of the network.")
    version: str = Field(description="Version of mmms-deploy.")
    size: tuple[int, int] = Field(description="Height and width at which the network sees an image.")
    modalities: list[ModalityFields]
    engine: EngineFields
    candidates: int = Field(description="The most answers to one click; 1 where there is one.")
    joint: bool = Field(description="Whether a click answers for all objects at once.")
    limits: LimitFields
    saves: bool = Field(description="Whether annotations are saved on the server.")
    cleaning: CleaningFields | None = Field(
        description="What is done to masks of sessions that do not say it themselves; null for nothing."
    )


class BrowserAnswer(Shape):
    """Whether clicks can be answered in the browser."""

    available: bool
    why: str = Field(description="Why not; empty where they can.")
    model: dict[str, Any] = Field(description="The click stage for JavaScript.")


class HealthAnswer(Shape):
    """The server is there."""

    status: Literal["ok"]


# --- pictures and sessions --------------------------------------------------------------------------------------------


class ImageFields(Shape):
    """A picture of the server."""

    id: int
    name: str
    annotated: bool = Field(description="Whether an annotation of it was saved.")


class SessionAnswer(Shape):
    """A new session."""

    session: str
    cleaning: CleaningFields | None = Field(description="What is done to its masks; null for nothing.")


class OpenedAnswer(Shape):
    """An image that was set."""

    size: tuple[int, int] = Field(description="Height and width in pixels, upright.")
    name: str
    layers: list[str] = Field(description="image, and the modalities that are there.")
    milliseconds: float = Field(description="Time of the image stage and of reading the image.")
    annotation: dict[str, Any] | None = Field(description="The annotation that was saved before, for restore.")
    problem: str | None = Field(description="Why a saved annotation cannot be read; null where there is no problem.")


class SavedAnswer(Shape):
    """The files that were written."""

    files: list[str] = Field(description="Their names in the server's folder for results.")


# --- answers ----------------------------------------------------------------------------------------------------------


class SurfaceFields(Shape):
    """An object."""

    name: str
    label: int = Field(description="Its number in the label map.")
    clicks: list[tuple[float, float, int]] = Field(description="x, y, and 1 on the object or 0 off it; oldest first.")
    area: Pixels = Field(description="Pixels of the label map.")
    box: tuple[int, int, int, int] | None = Field(description="x, y, width, height; null without a pixel.")


class CandidateFields(Shape):
    """One of several answers to the newest click."""

    score: float
    taken: bool


class TimingFields(Shape):
    """Milliseconds; null where nothing was answered anew."""

    engine: float | None
    mask: float | None
    total: float | None
    compile: float | None


class ChangedFields(Shape):
    """The rectangle of the label map that differs from the answer before."""

    x: Pixels
    y: Pixels
    width: Pixels
    height: Pixels


class Answer(Shape):
    """What a session answers."""

    surfaces: list[SurfaceFields]
    surface: str = Field(description="Name of the current object.")
    can_undo: bool
    can_redo: bool
    candidates: list[CandidateFields] = Field(description="Empty where there is one answer.")
    timings: TimingFields
    where: Literal["server"]
    changed: ChangedFields | None


class MaskAnswer(Answer):
    """What a session answers over HTTP."""

    mask: dict[str, Any] | list[dict[str, Any]] | None = Field(
        description="The current object: COCO's run lengths, or polygons; null with mask=none."
    )
