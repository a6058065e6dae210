"""Which modalities of a data set a network is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.evaluation.errors import EvaluationModalityError
from mmms_deploy.evaluation.scene import Dataset
from mmms_deploy.spelling import did_you_mean


@dataclass(frozen=True)
class ModalityChoice:
    """Which modalities of a data set a network is shown.

    Attributes:
        used: Those that it is shown.
        ignored: Those of the data set that it does not take, or that are left out.
    """

    used: tuple[str, ...]
    ignored: tuple[str, ...]


def choose_modalities(
    specs: Sequence[ModalitySpec], name: str, dataset: Dataset, without: Iterable[str] = ()
) -> ModalityChoice:
    """Decide which modalities a network is shown, before anything runs.

    Args:
        specs: The modalities that the network takes.
        name: The network's name, for messages.
        dataset: The data set.
        without: Modalities to leave out; the network must be able to do without them.

    Raises:
        EvaluationModalityError: The network needs a modality that the data set does not have or that is left out, or
            does not know one that is left out.
    """
    known = {spec.name: spec for spec in specs}
    left_out = tuple(without)
    takes = ", ".join(f"{s.name} (optional)" if s.optional else s.name for s in known.values()) or "none"
    unknown = [modality for modality in left_out if modality not in known]
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise EvaluationModalityError(
            f"{', '.join(unknown)} is to be left out, but {name} takes no such modality{meant}",
            expected=f"one of its modalities: {takes}",
            fix="take it out of without, or correct the name",
            command_fix="leave --without out, or correct the name",
        )
    needed = [modality for modality in left_out if not known[modality].optional]
    if needed:
        raise EvaluationModalityError(
            f"{', '.join(needed)} is to be left out, but {name} cannot answer without it",
            expected=f"an optional modality; it takes: {takes}",
            fix="evaluate a checkpoint that was trained to do without it",
        )
    missing = [modality for modality, spec in known.items() if not spec.optional and modality not in dataset.modalities]
    if missing:
        raise EvaluationModalityError(
            f"{name} needs {', '.join(missing)}, which the data set {dataset.name!r} does not have",
            expected=f"a data set with {takes}; this one has {', '.join(dataset.modalities) or 'no modalities'}",
            fix="name another data set, or read more of it (its option 'modalities')",
        )
    used = tuple(modality for modality in known if modality in dataset.modalities and modality not in left_out)
    return ModalityChoice(used, tuple(modality for modality in dataset.modalities if modality not in used))
