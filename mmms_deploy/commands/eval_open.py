"""``mmms-eval``: opening the bundle that is evaluated, and what it is compared with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmms_deploy.commands.click_bundles import check_encodes
from mmms_deploy.commands.common import warn
from mmms_deploy.commands.display import progress_bars
from mmms_deploy.commands.fetching import lasting_name
from mmms_deploy.installed import pip_install

if TYPE_CHECKING:
    from mmms_deploy.bundle import Manifest
    from mmms_deploy.bundle.contract import ModalitySpec
    from mmms_deploy.engines.request import EngineRequest
    from mmms_deploy.evaluation.answering import Answering, Choose
    from mmms_deploy.evaluation.datasets.argument import DatasetArgument
    from mmms_deploy.evaluation.run import Contestant, Entry
    from mmms_deploy.evaluation.settings import Protocol

_MOST_NAMES = 3
TORCH = "torch:"
"""Prefix of --against for a checkpoint in PyTorch."""


class Opened(NamedTuple):
    """One side, opened.

    Attributes:
        contestant: What is evaluated.
        modalities: Those that it takes.
        manifest: The manifest of a bundle; None for a checkpoint in PyTorch.
    """

    contestant: Contestant
    modalities: Sequence[ModalitySpec]
    manifest: Manifest | None = None


class Sides:
    """What is evaluated, and what it is compared with."""

    def __init__(self, first: Opened, second: Opened | None) -> None:
        self.first, self.second = first.contestant, None if second is None else second.contestant
        self._sides = [first] if second is None else [first, second]
        self.notes: list[str] = []

    def entry(self, argument: str, dataset: Any, without: tuple[str, ...]) -> Entry:
        """Choose the modalities that each side is shown, with a warning for those that are ignored."""
        from mmms_deploy.evaluation.modalities import choose_modalities
        from mmms_deploy.evaluation.run import Entry

        choices = [
            choose_modalities(one.modalities, one.contestant.facts.source, dataset, without) for one in self._sides
        ]
        ignored = [name for name in choices[0].ignored if name not in without]
        if ignored:
            note = f"{', '.join(ignored)} of {dataset.name} is ignored: {self.first.facts.name} does not take it"
            warn(note)
            self.notes.append(note)
        second = choices[1].used if len(choices) > 1 else None
        return Entry(dataset, choices[0].used, second, argument)

    def note_sizes(self, datasets: Iterable[tuple[DatasetArgument, Any]]) -> None:
        """Warn of data sets on which the published figures have another network size."""
        from mmms_deploy.evaluation.answering import other_size

        for argument, dataset in datasets:
            for one in self._sides:
                note = None if one.manifest is None else other_size(one.manifest, argument.kind, dataset.name)
                if note is not None:
                    warn(note)
                    self.notes.append(note)


@dataclass(frozen=True)
class Opening:
    """What an evaluation opens: here, and in every worker of a cluster.

    Attributes:
        bundle: The bundle that is evaluated.
        against: What it is compared with; None for nothing.
        request: Which engine executes the bundle.
        against_request: Which engine executes the other one.
        arguments: The data sets.
        without: Modalities that are left out.
        published: Whether as the family's published figures were counted.
        zoom: Whether clicks are answered in the object's crop; None leaves it to the protocol.
        flip: Whether answers are means with those to mirror images; None leaves it to the protocol.
        threshold: Probability above which a pixel belongs to the mask; None takes the bundle's.
        choose: Which of several answers is taken.
        clicks: The most clicks on an object.
    """

    bundle: str
    against: str | None
    request: EngineRequest
    against_request: EngineRequest
    arguments: tuple[DatasetArgument, ...]
    without: tuple[str, ...]
    published: bool
    zoom: bool | None
    flip: bool | None
    threshold: float | None
    choose: Choose
    clicks: int

    def open(self, stack: ExitStack) -> Sides:
        """Open both sides.

        Args:
            stack: Closes the engines when it is closed.
        """
        return open_sides(
            stack,
            self.bundle,
            self.against,
            self.request,
            self.against_request,
            self._answering,
            self._answering_against,
            self.without,
        )

    def entries(self, sides: Sides, datasets: Sequence[Any]) -> list[Entry]:
        """Return the data sets with the modalities that each side is shown.

        Args:
            sides: Both sides.
            datasets: The data sets, opened, in the order of their arguments.
        """
        pairs = zip(map(str, self.arguments), datasets, strict=True)
        return [sides.entry(argument, dataset, self.without) for argument, dataset in pairs]

    def _answering(self, manifest: Manifest) -> Answering:
        return self._made(manifest, self.choose)

    def _answering_against(self, manifest: Manifest) -> Answering:
        from mmms_deploy.evaluation.answering import Choose

        return self._made(manifest, self.choose if manifest.clicks.candidates > 1 else Choose.SCORE)

    def _made(self, manifest: Manifest, choose: Choose) -> Answering:
        from mmms_deploy.evaluation.answering import answering

        return answering(
            manifest,
            published=self.published,
            zoom=self.zoom,
            flip=self.flip,
            threshold=self.threshold,
            choose=choose,
            clicks=self.clicks,
        )


def results_folder(
    bundle: str, datasets: Sequence[DatasetArgument], protocol: Protocol, chosen: Mapping[str, str]
) -> Path:
    """Return the folder of the results when none was named: the same for the same bundle, data, options and protocol.

    Data sets at two places have two folders, though their scenes may have the same names. So have two precisions, or a
    comparison and the evaluation of one bundle alone.

    Args:
        bundle: Name of the bundle.
        datasets: The data sets.
        protocol: When clicking ends. Every one but the default is a part of the name.
        chosen: Other options by which results differ, where they were given, by name.
    """
    from mmms_deploy.evaluation.settings import Protocol

    places = sorted((one.kind, str(one.path.resolve()), sorted(one.options.items())) for one in datasets)
    told_apart: object = [places, sorted(chosen.items())] if chosen else places
    digest = hashlib.sha256(json.dumps(told_apart).encode()).hexdigest()[:6]
    names = sorted(one.options.get("name", one.kind) for one in datasets)
    label = "+".join(names) if len(names) <= _MOST_NAMES else f"{names[0]}+{len(names) - 1}-more"
    how = "" if protocol is Protocol.CURVE else f"-{protocol}"
    return Path("evaluations") / _plain(bundle) / f"{_plain(label)}-{digest}{how}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")[:80] or "_"


def open_sides(
    stack: ExitStack,
    bundle: str,
    against: str | None,
    request: EngineRequest,
    against_request: EngineRequest,
    how: Callable[[Manifest], Answering],
    against_how: Callable[[Manifest], Answering],
    without: tuple[str, ...],
) -> Sides:
    """Open both sides.

    Args:
        stack: Closes the engines when it is closed.
        bundle: The bundle that is evaluated.
        against: What it is compared with; None for nothing.
        request: Which engine executes the bundle.
        against_request: Which engine executes the other one.
        how: Returns how the bundle's answers are made.
        against_how: Returns how those of the other one are made.
        without: Modalities that are left out.
    """
    first = open_contestant(stack, bundle, request, how, without)
    if not first.contestant.facts.trained:
        warn("the weights of this bundle are random: its measures mean nothing")
    second = (
        None
        if against is None
        else open_contestant(stack, against, against_request, against_how, without, first.manifest)
    )
    return Sides(first, second)


def open_contestant(
    stack: ExitStack,
    source: str,
    request: EngineRequest,
    how: Callable[[Manifest], Answering],
    without: tuple[str, ...],
    beside: Manifest | None = None,
) -> Opened:
    """Open a bundle, or a checkpoint in PyTorch, with a progress bar.

    Args:
        stack: Closes the engine when it is closed.
        source: A bundle, or ``torch:`` and a checkpoint.
        request: Which engine executes a bundle.
        how: Returns how a bundle's answers are made.
        without: Modalities that are left out.
        beside: The manifest of the bundle that it is compared with; None for none.
    """
    left_out = ", ".join(without) or None
    if source.startswith(TORCH):
        with progress_bars(f"opening {source}"):
            return _open_torch(source, {"without": left_out}, beside)
    from mmms_deploy.bundle import Bundle
    from mmms_deploy.evaluation.bundles import BundleSource
    from mmms_deploy.evaluation.results import PredictorFacts
    from mmms_deploy.evaluation.run import Contestant
    from mmms_deploy.reporting.published import published_network

    with progress_bars(f"opening {source}") as on_progress:
        bundle = Bundle(source)
        check_encodes(bundle, "evaluate the whole bundle: a click bundle answers as it does, to the bit")
        made = how(bundle.manifest)
        opened = BundleSource(
            bundle,
            request,
            flip=made.flip,
            threshold=made.threshold,
            zoom=made.zoom,
            choose=made.choose,
            on_progress=on_progress,
        )
    stack.callback(opened.close)
    manifest, info = opened.bundle.manifest, opened.info
    facts = PredictorFacts(
        name=manifest.name,
        source=lasting_name(opened.bundle),
        identity=manifest.digest,
        engine=str(info),
        options={
            **made.options(),
            "without": left_out,
            "engine": info.name,
            "device": info.device,
            "precision": str(info.precision),
            "threads": None if info.threads is None else str(info.threads),
        },
        trained=manifest.trained,
        network=published_network(manifest.provenance.description) or "",
        parameters=manifest.provenance.parameters,
    )
    return Opened(Contestant(opened.open, facts), manifest.modalities, manifest)


def _open_torch(source: str, options: Mapping[str, str | None], beside: Manifest | None) -> Opened:
    """Open a checkpoint in PyTorch, to be compared with a bundle; name the extra when its packages are missing."""
    from mmms_deploy.evaluation.checkpoint_predictor import open_torch

    try:
        return Opened(*open_torch(source.removeprefix(TORCH), options, beside))
    except ImportError as error:
        from mmms_deploy.errors import ExportError

        raise ExportError(
            f"comparing with PyTorch needs a package that is not installed: {error.name or error}",
            expected="the [export] extra",
            fix=pip_install("export,cpu"),
        ) from error
