"""What a notebook shows of a session: bundle, engine, image, surfaces, and a small picture of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmms_deploy.bundle import Bundle
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.errors import MMMSDeployError
from mmms_deploy.reporting.notebook import Markup, inline_picture, lines, swatch, view
from mmms_deploy.session.inputs import ImageState
from mmms_deploy.session.outputs import Named
from mmms_deploy.session.overlay import COLOURS
from mmms_deploy.session.surfaces import Labels
from mmms_deploy.session.thumbnail import Drawn, jpeg_of, nearest, thumbnail


@dataclass(frozen=True, eq=False)
class Shown:
    """What is shown of a session.

    Attributes:
        bundle: Its bundle.
        engine: Its engine.
        image: Its image.
        current: Name of the current surface.
        objects: Every surface with its answer; none before the first image.
        labels: The label map; None before the first image.
    """

    bundle: Bundle
    engine: EngineInfo
    image: ImageState
    current: str
    objects: Sequence[Named]
    labels: Labels | None


def session_view(title: str, gather: Callable[[], Shown]) -> str:
    """Return a session as HTML. A session that cannot be shown says why, instead of an error.

    Args:
        title: What stands above the view of a session that cannot be shown.
        gather: Returns what is shown; raises a named error for a session that is closed or of another process.
    """
    try:
        shown = gather()
        return view(f"Session on {shown.bundle.manifest.name}", _rows(shown), _picture(shown), _note(shown))
    except (MMMSDeployError, MemoryError) as error:
        return view(title, [], note=str(error) or "there is not enough memory to show this session")


def _rows(shown: Shown) -> list[tuple[str, str]]:
    engine = [str(shown.engine), *([shown.engine.reason] if shown.engine.reason else [])]
    rows: list[tuple[str, str]] = [
        ("bundle", shown.bundle.reference),
        ("engine", lines(engine)),
        ("image", lines(_image(shown.image))),
    ]
    if shown.objects:
        rows.append(("surfaces", lines([_surface(shown, number) for number in range(len(shown.objects))])))
    return rows


def _image(image: ImageState) -> list[str]:
    if image.size is None:
        return ["none yet; set_image(...) sets one"]
    height, width = image.size
    named = f"{image.file_name}, " if image.file_name else ""
    parts = [f"{named}{width} x {height} pixels (width x height)"]
    if image.present:
        parts.append(f"with {', '.join(sorted(image.present))}")
    if image.awaited:
        parts.append(f"{', '.join(sorted(image.awaited))} will come later")
    return parts


def _surface(shown: Shown, number: int) -> Markup:
    one = shown.objects[number]
    clicks = one.result.index
    said = f"{one.name}: label {one.label}, {clicks} click{'s' if clicks != 1 else ''}, {one.result.area:,} px"
    return swatch(COLOURS[number % len(COLOURS)], said + (" (current)" if one.name == shown.current else ""))


def _picture(shown: Shown) -> Markup | None:
    size, labels = shown.image.size, shown.labels
    if size is None or labels is None:
        return None
    small = nearest(labels, size)
    drawn = [Drawn(small == one.label, one.result.clicks) for one in shown.objects]
    picture = thumbnail(shown.image.picture, size, drawn)
    names = ", ".join(one.name for one in shown.objects)
    return inline_picture(jpeg_of(picture), "image/jpeg", f"the image with the surfaces {names}")


def _note(shown: Shown) -> str:
    if shown.image.size is None or shown.image.picture is not None:
        return ""
    return "The image's pixels are not kept (keep_image=False, or features were set): the masks are drawn on grey."
