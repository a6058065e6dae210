"""The comparison of doors: doors that are right, wrong, broken and absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.commands.verify import main
from mmms_deploy.doors.conformance import comparison
from mmms_deploy.doors.conformance.comparison import DoorClick, DoorReport, compare_doors, known_doors
from mmms_deploy.doors.opening import Opening
from mmms_deploy.errors import DoorError, VerificationError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.imaging.resize import BoolArray
from mmms_deploy.progress import Progress
from mmms_deploy.session import Click
from tests.support.golden_cases import golden
from tests.support.invoke import invoke
from tests.support.toy import write_toy


class Plain:
    """A door that is a session of its own.

    Args:
        name: Its name.
        odd: The click, counted over all pictures, at which it gives another mask; None for none.
        fails: The click at which it fails.
        missing: Why it cannot be opened.
    """

    def __init__(
        self, name: str, *, odd: int | None = None, fails: int | None = None, missing: str | None = None
    ) -> None:
        self.name, self.title = name, f"The door {name}"
        self._odd, self._fails, self._missing = odd, fails, missing
        self.opened: list[Opening] = []
        self.closed = 0

    def missing(self) -> str | None:
        return self._missing

    def open(self, bundle: Bundle, opening: Opening) -> Plain:
        self.opened.append(opening)
        self._model = opening.model(bundle)
        self._session, self._count = opening.session(self._model), 0
        return self

    def set_image(self, image: UInt8Array) -> None:
        self._session.set_image(image)

    def mask(self, clicks: Sequence[Click]) -> BoolArray:
        self._count += 1
        if self._count == self._fails:
            raise DoorError("the tool broke")
        mask = self._session.set_clicks(clicks).mask  # type: ignore[union-attr]
        return ~mask if self._count == self._odd else mask

    def close(self) -> None:
        self._session.close()
        self._model.close()
        self.closed += 1


@pytest.fixture
def toy(tmp_path: Path, paint: Bundle) -> Bundle:
    case = golden(paint)
    return write_toy(tmp_path / "toy", golden=[case, case])


def test_every_mask_of_every_picture(toy: Bundle) -> None:
    steps: list[Progress] = []
    one, other = Plain("one"), Plain("other")
    report = compare_doors(toy, Opening(), [one, other], on_progress=steps.append)
    assert [(door.name, door.passed, door.equal) for door in report.doors] == [("one", True, 6), ("other", True, 6)]
    assert [(click.case, click.click) for click in report.doors[0].clicks] == [(c, k) for c in (0, 1) for k in range(3)]
    assert all(click.iou == 1 and click.milliseconds > 0 for click in report.doors[0].clicks)
    assert (one.closed, other.closed) == (1, 1)
    assert len(steps) == 14
    assert steps[-1].finished
    report.raise_for_failures()


def test_doors_get_the_session_s_engine(toy: Bundle) -> None:
    door = Plain("one")
    report = compare_doors(toy, Opening(engine="onnxruntime", threads=1), [door])
    assert (door.opened[0].engine, door.opened[0].precision, door.opened[0].threads) == ("onnxruntime", "fp32", 1)
    assert report.engine.name == "onnxruntime"
    compare_doors(toy, Opening(), [door])
    assert door.opened[1].engine is not None, "no door chooses one of its own"


def test_another_mask(toy: Bundle) -> None:
    report = compare_doors(toy, Opening(), [Plain("one"), Plain("two", odd=5)])
    assert not report.doors[1].passed
    assert report.doors[1].equal == 5
    with pytest.raises(VerificationError, match=r"door two .* at 1 of 6 clicks; the first is click 2 on image 2"):
        report.raise_for_failures()


def test_a_mask_of_another_size(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "mask", lambda self, clicks: np.zeros((3, 4), bool))
    report = compare_doors(toy, Opening(), [Plain("one")])
    assert (report.doors[0].equal, report.doors[0].clicks[0].iou) == (0, 0.0)


def test_a_door_that_fails_ends_alone(toy: Bundle) -> None:
    doors = [Plain("one", fails=2), Plain("two"), Plain("three", missing="it is not installed: pip install three")]
    report = compare_doors(toy, Opening(), doors)
    assert [len(door.clicks) for door in report.doors] == [1, 6, 0]
    assert [door.passed for door in report.doors] == [False, True, False]
    assert doors[0].closed == 1
    assert not doors[2].opened
    with pytest.raises(DoorError, match="the tool broke"):
        report.raise_for_failures()


def test_the_first_click_of_a_picture_does_not_count_as_added() -> None:
    times = [(0, 900.0), (1, 12.0), (2, 13.0), (0, 800.0), (1, 14.0)]
    clicks = tuple(DoorClick(0, number, True, 1.0, took, 10.0) for number, took in times)
    report = DoorReport("one", "One", clicks)
    assert (report.added(0), report.added(50), report.added(100)) == (2.0, 3.0, 4.0)
    assert math.isnan(DoorReport("one", "One", clicks[:1]).added(50))


def test_bundles_that_no_tool_sends_a_picture_for(tmp_path: Path) -> None:
    needed = write_toy(tmp_path / "depth", modalities=(ModalitySpec(name="depth", channels=1),))
    with pytest.raises(DoorError, match="takes depth beside or in place of a picture"):
        compare_doors(needed, Opening(), [Plain("one")])


# --- the command ------------------------------------------------------------------------------------------------------


def verify(monkeypatch: pytest.MonkeyPatch, doors: Sequence[Plain], *args: object) -> Result:
    monkeypatch.setattr(comparison, "known_doors", lambda: tuple(doors))
    return invoke(main, *args, "--threads", "1")


def test_the_command_shows_every_door(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = [Plain("one"), Plain("two", missing="it is not installed: pip install two")]
    done = verify(monkeypatch, doors, toy.path, "--doors")
    assert done.exit_code == 0, done.output
    assert "passed: 6 clicks" in done.stdout, "the bundle's own replay comes first"
    assert "6 of 6" in done.stdout
    assert "pip install two" in done.stdout
    assert "the same mask at 1 door and" in done.stdout


def test_the_command_fails_with_a_mask(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    done = verify(monkeypatch, [Plain("one", odd=1)], toy.path, "--doors")
    assert done.exit_code == 1
    assert "5 of 6" in done.stdout
    assert "gives another mask than a session" in done.stderr


def test_a_door_by_its_name(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = [Plain("one"), Plain("two"), Plain("three", missing="pip install three")]
    assert verify(monkeypatch, doors, toy.path, "--door", "two").exit_code == 0
    assert (len(doors[0].opened), len(doors[1].opened)) == (0, 1)
    done = verify(monkeypatch, doors, toy.path, "--door", "three")
    assert done.exit_code == 1
    assert "The door three cannot be opened here: pip install three" in done.stderr
    done = verify(monkeypatch, doors, toy.path, "--door", "tow")
    assert done.exit_code == 1
    assert "there is no door 'tow'" in done.stderr
    assert "did you mean 'two'" in done.stderr
    done = verify(monkeypatch, doors, toy.path, "--doors", "--all-engines")
    assert done.exit_code == 2


# --- the doors themselves ---------------------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [door.name for door in known_doors()]
    assert len(names) == len(set(names))
    assert "api" in names


@pytest.mark.parametrize("door", known_doors(), ids=lambda door: door.name)
def test_a_door_gives_the_session_s_masks(door: comparison.Door) -> None:
    """Of the demo, on a few clicks; where its tool is installed."""
    if (why := door.missing()) is not None:
        pytest.skip(why)
    report = compare_doors(Bundle("demo-small"), Opening(engine="onnxruntime", threads=1), [door])
    report.raise_for_failures()
    assert report.doors[0].passed
