"""The gate by clicks: a bundle must need as many clicks as its checkpoint does in PyTorch, in every precision.

Differences of tensors and masks within their limits can still add up over a closed loop of clicks, and what counts in
the end is how often an annotator has to click. This gate is slow, because PyTorch clicks through every object too. So
it runs only on request.

Float32 is compared with PyTorch, and agrees almost to the pixel: a few objects are enough. A reduced precision is
compared with float32 on the same engine. Its masks differ a little, an object may need more clicks and the next one
fewer, and only the mean over many objects tells whether something is lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING

from mmms_deploy.bundle import Bundle, GateCheck, Precision
from mmms_deploy.engines.registry import BACKENDS, Backend
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import candidates
from mmms_deploy.errors import EngineUnavailableError, GateError, MMMSDeployWarning
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.checkpoint_predictor import torch_predictor
from mmms_deploy.evaluation.comparison import CONFIDENCE, Comparison, Pairs
from mmms_deploy.evaluation.modalities import choose_modalities
from mmms_deploy.evaluation.report.text import percent
from mmms_deploy.evaluation.results import PredictorFacts
from mmms_deploy.evaluation.run import Contestant, Entry, choose_scenes, countable, evaluate
from mmms_deploy.evaluation.scene import Dataset
from mmms_deploy.evaluation.settings import Protocol, Settings
from mmms_deploy.evaluation.summary import DatasetSummary, summarise_run
from mmms_deploy.progress import OnProgress, Progress

if TYPE_CHECKING:
    from mmms_deploy.models.network import InteractiveNetwork

NOC_LIMIT = 0.1
"""Clicks by which the mean NoC may differ, in either direction."""
AGREEMENT_LIMIT = 0.01
"""One minus the mean IoU of a bundle's mask and PyTorch's after the same clicks."""
AGREEMENT_LIMITS: Mapping[str, float] = MappingProxyType({"fp16": 0.01, "bf16": 0.03, "int8": 0.03})
"""The same of a reduced precision and float32, by precision.

