"""Labelling configurations, points and tasks as Label Studio has them, and its backend in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmms_deploy.doors.label_studio.prompts import percent_of
from mmms_deploy.doors.label_studio.serving import configured
from mmms_deploy.doors.label_studio.settings import LabelStudio
from mmms_deploy.doors.opening import Opening
from mmms_deploy.server.serving import listening
from mmms_deploy.server.settings import Settings
from mmms_deploy.session import Click, Model


def configuration(masks: str = "BrushLabels", labels: Sequence[str] = ("object",), smart: bool = True) -> str:
    """Return a labelling configuration whose tags have names of their own.

    Args:
        masks: The tag for masks.
        labels: The labels of masks and points.
        smart: Whether points are sent to a model.
    """
    tags = "".join(f'<Label value="{one}"/>' for one in labels)
    return (
        f'<View><Image name="pic" value="$photo"/><{masks} name="area" toName="pic">{tags}</{masks}>'
        f'<KeyPointLabels name="dots" toName="pic" smart="{str(smart).lower()}">{tags}</KeyPointLabels></View>'
    )


def point(click: Click, size: tuple[int, int], label: str = "object", **more: Any) -> dict[str, Any]:
    """Return a click as Label Studio 1.23.2 sends it to a model.

    Args:
        click: In pixels.
        size: (H0, W0) of the picture.
        label: The label that was selected.
        more: Other fields of the region, in the place of these.
    """
    x, y = percent_of(click, size)
    region = {
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.3, "labels": [label], "keypointlabels": [label]},
        "is_positive": click.positive,
        "id": f"{click.x}-{click.y}",
        "from_name": "dots",
        "to_name": "pic",
        "type": "keypointlabels",
        "origin": "manual",
    }
    return {**region, **more}


@contextmanager
def running_backend(
    model: Model, label_studio: LabelStudio | None = None, opening: Opening | None = None, **settings: Any
) -> Iterator[str]:
    """Run the backend in a thread, on a free port, and give its address; the model is not closed."""
    chosen = Settings(port=0, **settings)
    listens = threading.Event()
    with listening(chosen) as place:
        server = configured(model, opening or Opening(), label_studio or LabelStudio(), chosen, listens.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        assert listens.wait(30), "the backend does not start"
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive(), "the backend does not stop"
