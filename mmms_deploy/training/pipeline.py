"""A training from a network and views to a checkpoint: features once, steps, averaged weights, a file that exports."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
import torch
from torch import nn

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.documents import document
from mmms_deploy.errors import CheckpointError
from mmms_deploy.models.checkpoint import save_checkpoint
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.progress import OnProgress
from mmms_deploy.training.batches import Batches
from mmms_deploy.training.errors import FeatureCacheError, TrainingDataError
from mmms_deploy.training.feature_cache import FeatureCache, backbone_hash
from mmms_deploy.training.loop import Measure, resume, train
from mmms_deploy.training.recipe import Recipe
from mmms_deploy.training.run import TrainingRun, take_out_backbone, with_backbone
from mmms_deploy.training.state import RunFacts
from mmms_deploy.training.views import Views

_ESTIMATED_STEPS = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will take on this machine.

    Attributes:
        views: Views in all.
        missing: Views whose features are not kept yet.
        cache_bytes: Size of all features.
        view_seconds: Time to compute a view's features.
        step_seconds: Time of a step.
        steps: Steps that are left.
        parameters: Parameters that are trained.
    """

    views: int
    missing: int
    cache_bytes: int
    view_seconds: float
    step_seconds: float
    steps: int
    parameters: int

    @property
    def seconds(self) -> float:
        """Time of everything that is left, without measurements."""
        return self.missing * self.view_seconds + self.steps * self.step_seconds