Which layers of graphs in 8 bits stay in float32 is chosen by the masks of the golden pictures. On other pictures masks
differ more (docs/precision.md has figures), and the number of clicks decides.
"""
LEAST_OBJECTS = 200
"""Objects on which a reduced precision is compared, at least, in all data sets together."""
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
    entries = _entries(bundle, datasets)
    source = BundleSource(bundle, request or EngineRequest(device="cpu", engine="onnxruntime", strict=True))
    checks: list[GateCheck] = []
    try:
        ours = Contestant(source.open, PredictorFacts(name=bundle.manifest.name))
        reference = Contestant(lambda: torch_predictor(network), PredictorFacts(name="PyTorch"))
        for number, entry in enumerate(entries):
            if on_progress is not None:
                on_progress(Progress(f"gate: clicks on {entry.dataset.name}, beside PyTorch", number, len(entries)))
            every = _every(entry.dataset, scenes)
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
    return _passed(checks, _FIX)


def _passed(checks: list[GateCheck], fix: str, command_fix: str | None = None) -> list[GateCheck]:
    """Return checks that keep their limits, or raise."""
    for check in checks:
        if not check.worst <= check.limit:
            raise GateError(
                f"{check.name}: {check.measure} is {check.worst:.3g} at {check.where}",
                expected=f"at most {check.limit:g}",
                fix=fix,
                command_fix=command_fix,
            )
    return checks


def _entries(bundle: Bundle, datasets: Sequence[Dataset]) -> list[Entry]:
    """Return the data sets, each with the modalities that the bundle takes."""
    specs, name = bundle.manifest.modalities, bundle.manifest.name
    shown = [choose_modalities(specs, name, dataset).used for dataset in datasets]
    return [Entry(dataset, used, used) for dataset, used in zip(datasets, shown, strict=True)]


def _every(dataset: Dataset, scenes: int | None) -> int:
    """Return the step by which so many scenes are spread over a data set."""
    return 1 if scenes is None else max(1, len(dataset) // scenes)


# --- reduced precisions -----------------------------------------------------------------------------------------------


def gated_precisions(precisions: Collection[Precision]) -> list[Precision]:
    """Return the reduced precisions among these whose own graphs an engine on a CPU executes.

    OpenVINO computes BF16 from float32 graphs: that judges this machine, and ``mmms-verify --all-engines`` does it, but
    not the graphs of an export. Whether a CPU has the instructions shows when the engine is opened.

    Args:
        precisions: Precisions of a bundle.
    """
    executed = {p for backend in BACKENDS if backend.device == "cpu" for p in backend.computes if _own(backend, p)}
    return [p for p in Precision if p is not Precision.FP32 and p in precisions and p in executed]


def _own(backend: Backend, precision: Precision) -> bool:
    """Whether an engine loads the graphs of a precision for it, and not others."""
    return backend.computes[precision] is precision


def check_objects(datasets: Sequence[Dataset], scenes: int | None = SCENES, least: int = LEAST_OBJECTS) -> None:
    """Check that data sets have enough objects to compare a reduced precision on; reads images until they do.

    Args:
        datasets: The data sets.
        scenes: Images of each, spread evenly over it; None for all.
        least: The least number of objects, in all of them together.

    Raises:
        GateError: They have fewer.
        EvaluationSettingsError: Two data sets have the same name, or one is empty.
        DatasetError: A scene cannot be read.
    """
    objects = images = 0
    choose_scenes([Entry(dataset) for dataset in datasets])
    for dataset in datasets:
        for _, index in choose_scenes([Entry(dataset)], scenes, _every(dataset, scenes)):
            objects += len(countable(dataset[index])[0])
            images += 1
            if objects >= least:
                return
    raise GateError(
        f"the gate by clicks has {objects} objects in {images} images to compare a reduced precision on",
        expected=f"{least} objects or more, in all data sets together",
        fix='add data sets, such as open_dataset("drawn", "200"), or raise scenes, the images of each',
        command_fix="add data sets or raise --gate-images, such as --gate-data drawn=200 --gate-images 200",
    )


def precision_gate(
    bundle: Bundle,
    datasets: Sequence[Dataset],
    *,
    scenes: int | None = SCENES,
    noc_limit: float = NOC_LIMIT,
    agreement_limits: Mapping[str, float] = AGREEMENT_LIMITS,
    least: int = LEAST_OBJECTS,
    on_progress: OnProgress | None = None,
) -> list[GateCheck]:
    """Click through data sets with a bundle in each reduced precision and in float32, on the same engine of the CPU.

    A precision passes when, over all objects together,

    - at every target the 95 % interval of the difference of the mean NoC contains 0, or the difference is at most
      ``noc_limit``, in either direction, and
    - the mean IoU of the two masks after the same clicks (:attr:`Comparison.mean_agreement`) is at least one minus its
      limit.

    Args:
        bundle: The bundle; it may still lie in its temporary folder.
        datasets: The data sets, with the modalities that the network needs.
        scenes: Images of each, spread evenly over it; None for all.
        noc_limit: Clicks by which the mean NoC at 80, 85 and 90 % may differ where the interval leaves out 0.
        agreement_limits: Largest allowed value of one minus the mean IoU, by precision; :data:`AGREEMENT_LIMIT` for one
            that is not among them.
        least: The least number of objects, in all data sets together.
        on_progress: Receives a step before each data set of each precision.

    Returns:
        Two checks for each reduced precision of the bundle whose graphs this machine's CPU executes, for the manifest.

    Raises:
        GateError: A limit is exceeded, or there are too few objects.
        EvaluationModalityError: A data set does not have the modalities that the network needs.
        EvaluationSettingsError: Two data sets have the same name, or one is empty.
        DatasetError: A scene cannot be read.

    Warns:
        MMMSDeployWarning: No engine executes the graphs of a precision on this machine's CPU: it is not gated.
    """
    entries = _entries(bundle, datasets)
    gated = gated_precisions(bundle.manifest.precisions)
    if gated:
        check_objects(datasets, scenes, least)
    checks: list[GateCheck] = []
    for precision in (p for p in bundle.manifest.precisions if p is not Precision.FP32):
        with ExitStack() as stack:
            source = _open_reduced(bundle, precision)
            if source is None:
                warnings.warn(
                    f"no engine executes the {precision} graphs on this machine's CPU: their clicks were not counted",
                    MMMSDeployWarning,
                    stacklevel=2,
                )
                continue
            stack.callback(source.close)
            request = EngineRequest(device="cpu", engine=source.info.name, precision=Precision.FP32, strict=True)
            exact = BundleSource(bundle, request)
            stack.callback(exact.close)
            settings = Settings(protocol=Protocol.NOC)
            pairs = Pairs()
            for number, entry in enumerate(entries):
                if on_progress is not None:
                    task = f"gate: clicks in {precision} on {entry.dataset.name}"
                    on_progress(Progress(task, number, len(entries)))
                run = evaluate(
                    [entry],
                    Contestant(source.open, PredictorFacts(name=str(precision))),
                    settings,
                    against=Contestant(exact.open, PredictorFacts(name="fp32")),
                    limit=scenes,
                    every=_every(entry.dataset, scenes),
                )
                for scene in run:
                    pairs.add(scene)
            limit = agreement_limits.get(precision, AGREEMENT_LIMIT)
            where = f"{precision} against fp32 on {source.info.name}"
            checks += _passed(_reduced_checks(pairs.comparison(settings), where, noc_limit, limit), *_advice(precision))
    return checks


def _open_reduced(bundle: Bundle, precision: Precision) -> BundleSource | None:
    """Open a bundle on the first engine of the CPU that executes its graphs of a precision; None where none does."""
    for candidate in _computing(bundle, precision):
        request = EngineRequest(device="cpu", engine=candidate, precision=precision, strict=True)
        try:
            return BundleSource(bundle, request)
        except EngineUnavailableError:
            continue
    return None


def _computing(bundle: Bundle, precision: Precision) -> Iterator[str]:
    for candidate in candidates(bundle, EngineRequest(device="cpu")):
        if candidate.precision is precision and _own(candidate.backend, precision):
            yield candidate.backend.name


def _reduced_checks(comparison: Comparison, name: str, noc_limit: float, agreement_limit: float) -> list[GateCheck]:
    """Return the checks of a reduced precision on all objects.

    Args:
        comparison: The precision with float32.
        name: The two, in words.
        noc_limit: Limit of the difference in clicks.
        agreement_limit: Limit of one minus the mean IoU.
    """
    seen = [one for one in comparison.differences if one.certain]
    shown = max(seen or comparison.differences, key=lambda one: abs(one.difference))
    least = min(range(len(comparison.agreement)), key=lambda k: comparison.agreement[k])
    visible = "" if shown.visible is None else f"; {shown.visible:.3f} would have been seen"
    assert comparison.mean_agreement is not None  # it was just made
    return [
        GateCheck(
            name=f"clicks in {name}",
            measure=f"largest difference of a mean NoC whose {100 * CONFIDENCE:.0f} % interval leaves out 0, in clicks",
            worst=abs(shown.difference) if seen else 0.0,
            limit=noc_limit,
            where=f"NoC@{percent(shown.target)}: {shown.noc:.3f} against {shown.other:.3f}, {shown.difference:+.3f}"
            f" ({shown.low:+.3f} to {shown.high:+.3f}){visible}",
            samples=comparison.objects,
        ),
        GateCheck(
            name=f"masks in {name}",
            measure="1 - mean IoU of the two masks after the same clicks",
            worst=1 - comparison.mean_agreement,
            limit=agreement_limit,
            where=f"all clicks; click {least + 1} has the least mean IoU, {comparison.agreement[least]:.4f}",
            samples=comparison.objects,
        ),
    ]


def _advice(precision: Precision) -> tuple[str, str]:
    """Return what to do when a precision does not pass, in the words of both doors."""
    return (
        f"leave {precision} out of precisions; an export without this gate can be looked at with evaluate(),"
        f" against={Precision.FP32}; nothing was written",
        f"leave {precision} out of --precision; an export without this gate shows which objects differ: mmms-eval"
        f" BUNDLE --precision {precision} --against BUNDLE --against-precision fp32; nothing was written",
    )
