"""What the papers published about the evaluated network, beside what was counted here; marked as theirs."""

from __future__ import annotations

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.results import DatasetFacts, RunFacts
from mmms_deploy.evaluation.settings import Protocol
from mmms_deploy.evaluation.summary import DatasetSummary
from mmms_deploy.reporting.published import MILLISECONDS, PARAMETERS, THEIRS, PublishedFigure, figures_of

HEADS = ("measure", "here", THEIRS, "trained on", "source")
"""Headings of :func:`published_rows`."""


_TASK = ("NCI", "NFO", "NFI")
"""Measures of the multi-instance task."""


class PublishedRow(Struct, frozen=True, kw_only=True):
    """One published figure beside ours.

    Attributes:
        measure: What it is.
        here: Ours, as text; a dash where it was not counted.
        theirs: The paper's, as text.
        trained_on: The data that their weights were trained on.
        source: The paper.
    """

    measure: str
    here: str
    theirs: str
    trained_on: str
    source: str

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """The row under :data:`HEADS`."""
        return self.measure, self.here, self.theirs, self.trained_on or "-", self.source


def published_rows(facts: RunFacts, summary: DatasetSummary) -> tuple[PublishedRow, ...]:
    """Return what papers published about the evaluated network on a data set; nothing where no paper has it.

    Args:
        facts: What was evaluated.
        summary: The measures of the data set.
    """
    network = facts.predictor.network
    counted = figures_of(network, kind_of(_dataset(facts, summary)))
    if not network or not counted:
        return ()
    return tuple(
        PublishedRow(
            measure=figure.measure,
            here=_ours(figure, facts, summary),
            theirs=f"{figure.value:g}" + (f" ({figure.hardware})" if figure.hardware else ""),
            trained_on=figure.trained_on,
            source=figure.source,
        )
        for figure in (*counted, *figures_of(network, ""))
        if figure.measure.startswith(("No", *_TASK)) or figure.measure in (MILLISECONDS, PARAMETERS)
    )


def published_heading(facts: RunFacts, summary: DatasetSummary) -> str:
    """Return the heading of these rows."""
    return f"{summary.name}: what papers published about {facts.predictor.network}"


def differences(facts: RunFacts, summary: DatasetSummary) -> str:
    """Return in a line whose figures these are, and how ours were counted otherwise."""
    dataset, settings = _dataset(facts, summary), facts.settings
    known = [
        "" if settings.protocol is Protocol.PUBLISHED else "not by --protocol published",
        "" if summary.scenes >= dataset.scenes else f"on {summary.scenes:,} of {dataset.scenes:,} images",
        "" if settings.max_clicks == 20 else f"with {settings.max_clicks} clicks at most",
        "" if facts.predictor.trained else "with random weights",
    ]
    ours = ", ".join(one for one in known if one)
    theirs = "Theirs are others' figures, with their weights and on their machines"
    return f"{theirs}; ours were counted {ours}." if ours else f"{theirs}."


def kind_of(dataset: DatasetFacts) -> str:
    """Return the kind of a data set, for which the table of published figures has a name."""
    return dataset.argument.partition("=")[0] or dataset.name


def _dataset(facts: RunFacts, summary: DatasetSummary) -> DatasetFacts:
    return next(dataset for dataset in facts.datasets if dataset.name == summary.name)


def _ours(figure: PublishedFigure, facts: RunFacts, summary: DatasetSummary) -> str:
    if figure.measure == PARAMETERS:
        return f"{facts.predictor.parameters / 1e6:.4g}"
    if figure.measure == MILLISECONDS:
        return f"{1e3 * summary.time.click:.3g} (this machine)"
    name, _, percent = figure.measure.partition("@")
    if name in _TASK:
        task = next((one for one in summary.multi_instance if abs(100 * one.target - float(percent)) < 1e-6), None)
        return "-" if task is None else {"NCI": f"{task.nci:.2f}", "NFO": f"{task.nfo}", "NFI": f"{task.nfi}"}[name]
    target = next((one for one in summary.targets if abs(100 * one.target - float(percent)) < 1e-6), None)
    if target is None:
        return "-"
    return f"{target.noc:.2f}" if name == "NoC" else f"{target.at_limit}"
