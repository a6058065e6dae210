"""What a session answers: its objects, what can be undone, timings, and where its label map changed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.errors import ChoiceError
from mmms_deploy.imaging.resize import FloatArray
from mmms_deploy.page.framing import frame
from mmms_deploy.server.calls import Call, Done
from mmms_deploy.server.changes import Seen, runs
from mmms_deploy.server.errors import RequestError
from mmms_deploy.server.tabs import Tab

_NO_TIMINGS = dict.fromkeys(("engine", "mask", "total", "compile"))
MASKS = ("rle", "polygons", "none")
"""The forms of a mask that can be asked for."""


def answer(tab: Tab, seen: Seen, done: Done = None, *, whole: bool = False) -> tuple[dict[str, Any], bytes]:
    """Return the state of a session, and the labels of the rectangle that changed as run lengths.

    Args:
        tab: The session, with an image.
        seen: What the caller saw before; noted anew.
        done: The result of the call, for its timings; None for a call that answered no click.
        whole: Whether all of the label map is sent.
    """
    session = tab.session
    labels = session.labels
    names, extents = session.surfaces, tab.extents.of(labels)
    clicks: defaultdict[str, list[list[float]]] = defaultdict(list)
    for name, click in session.all_clicks:
        clicks[name].append(click.to_list())
    surfaces = []
    for name, label in names.items():
        extent = extents.get(label)
        box = None if extent is None else list(extent.box)
        area = 0 if extent is None else extent.area
        surfaces.append({"name": name, "label": label, "clicks": clicks[name], "area": area, "box": box})
    changed = seen.update(labels, whole=whole)
    candidates = session.result.candidates if session.bundle.manifest.clicks.candidates > 1 else ()
    fields = {
        "surfaces": surfaces,
        "surface": session.surface,
        "can_undo": session.can_undo,
        "can_redo": session.can_redo,
        "candidates": [{"score": one.score, "taken": one.taken} for one in candidates],
        "timings": _NO_TIMINGS if done is None else done.timings.to_dict(),
        "where": "server",
        "changed": None if changed is None else changed._asdict(),
    }
    return fields, b"" if changed is None else runs(changed.of(labels))


def live_answer(tab: Tab, seen: Seen, call: Call, fields: Any) -> tuple[dict[str, Any], bytes]:
    """Run a call of the live socket, and return its answer and the payload."""
    done = call.run(tab.session, fields)
    return answer(tab, seen, done, whole=call.whole)


def http_answer(tab: Tab, call: Call, fields: Any, mask: str) -> dict[str, Any]:
    """Run a call over HTTP, and return its answer, with the mask of the current object."""
    done = call.run(tab.session, fields)
    return with_mask(tab, answer(tab, tab.seen, done, whole=call.whole)[0], mask)


def with_mask(tab: Tab, fields: dict[str, Any], mask: str) -> dict[str, Any]:
    """Return an answer with the mask of the current object in one of the forms in :data:`MASKS`."""
    result = tab.session.result
    if mask == "none":
        return {**fields, "mask": None}
    if mask == "polygons":
        return {**fields, "mask": [polygon.to_dict() for polygon in result.polygons()]}
    return {**fields, "mask": result.rle()}


def checked_mask_form(form: str) -> str:
    """Return the form of a mask that a caller asks for, checked.

    Raises:
        RequestError: There is no such form.
    """
    if form not in MASKS:
        raise RequestError(f"mask={form}", expected="rle, polygons or none", fix="add ?mask=rle to the address")
    return form


def probability(tab: Tab) -> tuple[dict[str, Any], bytes]:
    """Return the size of the network's answer for the current object, and its probabilities from 0 to 255."""
    _ = tab.session.image_size
    numbers = tab.session.result.network_probability
    return {"size": list(numbers.shape)}, _as_bytes(numbers).tobytes()


def candidates(tab: Tab) -> tuple[dict[str, Any], bytes]:
    """Return the size and the number of the candidates, and their probabilities from 0 to 255.

    Raises:
        ChoiceError: There are none.
    """
    _ = tab.session.image_size
    found = tab.session.result.candidates
    if not found:
        raise ChoiceError(
            "there are no candidates",
            expected="the answer of a network that gives several to its newest click",
            fix="ask where the answer before has candidates",
        )
    maps = [_as_bytes(one.answer.probability) for one in found]
    return {"size": list(maps[0].shape), "count": len(maps)}, b"".join(one.tobytes() for one in maps)


def framed(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Return a header and a payload as one binary message."""
    return frame(header, (payload,))


def _as_bytes(numbers: FloatArray) -> npt.NDArray[np.uint8]:
    """Return probabilities (h, w) as whole numbers from 0 to 255."""
    rounded: npt.NDArray[np.uint8] = np.rint(numbers * np.float32(255)).astype(np.uint8)
    return rounded
