"""``mmms-train``: opening the data and the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_deploy.commands.common import warn
from mmms_deploy.commands.datasets import open_datasets
from mmms_deploy.commands.fetching import backbone_finder, fetched_checkpoint
from mmms_deploy.commands.places import DEMOS
from mmms_deploy.installed import pip_install

if TYPE_CHECKING:
    from mmms_deploy.evaluation.datasets.argument import DatasetArgument
    from mmms_deploy.models.network import InteractiveNetwork
    from mmms_deploy.progress import OnProgress
    from mmms_deploy.training.data import Part
    from mmms_deploy.training.scene_views import SceneViews
    from mmms_deploy.training.survey import Survey

SURVEY_FILE = "data.json"
DEFAULT_SIZE = (448, 448)


def divide(
    arguments: Sequence[DatasetArgument], others: Sequence[DatasetArgument], held_out: float
) -> tuple[list[Part], list[Part]]:
    """List the data, and divide them into what is trained on and what is measured.

    Args:
        arguments: The data sets to train on.
        others: Those to measure on; when there are some, nothing of the first ones is held out.
        held_out: Share of the first ones that is held out.
    """
    from mmms_deploy.training.data import split, whole

    sets = list(zip(arguments, open_datasets(arguments), strict=True))
    parts = [split(dataset, _label(argument), 0.0 if others else held_out) for argument, dataset in sets]
    measured = [held for _, held in parts if len(held)]
    measured += [whole(d, _label(a)) for a, d in zip(others, open_datasets(others), strict=True)]
    return [part for part, _ in parts], measured


def _label(argument: DatasetArgument) -> str:
    """Return the kind and options of a data set, without its path: files may move."""
    return argument.kind + "".join(f":{name}={value}" for name, value in sorted(argument.options.items()))


def load_training_room() -> None:
    """Import the modules that need torch and OpenCV, or raise an error that names the extra."""
    from mmms_deploy.training.errors import TrainingError

    try:
        import mmms_deploy.training.pipeline
        import mmms_deploy.training.scene_views  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"training needs a package that is not installed: {error.name or error}",
            expected="the [train] extra",
            fix=pip_install("train"),
        ) from error


def forget(out: Path) -> None:
    """Remove the state and the log of a run."""
    from mmms_deploy.training.loop import LOG_FILE, STATE_FILE

    for name in (STATE_FILE, LOG_FILE):
        (out / name).unlink(missing_ok=True)


def fetched_sources(start: str | None, backbone_ckpt: Path | None) -> tuple[str | None, Path | None]:
    """Return the checkpoints as names or local files; those on the hub are fetched."""
    if start is not None and start not in DEMOS:
        start = str(fetched_checkpoint(start))
    return start, None if backbone_ckpt is None else fetched_checkpoint(backbone_ckpt)


def open_network(
    start: str | None,
    backbone: str | None,
    backbone_ckpt: Path | None,
    description: Path | None,
    size: tuple[int, int] | None,
    found: Survey,
    seed: int,
    on_progress: OnProgress,
) -> tuple[InteractiveNetwork, str]:
    """Return the network as it starts, and the hash of the checkpoint that its head comes from."""
    from mmms_deploy.bundle import sha256_of
    from mmms_deploy.export.source import demo_checkpoint
    from mmms_deploy.models import BackboneConfig
    from mmms_deploy.training.network import compact_config, continued_network, described_config, new_network
    from mmms_deploy.training.survey import described_modality

    find = backbone_finder(on_progress)
    if start is not None:
        file = demo_checkpoint(start) if start in DEMOS else Path(start)
        specs = [described_modality(name, facts) for name, facts in found.modalities.items()]
        return continued_network(file, backbone_ckpt, specs, seed, size, find), sha256_of(file)
    if description is not None:
        config = described_config(description, {} if size is None else {"size": size})
    else:
        assert backbone is not None
        specs = [described_modality(name, facts) for name, facts in found.modalities.items()]
        config = compact_config(BackboneConfig(name=backbone), size or DEFAULT_SIZE, specs)
    return new_network(config, backbone_ckpt, seed, find), ""


def check_modalities(network: InteractiveNetwork, parts: Sequence[Part]) -> None:
    """Check that the data have what the network needs, and warn of what it does not take.

    Raises:
        EvaluationModalityError: A modality that is not optional is missing.
    """
    from mmms_deploy.evaluation.modalities import choose_modalities

    for part in parts:
        choice = choose_modalities(network.config.modalities, "the network", part)
        if choice.ignored:
            warn(f"{', '.join(choice.ignored)} of {part.name} is ignored: the network does not take it")


def make_views(
    network: InteractiveNetwork, parts: Sequence[Part], found: Survey, each: int, limit: float, seed: int
) -> SceneViews:
    """Return the views, as many of each picture as the limit of the features allows."""
    from mmms_deploy.training.errors import FeatureCacheError
    from mmms_deploy.training.feature_cache import entry_bytes
    from mmms_deploy.training.run import frozen_backbone
    from mmms_deploy.training.scene_views import SceneViews

    scenes = sum(count > 0 for counts in found.objects for count in counts)
    entry = entry_bytes(frozen_backbone(network), network.config)
    room = int(limit * 1e9 / entry / max(scenes, 1))
    if scenes and not room:
        raise FeatureCacheError(
            f"the features of {scenes} pictures take {scenes * entry / 1e9:.1f} GB, one view each",
            expected=f"at most --cache-limit, {limit:g} GB",
            fix="pass a larger --cache-limit, a smaller --size, or fewer pictures",
        )
    if scenes and room < each:
        warn(f"--cache-limit {limit:g} GB allows {room} of {each} views of each picture")
    return SceneViews(parts, found.objects, network.config.modalities, min(each, max(room, 1)), seed)
