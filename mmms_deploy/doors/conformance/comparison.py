"""The same clicks through every door, and through a session: whether the masks are the same, and what a door costs.

The pictures and the clicks are those of the bundle's golden replay. Every door and a session of this process take turns
click by click, on the same engine in the same precision, so that a door's mask has to be the session's, bit for bit,
and what other programs take from the machine is taken from both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter

import msgspec
import numpy as np

from mmms_deploy.bundle import GOLDEN_NAME, Bundle
from mmms_deploy.doors.conformance.door import Door, OpenDoor
from mmms_deploy.doors.opening import Opening
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.errors import DoorError, MMMSDeployError, VerificationError
from mmms_deploy.imaging.io import UInt8Array
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.golden import load_golden
from mmms_deploy.replay.metrics import iou
from mmms_deploy.session import Click, Session
from mmms_deploy.spelling import did_you_mean

MODULES = ("api", "cvat", "label_studio", "napari", "triton")
"""The folders of doors; each has a module ``conformance`` with ``doors``."""


@dataclass(frozen=True)
class DoorClick:
    """One click, through a door and on a session.

    Attributes:
        case: Index of the picture, from 0.
        click: Index of the click on it, from 0.
        equal: Whether the masks are the same in every pixel.
        iou: Their intersection over union; 1 when both are empty.
        milliseconds: How long the door took, from the click to the mask.
        session_milliseconds: How long :meth:`Session.click` took.
    """

    case: int
    click: int
    equal: bool
    iou: float
    milliseconds: float
    session_milliseconds: float


@dataclass(frozen=True)
class DoorReport:
    """What was found at one door.

    Attributes:
        name: As on the command line.
        title: As people know it.
        clicks: Every click, in the order of the replay.
        missing: Why the door cannot be opened on this machine; None where it was.
        error: What it failed with; None where it did not.
    """

    name: str
    title: str
    clicks: tuple[DoorClick, ...] = ()
    missing: str | None = None
    error: MMMSDeployError | None = None

    @property
    def passed(self) -> bool:
        """Whether every mask is the session's, bit for bit."""
        return self.error is None and bool(self.clicks) and all(click.equal for click in self.clicks)

    @property
    def equal(self) -> int:
        """How many masks are the session's, bit for bit."""
        return sum(click.equal for click in self.clicks)

    def added(self, percentile: float) -> float:
        """Return what the door adds to a click, in milliseconds.

        The first click on a picture is left out: some doors encode the picture there.

        Args:
            percentile: Which one, from 0 to 100.
        """
        added = [one.milliseconds - one.session_milliseconds for one in self.clicks if one.click]
        return float(np.percentile(added, percentile)) if added else float("nan")


@dataclass(frozen=True)
class ConformanceReport:
    """What was found at all doors.

    Attributes:
        bundle: What names the bundle.
        engine: What executed in the session, and behind the doors.
        doors: One for each door.
    """

    bundle: str
    engine: EngineInfo
    doors: tuple[DoorReport, ...]

    def raise_for_failures(self) -> None:
        """Raise the error of a door that failed, or of one with another mask.

        Raises:
            VerificationError: A mask differs.
            MMMSDeployError: A door failed.
        """
        for door in self.doors:
            if door.error is not None:
                raise door.error
        for door in self.doors:
            odd = next((click for click in door.clicks if not click.equal), None)
            if odd is not None:
                raise VerificationError(
                    f"{door.title} gives another mask than a session at {len(door.clicks) - door.equal} of"
                    f" {len(door.clicks)} clicks; the first is click {odd.click + 1} on image {odd.case + 1}, with IoU"
                    f" {odd.iou:.4f}",
                    expected=f"the same mask in every pixel, on {self.engine}",
                    fix="please report it with the versions of mmms-deploy and of that tool",
                )


def known_doors() -> tuple[Door, ...]:
    """Return every door, whether it can be opened here or not."""
    return tuple(door for name in MODULES for door in import_module(f"mmms_deploy.doors.{name}.conformance").doors)


