"""What a browser has to know of a bundle to run its click stage, and whether it can.

The browser runs the float32 graph of the click stage. It keeps the state of every object in the runtime, resizes
answers, and keeps histories: what a :class:`~mmms_deploy.session.Session` does, for networks whose click stage needs
nothing between two clicks but its own state. The others run on the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from mmms_deploy.bundle import Bundle, Precision, Rate, Role, StageGraph, StateLink, TensorSpec
from mmms_deploy.bundle.contract import ClickContract, ClickMemory
from mmms_deploy.bundle.manifest import Stage
from mmms_deploy.bundle.names import LABELS
from mmms_deploy.version import __version__

FORMAT_VERSION = 1
"""Version of the description."""
MOST_BYTES = 1 << 30
"""The largest click stage that a browser is given: WebAssembly addresses 4 GB, and needs its weights several times."""
_FEATURES = (Role.FEATURE, Role.IMAGE, Role.MODALITY)
_NUMBERS = ("float32", "uint8")


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the click stage: its name in the bundle, and its bytes."""

    name: str
    size: int


class ClickTensorNames(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of the click stage that are fed and read at a click.

    Attributes:
        click: The input that takes the newest click, (1, 4).
        answer: The output that is the answer, (1, 1, h, w).
        previous: The input that takes a mask that is put in: the previous mask, or its labels; None where the network
            takes none.
        candidates: All answers (1, K, h, w), their scores (1, K), and which one was taken (1, 1); None where there is
            one.
    """

    click: str
    answer: str
    previous: str | None = None
    candidates: tuple[str, str, str] | None = None


class BrowserClicks(msgspec.Struct, frozen=True, kw_only=True):
    """The click stage, for JavaScript.

    Attributes:
        size: (H, W) of the network.
        answer_size: (h, w) of its answer.
        contract: How clicks are encoded and answers are read.
        inputs: Inputs, in graph order.
        outputs: Outputs, in graph order.
        features: The inputs that the image's features fill.
        state: Which outputs are its inputs at the next click, and what these begin with.
        tensors: What is fed and read at a click.
        graph: The float32 graph.
        data: The files that hold its weights; empty where they are in the graph's own file.
        history_limit: How many interactions with an object can be undone.
    """

    size: tuple[int, int]
    answer_size: tuple[int, int]
    contract: ClickContract
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    features: tuple[str, ...]
    state: tuple[StateLink, ...]
    tensors: ClickTensorNames
    graph: ModelFile
    data: tuple[ModelFile, ...] = ()
    history_limit: int | None = 100


class BrowserModel(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the click stage of a bundle runs in a browser.

    ``msgspec.json.encode`` and :meth:`to_json` write it.

    Attributes:
        version: Version of this description.
        name: Name of the bundle.
        package: Version of mmms-deploy.
        available: Whether it does.
        why: A sentence that says why it does not; empty when it does.
        clicks: The click stage; None when it does not.
    """

    name: str
    version: int = FORMAT_VERSION
    package: str = __version__
    available: bool = False
    why: str = ""
    clicks: BrowserClicks | None = None

    def to_json(self) -> dict[str, object]:
        """Return it as dicts, lists, numbers and texts."""
        plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(self), type=dict)
        return plain

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """The files of the click stage that a browser fetches; none when it does not run there."""
        return () if self.clicks is None else (self.clicks.graph, *self.clicks.data)