class Training:
    """A training of a network's head on the features of its frozen backbone.

    Use it as a context, or call :meth:`close`.

    Args:
        network: The network with its weights, as it starts (:mod:`mmms_deploy.training.network`); it is taken apart.
        views: What to train on.
        folder: The folder of the run: state, log, features.
        recipe: Every number of the run.
        cache: Folder of the features; None for ``features`` in the run's folder. Runs may share one.
        device: Where to compute.
        threads: CPU threads; None for the cores that this process may use.
        start: Hash of the checkpoint that the head comes from; empty for a new head.

    Attributes:
        run: The run.
        cache: The features.
        facts: What the run's state belongs to.
    """

    def __init__(
        self,
        network: InteractiveNetwork,
        views: Views,
        folder: Path,
        recipe: Recipe,
        *,
        cache: Path | None = None,
        device: torch.device | None = None,
        threads: int | None = None,
        start: str = "",
    ) -> None:
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._threads = threads or _cores()
        self._folder, self._views = folder, views
        config = network.config
        backbone = take_out_backbone(network).to(self._device).eval().requires_grad_(False)
        identity = backbone_hash(backbone)
        self._backbone = backbone
        self.cache = FeatureCache(cache or folder / "features", backbone, config, identity, self._device)
        bfloat16 = takes_bfloat16(network, self._device)
        self.run = TrainingRun(network, recipe, self._device, self._threads, bfloat16=bfloat16)
        keys = "".join(views.key(index) for index in range(len(views)))
        self.facts = RunFacts(
            recipe=recipe,
            description=to_builtins(config),
            backbone=identity,
            views=hashlib.sha256(keys.encode()).hexdigest(),
            start=start,
            device=self._device.type,
            threads=self.run.threads,
            bfloat16=bfloat16,
        )

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run's threads."""
        self.run.close()

    def resume(self) -> bool:
        """Go to where the folder's state stands; returns whether there is one.

        Raises:
            TrainingStateError: The state is damaged, or belongs to a run with other settings.
        """
        return resume(self.run, self._folder, self.facts)

    def check_room(self) -> None:
        """Check that the features that are missing fit on the disk.

        Raises:
            FeatureCacheError: They do not.
        """
        needed = len(self.cache.missing(self._views)) * self.cache.entry
        there = next(path for path in (self.cache.folder, *self.cache.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        if needed > free:
            raise FeatureCacheError(
                f"the features take {needed / 1e9:.1f} GB more, and {there} has {free / 1e9:.1f} GB free",
                expected="room for the features of every view",
                fix="name another folder for them, make fewer views, or choose a smaller network size",
                command_fix="name another --cache, pass a smaller --views, or a smaller --size",
            )

    def estimate(self) -> Estimate:
        """Compute one view and some steps, and say what everything will take. Changes nothing but the time.

        Raises:
            TrainingDataError: There is no view.
        """
        if not len(self._views):
            raise TrainingDataError(
                "no scene has an object to train on",
                expected="masks with at least one object",
                fix=f"check the masks; {document('datasets')} says how each kind of data set is read",
            )
        torch.set_num_threads(self._threads)
        missing = self.cache.missing(self._views)
        start = time.perf_counter()
        kept = self.cache.compute(self._views[missing[0] if missing else 0])
        view_seconds = time.perf_counter() - start
        batch = [self.cache.opened(kept, targets=self.run.recipe.targets)] * self.run.recipe.views
        trial = TrainingRun(
            copy.deepcopy(self.run.head),
            msgspec.structs.replace(self.run.recipe, steps=10**6),
            self._device,
            self._threads,
            bfloat16=self.facts.bfloat16,
        )
        times = []
        for _ in range(_ESTIMATED_STEPS + 1):
            start = time.perf_counter()
            trial.train_step(batch)
            times.append(time.perf_counter() - start)
        trial.close()
        return Estimate(
            views=len(self._views),
            missing=len(missing),
            cache_bytes=len(self._views) * self.cache.entry,
            view_seconds=view_seconds,
            step_seconds=sum(times[1:]) / _ESTIMATED_STEPS,
            steps=self.run.recipe.steps - self.run.step,
            parameters=sum(parameter.numel() for parameter in self.run.head.parameters()),
        )

    def compute_features(self, on_progress: OnProgress | None = None) -> None:
        """Compute the features that are not kept yet."""
        torch.set_num_threads(self._threads)
        self.cache.fill(self._views, on_progress)

    def train(
        self, *, measure: Measure | None = None, measure_every: int = 0, on_progress: OnProgress | None = None
    ) -> InteractiveNetwork:
        """Train until the recipe's last step.

        Args:
            measure: Measures the run; :meth:`network` gives the network as it is.
            measure_every: Steps between two measurements; 0 for none.
            on_progress: Receives every step.

        Returns:
            The whole network with the averaged weights.

        Raises:
            TrainingDataError: No view has a target.
        """
        keys = self.cache.usable(self._views)
        if not keys:
            raise TrainingDataError(
                "no view has a target at the network's size",
                expected="objects of more than a few pixels",
                fix="choose a larger network size, or check the masks",
            )
        torch.set_num_threads(self._threads)
        batches = Batches(self.cache, keys, self.run.recipe, self.run.head.config.modalities)
        train(
            self.run,
            batches,
            self._folder,
            self.facts,
            measure=measure,
            measure_every=measure_every,
            on_progress=on_progress,
        )
        return self.network()

    def network(self) -> InteractiveNetwork:
        """Return the whole network with the averaged weights as they are now, on the CPU."""
        return with_backbone(self.run.average, self._backbone.to("cpu"))


def write_checkpoint(path: Path, network: InteractiveNetwork, *, backbone: bool = True, half: bool = False) -> int:
    """Write a trained network, as ``mmms-export`` takes it.

    Args:
        path: The file.
        network: The network.
        backbone: Whether the backbone's weights are in the file.
        half: Whether weights are stored as float16, at half the size; they are widened when they are read.

    Returns:
        The file's size in bytes.

    Raises:
        CheckpointError: A weight is too large for float16.
        OutputWriteError: The file cannot be written.
    """
    if half:
        largest = max(float(value.abs().max()) for value in network.state_dict().values() if value.is_floating_point())
        if largest > torch.finfo(torch.float16).max:
            raise CheckpointError(
                f"a weight of {largest:.3g} is too large for float16",
                expected="weights up to 65504",
                fix="store the weights as float32",
                command_fix="leave out --half",
            )
    save_checkpoint(path, network, dtype=torch.float16 if half else None, backbone=backbone)
    return path.stat().st_size


def takes_bfloat16(head: nn.Module, device: torch.device) -> bool:
    """Whether a head is trained with products in bfloat16: on GPUs, and on CPUs that multiply in it.

    oneDNN computes some bfloat16 convolutions wrongly on CPUs with AMX: those of 4 to 24 channels with kernels of 4
    pixels and more (https://github.com/pytorch/pytorch/issues/169688). A head that has such ones is trained in float32.
    """
    if device.type != "cpu":
        return True
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if supported is None or not supported():
        return False
    kernels = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    return not any(4 <= one.in_channels <= 24 and max(one.kernel_size) >= 4 for one in kernels)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)