def checked_doors(names: Collection[str]) -> tuple[Door, ...]:
    """Return the doors of these names, or all where there is no name.

    Raises:
        DoorError: There is no such door.
    """
    doors = known_doors()
    known = [door.name for door in doors]
    for name in names:
        if name not in known:
            raise DoorError(
                f"there is no door {name!r}{did_you_mean(name, known)}",
                expected=f"one of {', '.join(known)}",
                fix="correct the name, or leave it out for all doors",
            )
    return tuple(door for door in doors if not names or door.name in names)


def compare_doors(
    bundle: Bundle, opening: Opening, doors: Sequence[Door] | None = None, *, on_progress: OnProgress | None = None
) -> ConformanceReport:
    """Click through doors and on a session in turns, and compare every mask.

    Args:
        bundle: The bundle, which takes pictures and no other modality.
        opening: How it is opened, at the doors and for the session.
        doors: The doors; None takes all.
        on_progress: Receives every click as a step.

    Returns:
        What was found, good or bad.

    Raises:
        BundleError: The bundle cannot be used.
        DoorError: The bundle takes no picture alone, so that no tool could send it one.
        EngineError: There is no usable engine.
    """
    cases = list(_cases(bundle))
    chosen = known_doors() if doors is None else doors
    with opening.model(bundle) as model:
        same = msgspec.structs.replace(
            opening, engine=model.engine.name, precision=str(model.engine.precision), threads=model.engine.threads
        )
        with same.session(model) as session:
            reports = tuple(_report(door, bundle, same, session, cases, on_progress) for door in chosen)
        return ConformanceReport(bundle.reference, model.engine, reports)


def _cases(bundle: Bundle) -> Iterator[tuple[UInt8Array, tuple[Click, ...]]]:
    """Yield the golden pictures with their clicks, all on one object.

    Raises:
        DoorError: The bundle takes no picture alone.
    """
    manifest = bundle.manifest
    golden = load_golden(bundle.file(GOLDEN_NAME))
    if manifest.click_only or manifest.required or any(case.features for case in golden):
        raise DoorError(
            f"{bundle.reference} takes {' and '.join(manifest.required) or 'features'} beside or in place of a picture",
            expected="a bundle that takes a picture alone, as annotation tools send one",
            fix="compare the doors of such a bundle",
        )
    for case in golden:
        yield case.image, tuple(Click(x, y, positive > 0.5) for x, y, positive in case.clicks.tolist())


def _report(
    door: Door,
    bundle: Bundle,
    opening: Opening,
    session: Session,
    cases: Sequence[tuple[UInt8Array, tuple[Click, ...]]],
    on_progress: OnProgress | None,
) -> DoorReport:
    missing = door.missing()
    if missing is not None:
        return DoorReport(door.name, door.title, missing=missing)
    total = sum(len(clicks) for _, clicks in cases)
    found: list[DoorClick] = []

    def show() -> None:
        if on_progress is not None:
            on_progress(Progress(f"clicks through {door.title}", len(found), total, finished=len(found) == total))

    try:
        show()
        with closing(door.open(bundle, opening)) as opened:
            for number, (image, clicks) in enumerate(cases):
                for one in _clicked(opened, session, number, image, clicks):
                    found.append(one)
                    show()
    except MMMSDeployError as error:
        return DoorReport(door.name, door.title, tuple(found), error=error)
    return DoorReport(door.name, door.title, tuple(found))


def _clicked(
    door: OpenDoor, session: Session, case: int, image: UInt8Array, clicks: Sequence[Click]
) -> Iterator[DoorClick]:
    door.set_image(image)
    session.set_image(image)
    for number, one in enumerate(clicks):
        begin = perf_counter()
        reference = session.click(one.x, one.y, one.positive).mask
        between = perf_counter()
        mask = door.mask(clicks[: number + 1])
        end = perf_counter()
        same = mask.shape == reference.shape
        yield DoorClick(
            case=case,
            click=number,
            equal=same and bool(np.array_equal(mask, reference)),
            iou=iou(mask, reference) if same else 0.0,
            milliseconds=1e3 * (end - between),
            session_milliseconds=1e3 * (between - begin),
        )
