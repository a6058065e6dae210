"""The same network in PyTorch, eager as its authors use it, or compiled. No other file here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bench.errors import NotMeasuredError
from mmms_deploy.bench.workload import Picture, Point
from mmms_deploy.bundle import Manifest, Precision, sha256_of
from mmms_deploy.bundle.contract import (
    ClickChannel,
    ClickLabel,
    ClickMemory,
    ImageSpec,
    ModalitySpec,
    PreviousMask,
    ResizeRule,
)
from mmms_deploy.bundle.packed import CHECKPOINTS, checkpoint_file, packed_checkpoint
from mmms_deploy.engines.protocol import EngineInfo
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.preprocess import load_modalities, prepare

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Form:
    """A way of using PyTorch.

    Attributes:
        precision: What it computes in. Reduced precisions use ``torch.autocast``, unless ``weights`` is set.
        compiled: Whether ``torch.compile`` compiles it, with default settings.
        weights: Whether weights and inputs are converted once, so that no call has to cast.
        graphs: Whether it is compiled with ``mode="reduce-overhead"``, which captures CUDA graphs.
    """

    precision: Precision = Precision.FP32
    compiled: bool = False
    weights: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        reduced = "" if self.precision is Precision.FP32 else f" {self.precision}"
        how = f"compiled{' graphs' if self.graphs else ''}" if self.compiled else "eager"
        return f"{how}{reduced}{' weights' if self.weights else ''}"

    @property
    def key(self) -> str:
        """The start of its metrics' keys."""
        return "eager" if self == Form() else f"eager.{str(self).replace(' ', '_')}"


def forms(info: EngineInfo, *, compiled: bool = True) -> list[Form]:
    """Return the ways of using PyTorch that an engine is compared with, the plainest first.

    Args:
        info: The engine. On a CPU only the plainest form is returned; on a GPU also float16 and the engine's precision.
        compiled: Whether to include those by ``torch.compile``, with default settings and with CUDA graphs, which
            take minutes.
    """
    if info.device == "cpu":
        return [Form()]
    found = [Form()]
    for precision in dict.fromkeys((Precision.FP16, info.precision)):
        if precision is not Precision.FP32:
            found += [Form(precision), Form(precision, weights=True)]
    if compiled:
        (own,) = [form for form in (found[0], found[-1]) if form.precision is info.precision]
        found += [replace(own, compiled=True, graphs=graphs) for graphs in (False, True)]
    return found


