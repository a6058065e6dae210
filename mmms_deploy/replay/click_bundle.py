"""Making a click bundle: the click stage alone, for an annotation service (paper, appendix B).

The one who keeps the whole bundle, and with it the backbone and the data of the sensors, encodes images; the service
clicks on what comes out. A click bundle can be replayed like any other: its golden clicks start on features.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mmms_deploy.bundle import GOLDEN_NAME, Bundle, BundleWriter, Manifest, Precision
from mmms_deploy.bundle.click_stages import check_separable, checked_precisions, click_manifest, copy_click_graphs
from mmms_deploy.engines.protocol import Engine
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_request
from mmms_deploy.errors import BundleCorruptError, SessionError
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.replay.golden import GoldenCase, load_golden, save_golden
from mmms_deploy.replay.starting import set_golden
from mmms_deploy.replay.verification import verify
from mmms_deploy.session import Session

SUFFIX = "-clicks"
"""How the name of a click bundle ends, after that of the bundle it was made of."""


def write_click_bundle(
    bundle: Bundle | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precisions: Iterable[Precision | str] | None = None,
    overwrite: bool = False,
    request: EngineRequest | None = None,
    on_progress: OnProgress | None = None,
) -> Bundle:
    """Write a bundle that holds the stages at clicks alone, and replay its golden clicks before it is kept.

    Nothing of the stages before the clicks is in it: no graph, no weight, no way in which modalities are prepared. Its
    golden clicks start on features, computed here. Of the golden pictures it has the sizes, and no pixel.

    Args:
        bundle: The whole bundle, or what names it.
        out: The new bundle's folder.
        precisions: Precisions of its graphs; None takes all in which the bundle has its stages at clicks.
        overwrite: Whether an older bundle in that folder may be replaced, once the new one is complete.
        request: Which engine computes the golden features, and replays; None leaves the choice open, in the most exact
            precision that the bundle has.
        on_progress: Receives every golden picture and click as a step.

    Returns:
        The click bundle.

    Raises:
        BundleError: There is no usable bundle, it lacks a precision, or its stages cannot be separated: it is a click
            bundle already, runs at every click as a whole, is fused early, or reads a modality at clicks.
        VerificationError: The click bundle answers otherwise than the checkpoint did; nothing is kept.
        EngineError: There is no usable engine.
        OutputExistsError: The folder exists, and may not be replaced.
        OutputWriteError: It cannot be written.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    check_separable(bundle.manifest)
    taken = checked_precisions(bundle.manifest, precisions)
    request = request or EngineRequest()
    with BundleWriter(Path(out), overwrite=overwrite) as writer:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = click_manifest(bundle.manifest, bundle.manifest.name + SUFFIX, taken, created)
        copy_click_graphs(bundle, manifest, writer)
        cases = load_golden(bundle.file(GOLDEN_NAME))
        encoding = replace(request, precision=str(_exact(bundle.manifest)))
        with closing(open_request(bundle, encoding, on_progress)) as engine:
            save_golden(writer.path(GOLDEN_NAME), _on_features(bundle, engine, cases, on_progress))
        sealed = writer.seal(manifest)
        verify(sealed, replace(request, precision=str(_exact(manifest))), on_progress=on_progress)
        return writer.commit(manifest)


def _exact(manifest: Manifest) -> Precision:
    """Return the most exact precision that a bundle has."""
    return manifest.precisions[0]


def _on_features(
    bundle: Bundle, engine: Engine, cases: list[GoldenCase], on_progress: OnProgress | None
) -> list[GoldenCase]:
    """Return golden cases that start on features, without pixels and modalities."""
    converted = []
    with Session(bundle, engine=engine, history_limit=0, keep_image=False) as session:
        for number, case in enumerate(cases, start=1):
            try:
                set_golden(session, case)
            except SessionError as error:
                raise BundleCorruptError(
                    f"golden image {number} of {bundle.reference} does not fit its bundle: {error.given}",
                    expected=error.expected,
                    fix="export the checkpoint again",
                ) from error
            kept = session.features.for_clicks(bundle.manifest)
            given = {name: kept.arrays[kept.aliases.get(name, name)] for name in (*kept.arrays, *kept.aliases)}
            converted.append(replace(case, image=np.zeros_like(case.image), modalities={}, features=given))
            if on_progress is not None:
                on_progress(Progress("golden pictures", number, len(cases), finished=number == len(cases)))
    return converted