def browser_model(bundle: Bundle, *, history_limit: int | None = 100) -> BrowserModel:
    """Return whether a bundle's click stage runs in a browser, and all that JavaScript needs to run it.

    Args:
        bundle: The bundle.
        history_limit: How many interactions with an object can be undone there; None for all of them.
    """
    name = bundle.manifest.name
    why = next(_obstacles(bundle), None)
    if why is not None:
        return BrowserModel(name=name, why=why)
    graph = _click_graph(bundle)
    rule, state = bundle.manifest.clicks, bundle.manifest.state
    outputs = {spec.role: spec.name for spec in graph.outputs}
    answer = outputs[_answer_role(rule)]
    several = (Role.CANDIDATES, Role.SCORES, Role.TAKEN)
    fed = next((link.input for link in state if link.output == answer), None)
    clicks = BrowserClicks(
        size=bundle.manifest.size,
        answer_size=rule.answer_size(bundle.manifest.size),
        contract=rule,
        inputs=graph.inputs,
        outputs=graph.outputs,
        features=tuple(spec.name for spec in feature_specs(bundle)),
        state=state,
        tensors=ClickTensorNames(
            click=next(spec.name for spec in graph.inputs if spec.role is Role.CLICK),
            answer=answer,
            previous=LABELS if rule.memory is ClickMemory.LABELS else fed,
            candidates=None
            if rule.candidates == 1
            else (outputs[several[0]], outputs[several[1]], outputs[several[2]]),
        ),
        graph=_file(bundle, graph.file),
        data=tuple(_file(bundle, file) for file in bundle.files_of(graph)[1:]),
        history_limit=history_limit,
    )
    return BrowserModel(name=name, available=True, clicks=clicks)


def feature_specs(bundle: Bundle) -> tuple[TensorSpec, ...]:
    """Return what the click stage of a bundle takes and no click changes, in graph order."""
    return tuple(spec for spec in _click_graph(bundle).inputs if spec.role in _FEATURES)


def _click_stages(bundle: Bundle) -> list[Stage]:
    # A browser clicks on one object at a time.
    return [stage for stage in bundle.manifest.stages if stage.rate is Rate.CLICK and not stage.batch]


def _click_graph(bundle: Bundle) -> StageGraph:
    return _click_stages(bundle)[-1].graphs[Precision.FP32]


def _answer_role(rule: ClickContract) -> Role:
    return Role(str(rule.answer_form))


def _file(bundle: Bundle, name: str) -> ModelFile:
    return ModelFile(name=name, size=bundle.manifest.files[name].size)


def _obstacles(bundle: Bundle) -> Iterator[str]:
    """Yield the reasons for which a click stage does not run in a browser, most telling first."""
    name, rule, state = bundle.manifest.name, bundle.manifest.clicks, bundle.manifest.state
    server = "so its clicks run on the server"
    if rule.listed is not None:
        yield f"{name} takes all clicks as a list at every click, {server}"
        return
    if rule.modulation is not None:
        yield f"{name} changes its previous mask around every click outside of its graph, {server}"
    if rule.first_pass:
        yield f"{name} answers a first click twice, {server}"
    stages = _click_stages(bundle)
    if len(stages) != 1 or Precision.FP32 not in stages[0].graphs:
        yield f"{name} has no click stage of one graph in float32, {server}"
        return
    graph = stages[0].graphs[Precision.FP32]
    odd = [spec.name for spec in (*graph.inputs, *graph.outputs) if spec.dtype not in _NUMBERS]
    if odd:
        yield f"{name} has {odd[0]} in a type that browsers do not know, {server}"
    known = {link.input for link in state}
    foreign = [s.name for s in graph.inputs if s.role not in (*_FEATURES, Role.CLICK) and s.name not in known]
    if foreign:
        yield f"{name} wants {', '.join(foreign)} at a click, {server}"
    made = {spec.name for spec in graph.outputs}
    if [spec.shape for spec in graph.inputs if spec.role is Role.CLICK] != [(1, 4)] or not all(
        link.output in made for link in state
    ):
        yield f"{name} has a click stage that keeps its state elsewhere, {server}"
    if sum(math.prod(spec.shape) for spec in graph.inputs if spec.role in _FEATURES) * 2 > MOST_BYTES:
        yield f"{name} has features of more than {MOST_BYTES >> 20} MB, {server}"
    held = sum(bundle.manifest.files[file].size for file in bundle.files_of(graph))
    if held > MOST_BYTES:
        yield f"{name} has a click stage of {held >> 20} MB; a browser is given at most {MOST_BYTES >> 20}, {server}"