class EagerMMMS:
    """Image and clicks through PyTorch, end to end: from the image's pixels to a mask of the image's size.

    Args:
        manifest: A bundle's manifest; the network is built again from its description.
        threads: Threads that PyTorch computes with, in this whole process.
        device: ``cpu`` or ``cuda``.
        whole: Whether a click runs the whole network, as the published code of networks does where image and clicks
            meet early. Else what depends on the image alone runs once an image.

    Raises:
        NotMeasuredError: torch or timm is not installed, PyTorch cannot use the device, or the bundle does not describe
            its network.
    """

    def __init__(self, manifest: Manifest, threads: int, device: str = "cpu", *, whole: bool = False) -> None:
        try:
            import torch

            from mmms_deploy.models.checkpoint import parse_description, random_network
            from mmms_deploy.models.config import backbone_name
        except ImportError as error:
            raise NotMeasuredError(f"PyTorch cannot be imported ({error})") from error
        description = manifest.provenance.description
        if not description:
            raise NotMeasuredError("the bundle does not describe its network")
        if description.get("family") == "onnx":
            raise NotMeasuredError("the bundle was made of ONNX files, and there is no network in PyTorch")
        if device == "cuda" and not torch.cuda.is_available():
            raise NotMeasuredError(
                f"PyTorch {torch.__version__} cannot use the GPU (built for CUDA {torch.version.cuda})"
            )
        self._torch = torch
        self._device = device
        self._whole = whole
        self._dtype = torch.float32
        self.form = Form()
        torch.set_num_threads(threads)
        config = parse_description(description, manifest.name)
        self._network = random_network(config, manifest.provenance.random_seed or 0)
        if manifest.trained:
            _load_demo(self._network, backbone_name(config), manifest)
        try:
            self._network.to(device)
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise NotMeasuredError(f"PyTorch {torch.__version__} cannot use {device}: {first}") from error
        # Sizes and preparation are the network's own: a deployed graph may contain the normalisation.
        self._config = config
        self._take()
        self._on_host: Any = None
        height, width = config.size
        self._columns = torch.arange(width, dtype=torch.float32, device=device)[None, :]
        self._rows = torch.arange(height, dtype=torch.float32, device=device)[:, None]

    def variant(self, form: Form) -> EagerMMMS:
        """Return the same network, used in another way. Its first use compiles it."""
        other = copy(self)
        other.form = form
        if form.weights:
            other._dtype = self._reduced(form.precision)
            other._network = deepcopy(self._network).to(other._dtype)
        other._take()
        return other

    def _take(self) -> None:
        """Take the network's parts as the form says; what a click computes is one part, down to the image's mask."""
        self._image_part = self._compiled(self._network.features)
        self._click_part = self._compiled(self._network.respond)
        self._answer_part = self._compiled(self._answered)

    def _compiled(self, part: Any) -> Any:
        if not self.form.compiled:
            return part
        return self._torch.compile(part, mode="reduce-overhead") if self.form.graphs else self._torch.compile(part)

    def _reduced(self, precision: Precision) -> Any:
        return {Precision.FP16: self._torch.float16, Precision.BF16: self._torch.bfloat16}[precision]

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return str(self._torch.__version__)

    @property
    def probability(self) -> npt.NDArray[np.float32]:
        """(H, W) float32: the newest answer at the network's own resolution."""
        return np.asarray(self._answer.cpu().numpy(), dtype=np.float32)

    def set_image(self, picture: Picture) -> None:
        """Prepare an image, compute its features unless every click does, and wait for them."""
        torch = self._torch
        with torch.inference_mode(), self._cast():
            rgb = self._prepared(picture.rgb, self._config.image)
            loaded = load_modalities(picture.modalities, self._config.modalities, picture.rgb.shape[:2])
            modalities = {spec.name: self._prepared(loaded[spec.name], spec) for spec in self._config.modalities}
            self._image = (rgb, modalities)
            features: tuple[Tensor, ...] = () if self._whole else self._kept(self._image_part(rgb, modalities))
            self._features = features
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._size = (picture.rgb.shape[0], picture.rgb.shape[1])
        self._labels = torch.full(self._config.size, float(ClickLabel.UNKNOWN), device=self._device)
        self._disks = {kind: torch.zeros(self._config.size, device=self._device) for kind in (True, False)}
        self._previous = self._answer = torch.zeros(self._config.size, device=self._device)
        self._clicks: list[tuple[float, float, bool]] = []
        self._several: tuple[Tensor, Tensor, Tensor] | None = None

    def _prepared(self, array: npt.NDArray[Any], rule: ImageSpec | ModalitySpec) -> Tensor:
        """Return an image or a modality as the network takes it; on a GPU it is resized and normalised there."""
        if self._device == "cuda":
            return self._prepared_by_torch(array, rule)
        return self._tensor(prepare(array, rule, self._config.size))

    def _prepared_by_torch(self, array: npt.NDArray[Any], rule: ImageSpec | ModalitySpec) -> Tensor:
        """Do what :func:`~mmms_deploy.imaging.preprocess.prepare` does with PyTorch's own functions."""
        torch = self._torch
        pixels = torch.from_numpy(np.ascontiguousarray(array)).to(self._device).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(
            pixels,
            self._config.size,
            mode="bilinear",
            align_corners=rule.resize.align_corners,
            antialias=rule.resize.antialias,
        )
        mean, std = (torch.tensor(row, device=self._device).view(1, -1, 1, 1) for row in (rule.mean, rule.std))
        scale = rule.scale if isinstance(rule, ImageSpec) else 1.0
        prepared: Tensor = ((resized * scale - mean) / std).to(self._dtype)
        return prepared

    def click(self, x: float, y: float, positive: bool) -> npt.NDArray[np.bool_]:
        """Answer a click at image pixel (x, y).

        Returns:
            (H0, W0) bool.
        """
        torch = self._torch
        rule = self._config.clicks
        column, row = to_network(x, y, image=self._size, network=self._config.size, rule=rule.coordinates)
        if rule.objects > 1:
            return self._object(column, row, positive)
        with torch.inference_mode():
            near = (self._columns - column) ** 2 + (self._rows - row) ** 2 <= rule.radius**2
            labelled = rule.memory is ClickMemory.LABELS
            if labelled:
                interaction = self._labelled(near, positive)
            else:
                self._disks[positive][near] = 1.0
                self._clicks.append((column, row, positive))
                if rule.first_pass and not self._previous.any():
                    self._previous = self._respond(self._interaction(self._previous))[0, 0]
                interaction = self._interaction(self._modulated())
            with self._cast():
                features = self._image_part(*self._image) if self._whole else self._features
                probability, fed, mask = self._answer_part(features, interaction.to(self._dtype), self._size)
            self._previous = self._kept(fed)[0, 0]
            self._answer = self._previous if fed is probability else self._kept(probability)[0, 0]
            if labelled:
                self._labels = self._moved(self._answer > rule.threshold)
            return self._downloaded(mask[0, 0])

    def _answered(
        self, features: tuple[Tensor, ...], interaction: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all that a click computes of the network's inputs.

        Args:
            features: What the network computes of the image.
            interaction: (B, C, H, W), a row for each object.
            size: (H0, W0) of the image.

        Returns:
            Probability and what is fed back of it, (B, 1, H, W) float32, and the mask (B, 1, H0, W0) bool.
        """
        rule = self._config.clicks
        probability = self._torch.sigmoid(self._network.respond(features, interaction).float())
        at_image = self._resized(probability, size, rule.mask_resize)
        reduce = rule.previous_resize
        fed = probability if reduce is None else self._resized(at_image, self._config.size, reduce)
        return probability, fed, at_image > rule.threshold

    def _kept(self, outputs: Any) -> Any:
        """Return outputs that are read after the next run: copies where a CUDA graph writes to the same memory."""
        if not self.form.graphs:
            return outputs
        if isinstance(outputs, tuple):
            parts = [self._kept(part) for part in outputs]
            return type(outputs)(*parts) if hasattr(outputs, "_fields") else tuple(parts)
        return outputs.clone()

    def _downloaded(self, mask: Tensor) -> npt.NDArray[np.bool_]:
        """Return a mask on the host; from a GPU by way of pinned memory, the fastest one."""
        if self._device == "cpu":
            answer: npt.NDArray[np.bool_] = mask.numpy()
            return answer
        if self._on_host is None or self._on_host.shape != mask.shape:
            self._on_host = self._torch.empty(mask.shape, dtype=self._torch.bool, pin_memory=True)
        self._on_host.copy_(mask, non_blocking=True)
        self._torch.cuda.current_stream().synchronize()
        copied: npt.NDArray[np.bool_] = self._on_host.numpy().copy()
        return copied

    def click_objects(self, points: Sequence[Point]) -> npt.NDArray[np.bool_]:
        """Answer one click on each of several objects of the image, in one run: one row of a batch for each of them.

        Args:
            points: A click on every object, at image pixels; as many in every call on an image.

        Returns:
            (N, H0, W0) bool.

        Raises:
            NotMeasuredError: The network's clicks are no disks, so that objects cannot be stacked.
        """
        torch, rule = self._torch, self._config.clicks
        if rule.memory is not ClickMemory.MAPS or rule.modulation is not None or rule.first_pass:
            raise NotMeasuredError("PyTorch is measured on several objects at once where clicks are disks alone")
        places = [
            to_network(x, y, image=self._size, network=self._config.size, rule=rule.coordinates) for x, y, _ in points
        ]
        with torch.inference_mode():
            if self._several is None or len(self._several[0]) != len(points):
                zeros = torch.zeros(len(points), *self._config.size, device=self._device)
                self._several = (zeros, zeros, zeros)
            positive, negative, previous = self._several
            at = torch.tensor(places, device=self._device)[:, :, None, None]
            kinds = torch.tensor([kind for _, _, kind in points], device=self._device)[:, None, None]
            near = (self._columns - at[:, 0]) ** 2 + (self._rows - at[:, 1]) ** 2 <= rule.radius**2
            positive = torch.where(near & kinds, 1.0, positive)
            negative = torch.where(near & ~kinds, 1.0, negative)
            interaction = self._stacked(positive, negative, previous, previous)
            with self._cast():
                features = self._image_part(*self._image) if self._whole else self._features
                rows = tuple(part.expand(len(points), *part.shape[1:]) for part in features)
                _, fed, mask = self._answer_part(rows, interaction.to(self._dtype), self._size)
            self._several = (positive, negative, self._kept(fed)[:, 0])
            return self._downloaded(mask[:, 0])

    def _object(self, column: float, row: float, positive: bool) -> npt.NDArray[np.bool_]:
        """Answer a click at network pixel (column, row) on the one object of a network that answers for several.

        As the published code does: every row of the answer at the image's size, then the decision. Clicks on an image
        are as many as the smallest list holds; then the object starts over, as in a measured session.

        Returns:
            (H0, W0) bool.
        """
        torch, rule = self._torch, self._config.clicks
        label: Any = self._network.label
        if rule.listed is not None and len(self._clicks) >= rule.listed.sizes[0]:
            self._clicks = []
        self._clicks.append((column, row, positive))
        rows = [[x, y, float(t), float(kind), 1.0] for t, (x, y, kind) in enumerate(self._clicks)]
        with torch.inference_mode():
            clicks = torch.tensor([rows], dtype=torch.float32, device=self._device)
            with self._cast():
                features = self._image_part(*self._image) if self._whole else self._features
                # The list stays in float32: places in a picture are no numbers for a half.
                logits = self._click_part(features, clicks)
            found = label(self._resized(logits.float(), self._size, rule.mask_resize), clicks, 1)
            margin = self._resized(found.objects - found.background, self._config.size, rule.mask_resize)
            self._answer = torch.sigmoid(margin)[0, 0]
            return self._downloaded(found.labels[0, 0] == 1)

    def _respond(self, interaction: Tensor) -> Tensor:
        """Run the network, or what of it depends on clicks; return the probability (1, 1, H, W) float32."""
        with self._cast():
            features = self._image_part(*self._image) if self._whole else self._features
            logits = self._click_part(features, interaction.to(self._dtype))
        probability: Tensor = self._torch.sigmoid(logits.float())
        return probability

    def _interaction(self, modulated: Tensor) -> Tensor:
        """Return disks and previous mask, (1, C, H, W), as the network wants them.

        Args:
            modulated: (H, W): the previous probability after modulation; for networks that see it.
        """
        one = (self._disks[True], self._disks[False], self._previous, modulated)
        return self._stacked(*(channel[None] for channel in one))

    def _stacked(self, positive: Tensor, negative: Tensor, previous: Tensor, modulated: Tensor) -> Tensor:
        """Return channels (N, H, W) as the network wants them, (N, C, H, W)."""
        rule = self._config.clicks
        if rule.previous is PreviousMask.MASK:
            previous = (previous > rule.threshold).float()
        channels = {
            ClickChannel.POSITIVE: positive,
            ClickChannel.NEGATIVE: negative,
            ClickChannel.PREVIOUS: previous,
            ClickChannel.MODULATED: modulated,
        }
        drawn: Tensor = self._torch.stack([channels[name] for name in rule.channels], dim=1)
        return drawn

    def _modulated(self) -> Tensor:
        """Return the previous probability (H, W), modulated around the newest click where the network wants it."""
        rule = self._config.clicks.modulation
        if rule is None:
            unchanged: Tensor = self._previous
            return unchanged
        from mmms_deploy.export.modulation import modulated

        changed: Tensor = modulated(self._previous[None, None].cpu(), self._clicks, rule)[0, 0]
        return changed.to(self._device)

    def _labelled(self, near: Tensor, positive: bool) -> Tensor:
        """Draw a click into the labels; return them, (1, 1, H, W)."""
        self._labels[near] = float(ClickLabel.OBJECT if positive else ClickLabel.BACKGROUND)
        labels: Tensor = self._labels[None, None]
        return labels

    def _moved(self, inside: Tensor) -> Tensor:
        """Return the labels (H, W) after an answer (H, W)."""
        torch, labels = self._torch, self._labels
        up = (labels + 1).clamp(max=float(ClickLabel.LIKELY_OBJECT))
        down = (labels - 1).clamp(min=float(ClickLabel.LIKELY_BACKGROUND))
        by_click = (labels == float(ClickLabel.BACKGROUND)) | (labels == float(ClickLabel.OBJECT))
        moved: Tensor = torch.where(by_click, labels, torch.where(inside, up, down))
        return moved

    def _resized(self, x: Tensor, size: tuple[int, int], rule: ResizeRule) -> Tensor:
        return self._torch.nn.functional.interpolate(
            x,
            size=size,
            mode=rule.interpolation.value,
            align_corners=rule.align_corners,
            antialias=rule.antialias,
        )

    def _tensor(self, array: npt.NDArray[np.float32]) -> Tensor:
        return self._torch.from_numpy(array).to(self._device, self._dtype)

    def _cast(self) -> AbstractContextManager[object]:
        """Return a context that computes in the form's precision where ``torch.autocast`` considers that safe."""
        if self.form.precision is Precision.FP32 or self.form.weights:
            return nullcontext()
        dtype = self._reduced(self.form.precision)
        context: AbstractContextManager[object] = self._torch.autocast(self._device, dtype=dtype)
        return context

    def close(self) -> None:
        """Free the network's memory."""
        del self._network, self._image_part, self._click_part, self._answer_part
        if self._device == "cuda":
            self._torch.cuda.empty_cache()


class EagerProposals(EagerMMMS):
    """A network with proposals through PyTorch: the first click proposes, and later ones refine the best proposal.

    Args:
        manifest: As for :class:`EagerMMMS`.
        threads: As for :class:`EagerMMMS`.
        device: ``cpu`` or ``cuda``.

    Raises:
        NotMeasuredError: As for :class:`EagerMMMS`.
    """

    def _take(self) -> None:
        super()._take()
        network: Any = self._network
        self._first_part, self._later_part = self._compiled(network.propose), self._compiled(network.answer)

    def click(self, x: float, y: float, positive: bool) -> npt.NDArray[np.bool_]:
        """Answer a click at image pixel (x, y); the first one on an image begins anew.

        Returns:
            (H0, W0) bool.
        """
        from mmms_deploy.models.disnet import selected
        from mmms_deploy.models.disnet_proposals import best_proposal

        torch, rule = self._torch, self._config.clicks
        column, row = to_network(x, y, image=self._size, network=self._config.size, rule=rule.coordinates)
        self._clicks.append((column, row, positive))
        with torch.inference_mode():
            listed = torch.tensor([[(*at, float(sign), 1.0) for *at, sign in self._clicks]], device=self._device)
            with self._cast():
                if len(self._clicks) == 1:
                    proposals = self._first_part(self._features[0], listed[:, 0])
                    token, logits = selected(proposals, best_proposal(proposals.classes.float()))
                    token, patches = self._kept((token, proposals.features))
                    self._chosen = (token, patches, torch.sigmoid(logits.float()))
                else:
                    logits = self._later_part(*self._chosen, listed)
            self._answer = torch.sigmoid(logits.float())[0, 0]
            mask = self._resized(logits.float(), self._size, rule.mask_resize)
            return self._downloaded(torch.sigmoid(mask)[0, 0] > rule.threshold)


def open_eager(manifest: Manifest, threads: int, device: str = "cpu") -> EagerMMMS:
    """Return a bundle's network in PyTorch.

    Args:
        manifest: The bundle's manifest.
        threads: Threads that PyTorch computes with, in this whole process.
        device: ``cpu`` or ``cuda``.

    Raises:
        NotMeasuredError: As for :class:`EagerMMMS`.
    """
    answers = manifest.clicks.answers
    proposals = answers is not None and answers.proposals
    return (EagerProposals if proposals else EagerMMMS)(manifest, threads, device)


def _load_demo(network: Any, backbone: str, manifest: Manifest) -> None:
    """Load a checkpoint that ships with the package if the bundle was made from it; others are not at hand."""
    from mmms_deploy.models.checkpoint import load_weights, read_checkpoint_file

    provenance = manifest.provenance
    path = _shipped(Path(provenance.checkpoint or "").name)
    if path is not None and sha256_of(path) == provenance.checkpoint_sha256:
        frozen = None
        if provenance.backbone_checkpoint is not None:
            from mmms_deploy.weights import find_weights

            frozen = read_checkpoint_file(find_weights(backbone))
        load_weights(network, read_checkpoint_file(path), frozen)


def _shipped(file: str) -> Path | None:
    """Return the checkpoint of the package whose file has a name, unpacked; None where none has it."""
    name = next((name for name in CHECKPOINTS if file == checkpoint_file(name)), None)
    return None if name is None else packed_checkpoint(name)
