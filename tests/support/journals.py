"""Sessions of every kind of network that write a journal, and their replay."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmms_deploy import LATER, Bundle, Session
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import SessionError
from mmms_deploy.journal import Images, Outcome, Replayed, replay_journal
from tests.support.annotating import SIZE

PICTURE = np.random.default_rng(7).integers(0, 120, (*SIZE, 3), dtype=np.uint8)
OTHER = PICTURE[::-1].copy()
DEPTH = np.linspace(1, 90, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8)
ONE = EngineRequest(engine="onnxruntime", threads=1)


def write_pictures(folder: Path) -> Path:
    """Write the pictures and the modality under names that say nothing."""
    folder.mkdir(exist_ok=True)
    (folder / "below").mkdir(exist_ok=True)
    Image.fromarray(PICTURE).save(folder / "below" / "b.png")
    Image.fromarray(OTHER).save(folder / "a.png")
    Image.fromarray(DEPTH).save(folder / "c.png")
    np.save(folder / "d.npy", DEPTH // 2)
    (folder / "no.png").write_bytes(b"no picture")
    return folder


def separate_walk(session: Session) -> None:
    """Every call of a session whose objects are answered one at a time; some are refused."""
    session.set_image(PICTURE)
    session.click(10, 10)
    session.click(60.125, 40, 1)
    session.click(1 / 3, 5, positive=False)
    session.undo()
    session.redo()
    session.undo()
    with contextlib.suppress(SessionError):
        session.click(999, 1)
    session.select("dög")
    session.set_mask(np.linspace(0, 1, DEPTH.size).reshape(SIZE).astype(np.float32))
    session.click(12, 12)
    session.select("1")  # the dog took pixels from it
    session.select("half \ud800")
    session.set_mask(np.eye(*SIZE, dtype=np.bool_))
    session.set_clicks([[5, 5, 1], [50, 40, 0]])
    session.set_clicks([[5, 5, 1], [30, 40, 1]])
    session.predict([[5, 5], [30, 40], [9, 44]], [1, 1, 0])
    session.add_clicks([[7, 40], [11, 40, 0]])
    session.predict([[20, 20]], [1], mask_input=np.linspace(-9, 9, 64, dtype=np.float32).reshape(1, 8, 8))
    session.rename("dög", "dog")
    session.reset()
    session.click(44, 44)
    session.remove("1")
    saved = session.to_dict()
    session.load_labels(np.eye(*SIZE, dtype=np.int32) * 3, {"owl": 3, "cat": 4})
    session.click(33, 8)
    session.restore(saved)
    session.click(2, 2)
    session.set_image(OTHER)
    session.click(35, 25)
    with contextlib.suppress(SessionError):
        session.remove("nothing")


def joint_walk(session: Session) -> None:
    """Every call of a session whose objects are answered at once."""
    session.set_image(PICTURE)
    session.click(10, 10)
    session.select("dog")
    session.click(50, 30)
    session.click(5, 45, positive=False)
    session.select("1")
    session.set_clicks([[10, 10, 1], [30, 30, 1]])
    session.undo()
    session.undo()
    session.redo()
    session.select("dog")
    session.predict([[50, 30], [60, 30]], [1, 1])
    session.rename("1", "cat")
    saved = session.to_dict()
    session.remove("cat")
    with contextlib.suppress(SessionError):
        session.set_mask(np.eye(*SIZE, dtype=np.bool_))
    session.restore(saved)
    session.reset()
    session.click(20, 20)


def proposing_walk(session: Session) -> None:
    """A first click with proposals, and choices."""
    session.set_image(PICTURE)
    session.click(35, 25)
    session.choose(2)
    session.undo()
    session.redo()
    session.click(60, 40)
    session.select("other")
    session.set_clicks([[20, 20], {"choice": 0}, [22, 20, 0]])
    with contextlib.suppress(SessionError):
        session.choose(7)
    session.reset()
    session.click(9, 9)


def modal_walk(session: Session) -> None:
    """A modality that comes later, changes and is taken away."""
    session.set_image(PICTURE, depth=LATER)
    session.set_modalities(depth=DEPTH)
    session.click(10, 10)
    session.set_modalities(depth=DEPTH // 2)
    session.click(20, 20)
    session.set_modalities(depth=None)
    session.undo()


def recorded(bundle: Bundle, path: Path, walk: Callable[[Session], object], **options: Any) -> list[dict[str, Any]]:
    """Let a session walk and write a journal; return its lines."""
    with Session(bundle, engine="onnxruntime", threads=1, journal=path, **options) as session:
        walk(session)
    return lines(path)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def check_replay(path: Path, bundle: Bundle, images: Images, **options: Any) -> Replayed:
    """Replay a journal, and check that every mask is the same in every pixel."""
    found = replay_journal(path, bundle, images, **{"request": ONE, **options})
    problems = [row for row in found.rows if row.outcome not in (Outcome.SAME, Outcome.DONE, Outcome.REFUSED)]
    assert not problems
    assert found.same_bundle
    found.raise_for_failures()
    json.dumps(found.to_dict(), allow_nan=False)
    return found


class Kept(dict[Any, Any]):
    """Features by what they are kept by: the smallest store."""

    def find(self, key: object, engine: object = None) -> Any:
        """Return what is kept."""
        return self.get(key)

    def encoding(self, key: object, engine: object = None) -> contextlib.AbstractContextManager[Any]:
        """Let no other thread wait."""
        return contextlib.nullcontext(self.get(key))

    def keep(self, features: Any) -> Any:
        """Keep features."""
        self[features.key] = features
        return features

    def hold(self, features: object) -> None:
        """Keep nothing on the device."""

    def forget(self, key: object) -> None:
        """Keep features no longer."""
        self.pop(key, None)


def kinds(found: list[Mapping[str, Any]]) -> list[str]:
    """Return the kinds of events."""
    return [line["event"] for line in found]
