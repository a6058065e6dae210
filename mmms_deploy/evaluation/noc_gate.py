"""The gate by clicks: a bundle must need as many clicks on a data set as its checkpoint does in PyTorch.

Differences of tensors and masks within their limits can still add up over a closed loop of clicks, and what counts in
the end is how often an annotator has to click. This gate is slow, because PyTorch clicks through every object too. So
it runs only on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmms_deploy.bundle import Bundle, GateCheck
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import GateError
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.checkpoint_predictor import torch_predictor
from mmms_deploy.evaluation.modalities import choose_modalities
from mmms_deploy.evaluation.report.text import percent
from mmms_deploy.evaluation.results import PredictorFacts
from mmms_deploy.evaluation.run import Contestant, Entry, evaluate
from mmms_deploy.evaluation.scene import Dataset
from mmms_deploy.evaluation.settings import Protocol, Settings
from mmms_deploy.evaluation.summary import DatasetSummary, summarise_run
from mmms_deploy.progress import OnProgress, Progress

if TYPE_CHECKING:
    from mmms_deploy.models.network import InteractiveNetwork

NOC_LIMIT = 0.1
"""Clicks by which the mean NoC may differ, in either direction."""
AGREEMENT_LIMIT = 0.01
"""One minus the mean IoU of the two masks after the same clicks."""
SCENES = 20
"""Images of each data set by default."""
_FIX = "look at which objects differ with mmms-eval --against torch:CKPT; nothing was written"


def noc_gate(
    bundle: Bundle,
    network: InteractiveNetwork,
    datasets: Sequence[Dataset],
    *,
    scenes: int | None = SCENES,
    noc_limit: float = NOC_LIMIT,
    agreement_limit: float = AGREEMENT_LIMIT,
    request: EngineRequest | None = None,
    on_progress: OnProgress | None = None,
) -> list[GateCheck]:
    """Click through data sets with a bundle and with its checkpoint in PyTorch.

    Args:
        bundle: The bundle; it may still lie in its temporary folder.
        network: The checkpoint's network in the paper's form.
        datasets: The data sets, with the modalities that the network needs.
        scenes: Images of each, spread evenly over it; None for all.
        noc_limit: Clicks by which the mean NoC at 80, 85 and 90 % may differ.
        agreement_limit: Largest allowed value of one minus the mean IoU of the two masks after the same clicks.
        request: Which engine executes the bundle; None for ONNX Runtime on the CPU.
        on_progress: Receives a step before each data set.

    Returns:
        Two checks for each data set, for the manifest.

    Raises:
        GateError: A limit is exceeded.
        EvaluationModalityError: A data set does not have the modalities that the network needs.
        DatasetError: A scene cannot be read.
    """
    settings = Settings(protocol=Protocol.NOC)
    specs = bundle.manifest.modalities
    shown = [choose_modalities(specs, bundle.manifest.name, dataset).used for dataset in datasets]
    source = BundleSource(bundle, request or EngineRequest(device="cpu", engine="onnxruntime", strict=True))
    checks: list[GateCheck] = []
    try:
        ours = Contestant(source.open, PredictorFacts(name=bundle.manifest.name))
        reference = Contestant(lambda: torch_predictor(network), PredictorFacts(name="PyTorch"))
        for number, (dataset, modalities) in enumerate(zip(datasets, shown, strict=True)):
            if on_progress is not None:
                on_progress(Progress(f"gate: clicks on {dataset.name}, beside PyTorch", number, len(datasets)))
            every = 1 if scenes is None else max(1, len(dataset) // scenes)
            entry = Entry(dataset, modalities, modalities)
            run = evaluate([entry], ours, settings, against=reference, limit=scenes, every=every)
            (summary,) = summarise_run(run.facts, run)
            checks += _checked(summary, noc_limit, agreement_limit)
    finally:
        source.close()
    return checks


def _checked(summary: DatasetSummary, noc_limit: float, agreement_limit: float) -> list[GateCheck]:
    comparison = summary.comparison
    if comparison is None:
        raise GateError("an evaluation without PyTorch beside it", expected="both", fix=_FIX)
    worst = max(comparison.differences, key=lambda one: abs(one.difference))
    least = min(range(len(comparison.agreement)), key=lambda k: comparison.agreement[k])
    checks = [
        GateCheck(
            name=f"clicks on {summary.name} against torch",
            measure="largest difference of a mean NoC, in clicks",
            worst=abs(worst.difference),
            limit=noc_limit,
            where=f"NoC@{percent(worst.target)}: {worst.noc:.3f} against {worst.other:.3f}",
            samples=summary.objects,
        ),
        GateCheck(
            name=f"masks on {summary.name} against torch",
            measure="largest 1 - mean IoU of the two masks after the same clicks",
            worst=1 - comparison.agreement[least],
            limit=agreement_limit,
            where=f"click {least + 1}",
            samples=summary.objects,
        ),
    ]
    for check in checks:
        if not check.worst <= check.limit:
            raise GateError(
                f"{check.name}: {check.measure} is {check.worst:.3g} at {check.where}",
                expected=f"at most {check.limit:g}",
                fix=_FIX,
            )
    return checks
