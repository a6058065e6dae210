"""The recurrent form of a network, which is what an export writes, and its ONNX graph.

The networks themselves are in :mod:`mmms_deploy.models`. The recurrent form wraps one of them, in the paper's form or
rewritten, so that a click takes the features, the state before it and the newest click, and returns the next state and
the mask. The graph is exported once, whole; :mod:`mmms_deploy.export.cut` finds its stages.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from mmms_deploy.bundle import Rate, Role, StateLink
from mmms_deploy.bundle.contract import ClickChannel, PreviousMask
from mmms_deploy.bundle.names import (
    CLICK,
    LABELS,
    LABELS_NEXT,
    MAPS,
    MAPS_NEXT,
    MASK,
    MODULATED,
    PRESENT,
    PREV,
    PROB,
    RGB,
)
from mmms_deploy.errors import ExportError
from mmms_deploy.export.cut import Cut
from mmms_deploy.models import InteractiveNetwork
from mmms_deploy.models.frozen_backbone import Shape
from mmms_deploy.models.onnx_backbone import OnnxBackbone

OPSET = 21
"""Native GroupNormalization and Gelu; attention stays decomposed, so that TensorRT fuses it (opset 23 does not)."""

BACKBONE = ("backbone_1", "backbone_2", "backbone_3", "backbone_4")
"""Names of F^(1..4) where they are inputs; an encoder in an ONNX file may give fewer."""
PLAIN = "plain_"
"""Prefix of the features without any modality, where they are outputs."""
STATE = (StateLink(input=MAPS, output=MAPS_NEXT), StateLink(input=PREV, output=PROB))
OUTPUT_ROLES = {MAPS_NEXT: Role.STATE, LABELS_NEXT: Role.STATE, PROB: Role.PROBABILITY, MASK: Role.MASK}
CLICK_ROLES = {
    MAPS: Role.STATE,
    PREV: Role.STATE,
    LABELS: Role.STATE,
    MODULATED: Role.MODULATED,
    CLICK: Role.CLICK,
}


class RecurrentNetwork(nn.Module):
    """A late-fusion network whose inputs are image, modalities, state and click, and whose outputs are state and mask.

    Where all modalities are optional, it also returns the features without them; these replace the fused features when
    the fuser is bypassed. With several modalities of which some are optional, it takes ``present`` (1, M): 1 for each
    modality that is there.

    The state here is disks and a previous mask; :class:`~mmms_deploy.export.labelled.LabelledNetwork` keeps labels.

    Args:
        network: The network, in evaluation mode.
        cuts: Where it is cut, beside the cut where clicks come in.
        state: Element type of ``maps``, ``prev`` and ``prob``.

    Attributes:
        links: Which outputs of the click stage are its inputs at the next click.
    """

    links: tuple[StateLink, ...] = STATE

    def __init__(
        self, network: InteractiveNetwork, cuts: Collection[Cut] = (), state: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.network = network
        self.cuts = frozenset(cuts)
        self.state = state
        modalities = network.config.modalities
        self.names = tuple(modality.name for modality in modalities)
        self.optional = frozenset(modality.name for modality in modalities if modality.optional)
        self.bypassable = bool(self.names) and self.optional == set(self.names)
        self.partial = len(self.names) > 1 and bool(self.optional)
        height, width = network.config.size
        # Squared distances reach 2 * 448**2: float32 in every precision, half overflows and bfloat16 loses pixels.
        self.register_buffer("columns", torch.arange(width, dtype=torch.float32).reshape(1, 1, 1, width))
        self.register_buffer("rows", torch.arange(height, dtype=torch.float32).reshape(1, 1, height, 1))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One click from scratch.

        Args:
            *inputs: In the order of :meth:`input_names`: ``rgb`` (1, 3, H, W) float32, normalised, or the backbone's
                maps (1, C, h, w); the modalities (1, C_m, H, W); ``present`` (1, M); ``maps`` (1, 2, H, W),
                the positive and negative disks so far; ``prev`` (1, 1, H, W), the previous probability;
                ``modulated`` (1, 1, H, W), the same after modulation, where the contract has one; ``click``
                (1, 4): x, y in network pixels, 1 positive / 0 negative, 1 present / 0 none.

        Returns:
            In the order of :meth:`output_names`: the network's features, those without any modality, the next ``maps``,
            ``prob`` (1, 1, H, W), ``mask`` (1, 1, H, W) uint8.
        """
        given = dict(zip(self.input_names(), inputs, strict=True))
        encoded = self.network.encode(given[RGB]) if RGB in given else tuple(given[n] for n in self.image_names())
        modalities = {name: given[name] for name in self.names}
        features = self.network.mix(encoded, modalities, self._present(given.get(PRESENT)))
        plain = self.network.mix(encoded, {}) if self.bypassable else ()
        state = (given[name] for name in self.state_names())
        click = self.click_stage(features, *state, given[CLICK], modulated=given.get(MODULATED))
        return (*self.computed(features), *plain, *click)

    def computed(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the features that have a name; what follows them are the inputs that a click reads, too."""
        return features[: len(self.network.feature_names)]

    def _present(self, flags: Tensor | None) -> dict[str, Tensor]:
        if flags is None:
            return {}
        return {name: flags[0, i] > 0.5 for i, name in enumerate(self.names) if name in self.optional}

    def click_stage(
        self, features: tuple[Tensor, ...], *state_and_click: Tensor, modulated: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Answer one click.

        Args:
            features: The network's features.
            *state_and_click: The state in the order of :meth:`state_names`, and the click.
            modulated: (1, 1, H, W), the previous probability after modulation, where the contract has one.

        Returns:
            The outputs of :meth:`click_names`: the next state, the probability, the mask.
        """
        *state, click = state_and_click
        drawn = self.draw(dict(zip(self.state_names(), state, strict=True)), click, modulated)
        return self.outcome(drawn, self.network.respond(features, self.sees(drawn)))

    def start(self) -> dict[str, Tensor]:
        """Return the state before the first click, by name."""
        height, width = self.network.config.size
        planes = {MAPS: 2, PREV: 1}
        return {name: torch.zeros(1, planes[name], height, width, dtype=self.state) for name in self.state_names()}

    def draw(self, state: Mapping[str, Tensor], click: Tensor, modulated: Tensor | None = None) -> dict[str, Tensor]:
        """Return the state with one more click in it, before the network's answer; by name."""
        drawn = {MAPS: self.add_disk(state[MAPS], click), PREV: state[PREV]}
        return drawn if modulated is None else {**drawn, MODULATED: modulated}

    def sees(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return what the network sees of a state that holds the newest click."""
        return self.interaction(drawn[MAPS], drawn[PREV], drawn.get(MODULATED))

    def outcome(self, drawn: Mapping[str, Tensor], logits: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of :meth:`click_names` from the network's logits (1, 1, H, W)."""
        prob = torch.sigmoid(logits).to(self.state)
        # The number that is compared with the threshold is float32 in every precision; the session receives the same.
        return drawn[MAPS], prob, (prob.float() > self.network.config.clicks.threshold).to(torch.uint8)

    def interaction(self, maps: Tensor, prev: Tensor, modulated: Tensor | None = None) -> Tensor:
        """Return the interaction tensor (1, C, H, W) as the checkpoint wants it.

        Args:
            maps: (1, 2, H, W), the positive and negative disks.
            prev: (1, 1, H, W), the previous probability.
            modulated: (1, 1, H, W), the same after modulation, where the contract has one.
        """
        contract = self.network.config.clicks
        if contract.previous is PreviousMask.MASK:
            prev = (prev.float() > contract.threshold).to(prev.dtype)
        channels = {ClickChannel.POSITIVE: maps[:, :1], ClickChannel.NEGATIVE: maps[:, 1:], ClickChannel.PREVIOUS: prev}
        if modulated is not None:
            channels[ClickChannel.MODULATED] = modulated
        return torch.cat([channels[name] for name in contract.channels], dim=1)

    def add_disk(self, maps: Tensor, click: Tensor) -> Tensor:
        """Draw one click's disk into the two disk maps (paper section III).

        All decisions that depend on the click alone are made on single numbers: the map of the other kind of click gets
        a squared radius that no pixel is within.
        """
        x, y, positive, present = click.reshape(4, 1, 1, 1).unbind(0)
        squared = (self.get_buffer("columns") - x) ** 2 + (self.get_buffer("rows") - y) ** 2
        belongs = torch.cat([positive > 0.5, positive <= 0.5]).reshape(1, 2, 1, 1) & (present > 0.5)
        reach = torch.where(belongs, self.network.config.clicks.radius**2, -1.0)
        return torch.where(squared <= reach, 1.0, maps)

    def image_names(self) -> tuple[str, ...]:
        """Names of the inputs that come from the image."""
        return BACKBONE[: len(self._provided())] if Cut.BLACK_BOX in self.cuts else (RGB,)

    def _provided(self) -> tuple[Shape, ...]:
        """Shapes of the backbone's maps; none where the network has no frozen backbone that a provider could run."""
        return () if self.network.frozen is None else self.network.frozen.map_shapes()

    def input_names(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        modulated = [MODULATED] if self.network.config.clicks.modulation is not None else []
        present = [PRESENT] if self.partial else []
        return [*self.image_names(), *self.names, *present, *self.state_names(), *modulated, CLICK]

    def state_names(self) -> tuple[str, ...]:
        """Names of the inputs that are state, in order."""
        return tuple(link.input for link in self.links)

    def click_names(self) -> tuple[str, ...]:
        """Names of the outputs of the click stage, in order."""
        return (*(link.output for link in self.links if link.output != PROB), PROB, MASK)

    def output_names(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        return [*self.network.feature_names, *self.bypass().values(), *self.click_names()]

    def feature_outputs(self) -> frozenset[str]:
        """Names of the graph's outputs that are features."""
        return frozenset((*self.network.feature_names, *self.bypass().values()))

    def bypass(self) -> dict[str, str]:
        """For each feature, the name of the one without modalities; nothing unless all modalities are optional."""
        return {name: f"{PLAIN}{name}" for name in self.network.feature_names} if self.bypassable else {}

    def rates(self) -> dict[str, Rate]:
        """The rate of each input, which follows from the cuts."""
        fused = Rate.MODALITY if Cut.LATE in self.cuts else Rate.IMAGE
        rates = dict.fromkeys(self.input_names(), Rate.CLICK)
        rates |= dict.fromkeys(self.image_names(), Rate.IMAGE) | dict.fromkeys(self.names, fused)
        return rates | ({PRESENT: fused} if self.partial else {})

    def role(self, name: str) -> Role:
        """The role of an input or output of a stage; a tensor that crosses a cut is a feature."""
        if name == RGB:
            return Role.IMAGE
        if name in self.names or name == PRESENT:
            return Role.MODALITY
        return {**CLICK_ROLES, **OUTPUT_ROLES}.get(name, Role.FEATURE)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the graph's inputs; the state as it starts."""
        (height, width), maps = self.network.config.size, self._provided()
        shapes: dict[str, tuple[int, ...]] = {n: (1, *shape) for n, shape in zip(BACKBONE, maps, strict=False)}
        shapes |= {
            RGB: (1, 3, height, width),
            CLICK: (1, 4),
            PRESENT: (1, len(self.names)),
        }
        shapes |= {modality.name: (1, modality.channels, height, width) for modality in self.network.config.modalities}
        state = self.start()
        if self.network.config.clicks.modulation is not None:
            state[MODULATED] = state[PREV].clone()
        return tuple(state[name] if name in state else torch.zeros(shapes[name]) for name in self.input_names())


def export_whole(network: RecurrentNetwork, opset: int = OPSET) -> ir.Model:
    """Export the whole network as one ONNX graph.

    All shapes are static but those inside of an encoder in an ONNX file, which comes before the rest as it is.

    Args:
        network: The network; its weights are referenced, not copied.
        opset: ONNX opset of the graph.

    Returns:
        The graph, without file names of the machine that made it.

    Raises:
        ExportError: The exporter failed.
    """
    backbone = network.network.frozen
    if isinstance(backbone, OnnxBackbone) and Cut.BLACK_BOX not in network.cuts:
        rest = export_whole(type(network)(network.network, {*network.cuts, Cut.BLACK_BOX}, network.state), opset)
        encoder: Any = backbone.run
        with _quiet():  # the converter of opsets talks, too
            maps = BACKBONE[: len(backbone.outputs)]
            whole: ir.Model = encoder.put_before(rest, maps, network.network.config.size)
        return whole
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network.eval(),
                network.example_inputs(),
                dynamo=True,
                opset_version=opset,
                input_names=network.input_names(),
                output_names=network.output_names(),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(
                f"the network cannot be exported to ONNX: {error}",
                expected=f"a network of operators that ONNX opset {opset} has",
                fix="choose another backbone, or report the operator that the message names",
            ) from error
    if program is None:
        raise ExportError("torch.onnx.export returned nothing", expected="an ONNX program")
    model: ir.Model = program.model
    # The exporter notes stack traces with file names at every node.
    ClearMetadataAndDocStringPass()(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's messages off the terminal; it reports failures by exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
