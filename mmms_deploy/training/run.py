"""A training run: the head, its averaged copy, the optimiser, and where they stand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmms_deploy.models.frozen_backbone import FrozenBackbone
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.training.clicks import ClickMaps
from mmms_deploy.training.errors import TrainingError, TrainingSettingsError, TrainingStateError
from mmms_deploy.training.feature_cache import StoredView
from mmms_deploy.training.mixing import mix_batch
from mmms_deploy.training.network import FUSER
from mmms_deploy.training.quick_forms import quicken
from mmms_deploy.training.recipe import Recipe
from mmms_deploy.training.replicas import average_statistics, follow, gather_gradients, replicate
from mmms_deploy.training.rounds import Round, RoundRules, Targets, click_rounds

_CLICKS = 3
"""Second word of the seed of clicks."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_UNDECAYED = ("pos_embed", "cls_token", "reg_token")


class Elsewhere(FrozenBackbone):
    """Stands where a network's backbone was: its maps are kept on disk."""

    part = "nothing"

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """Refuse: there is no backbone here."""
        raise RuntimeError("the backbone was taken out of this network")


def frozen_backbone(network: InteractiveNetwork) -> FrozenBackbone:
    """Return the backbone of a late-fusion network, the only kind that is trained here."""
    if network.frozen is None:
        raise ValueError(f"a {network.config.family} network has no frozen backbone")
    return network.frozen


def take_out_backbone(network: InteractiveNetwork) -> FrozenBackbone:
    """Take the backbone out of a network, in place, and return it; what is left is the head."""
    backbone = frozen_backbone(network)
    network.backbone = Elsewhere()
    return backbone


def with_backbone(head: InteractiveNetwork, backbone: FrozenBackbone) -> InteractiveNetwork:
    """Return a whole network of a copy of a head and the backbone itself, in evaluation mode, on the CPU."""
    network = copy.deepcopy(head).cpu()
    network.backbone = backbone
    return network.eval()


class TrainingRun:
    """A run.

    On a CPU every thread takes a share of the batch through a replica of the head. On one machine, with the same number
    of threads, a continued run computes the same bits as one that was never stopped.

    Args:
        head: The network without its backbone (:func:`take_out_backbone`), as it starts.
        recipe: Settings.
        device: Where to compute.
        threads: Replicas that work at the same time on a CPU.
        bfloat16: Whether matrix products are computed in bfloat16; sums and losses are float32.

    Raises:
        TrainingSettingsError: Only the fuser is trained, and there is none.

    Attributes:
        step: Steps done.
        head: The head that is trained.
        average: Its averaged weights.
    """

    def __init__(
        self, head: InteractiveNetwork, recipe: Recipe, device: torch.device, threads: int = 1, *, bfloat16: bool = True
    ) -> None:
        self.recipe, self.device, self.step = recipe, device, 0
        self.head = head.to(device).train()
        if not recipe.head_rate:
            _hold_all_but_the_fuser(self.head)
        self.threads = threads if device.type == "cpu" else 1
        self.average = copy.deepcopy(self.head).requires_grad_(False).eval()
        if device.type == "cpu":
            quicken(self.head)
        self._replicas = replicate(self.head, self.threads)
        self._optimizer = torch.optim.AdamW(_groups(self.head, recipe), lr=0.0, betas=(0.9, 0.98), eps=1e-7)
        self._rules = RoundRules(
            first_gamma=recipe.first_gamma,
            gamma=recipe.gamma,
            first_iou_weight=recipe.first_iou_weight,
            iou_weight=recipe.iou_weight,
            guard_share=recipe.guard_share,
            guard_weight=recipe.guard_weight,
            bfloat16=bfloat16,
        )
        # torch's thread count belongs to the calling thread.
        self._pool = ThreadPoolExecutor(self.threads, "mmms-train", torch.set_num_threads, (1,))

    def train_step(self, batch: Sequence[StoredView]) -> list[Round]:
        """Do one optimiser step.

        Args:
            batch: The views of the step.

        Returns:
            The result of every click round.

        Raises:
            TrainingError: The loss is no number any more.
        """
        rate = self.recipe.rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.zero_grad(set_to_none=True)
        rng = np.random.default_rng([self.recipe.seed, _CLICKS, self.step])
        rounds = int(rng.choice(self.recipe.rounds, p=self.recipe.round_weights))
        total = sum(len(view.targets) for view in batch)
        count = min(self.threads, len(batch))
        shares = [self._pool.submit(self._accumulate, k, batch[k::count], total, rounds) for k in range(count)]
        results = [share.result() for share in shares]
        gather_gradients(self._replicas)
        if self.recipe.head_rate:
            average_statistics(self._replicas)
        norm = nn.utils.clip_grad_norm_(self.head.parameters(), self.recipe.clip)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient of step {self.step + 1} is no finite number",
                expected="finite losses",
                fix="lower the learning rate, and check the modalities for numbers far outside of their usual range",
            )
        self._optimizer.step()
        self.step += 1
        follow(self.average, self.head, self.recipe.decay(self.step))
        return [
            Round(float(np.mean([r.loss for r in same])), float(np.mean([r.iou for r in same])))
            for same in zip(*results, strict=True)
        ]

    def _accumulate(self, number: int, views: Sequence[StoredView], total: int, rounds: int) -> list[Round]:
        """Add up a replica's gradients: the image part runs once, the click part once a round for all targets."""
        head, device = self._replicas[number], self.device
        rng = np.random.default_rng([self.recipe.seed, _CLICKS, self.step, number])
        maps = tuple(torch.stack(same).to(device).float() for same in zip(*(v.maps for v in views), strict=True))
        owner = [index for index, view in enumerate(views) for _ in view.targets]
        truth = np.concatenate([view.targets for view in views])
        void = None
        if any(view.void is not None for view in views):
            none = np.zeros(truth.shape[1:], bool)
            void = np.stack([none if (seen := views[index].void) is None else seen for index in owner])
        targets = Targets(
            owner=torch.tensor(owner, device=device),
            truth=torch.from_numpy(truth[:, None]).to(device),
            first_weight=torch.from_numpy(np.concatenate([view.weights for view in views])).to(device),
            valid=None if void is None else torch.from_numpy(~void[:, None]).to(device).float(),
            sizes=[views[index].size for index in owner],
        )
        clicks = ClickMaps(truth, rng, radius=head.config.clicks.radius, void=void)
        clicks.first()
        modalities, present = self._modalities(views, truth.shape[1:])
        with torch.autocast(device.type, torch.bfloat16, enabled=self._rules.bfloat16):
            features = mix_batch(head, maps, modalities, present)
        # Each round's gradient stops at these leaves; they collect it for one pass through the image part.
        leaves = tuple(feature.detach().requires_grad_() for feature in features)
        results = click_rounds(head, leaves, clicks, targets, self._rules, rounds, len(owner) / total)
        learning = [pair for pair in zip(features, leaves, strict=True) if pair[0].requires_grad]
        if learning:  # nothing is, where only the fuser learns and no view of this share has a modality
            torch.autograd.backward([feature for feature, _ in learning], [leaf.grad for _, leaf in learning])
        return results

    def _modalities(
        self, views: Sequence[StoredView], size: tuple[int, ...]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Stack the views' modalities, zeros where a view has none, and say which view has which."""
        given, present = {}, {}
        for spec in self.head.config.modalities:
            none = torch.zeros(spec.channels, *size)
            given[spec.name] = torch.stack([v.modalities.get(spec.name, none).float() for v in views]).to(self.device)
            present[spec.name] = torch.tensor([spec.name in v.modalities for v in views])
        return given, present

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return everything that a continued run needs, by name; the tensors are the run's own."""
        kept = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        kept |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.head.named_parameters():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                kept[f"optimizer.{moment}.{name}"] = value
        return kept | {"step": torch.tensor(self.step)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            TrainingStateError: It is the state of another network, or not all of one.
        """
        try:
            step = int(state["step"])
            self.head.load_state_dict(_below(state, "head."))
            self.average.load_state_dict(_below(state, "average."))
            moments = {name: _below(state, f"optimizer.{name}.") for name in ("step", *_MOMENTS)}
            for name, parameter in self.head.named_parameters():
                if name in moments["step"]:
                    own: dict[str, Any] = {"step": moments["step"][name].clone()}
                    own |= {m: moments[m][name].to(self.device, copy=True) for m in _MOMENTS}
                    if any(own[m].shape != parameter.shape for m in _MOMENTS):
                        raise ValueError(f"{name} has another shape")
                    self._optimizer.state[parameter] = own
        except (KeyError, ValueError, RuntimeError) as error:
            raise TrainingStateError(
                f"the state does not fit this network: {str(error).splitlines()[0]}",
                expected="a state that the same command wrote",
                fix="train in another folder, or delete this one's state",
            ) from error
        for replica in self._replicas[1:]:
            replica.load_state_dict(self.head.state_dict())
        self.step = step

    def close(self) -> None:
        """End the run's threads."""
        self._pool.shutdown()


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _hold_all_but_the_fuser(head: InteractiveNetwork) -> None:
    """Let only the fuser of a network learn, in place; batch statistics of the rest stay as they are."""
    fuser = getattr(head, "fuser", None)
    if not isinstance(fuser, nn.Module):
        raise TrainingSettingsError(
            f"a head_rate of 0 for a {head.config.family} network without a fuser",
            expected="a fuser, where nothing else is trained",
            fix="give the network a modality, or the head a rate",
        )
    head.eval().requires_grad_(False)
    fuser.train().requires_grad_(True)


def _groups(head: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; none on biases, norms and tables. The fuser has the whole rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or name.endswith(_UNDECAYED)
            groups.setdefault((name.startswith(FUSER), plain), []).append(parameter)
    return [
        {
            "params": groups[fused, plain],
            "weight_decay": 0.0 if plain else recipe.weight_decay,
            "share": 1.0 if fused else recipe.head_rate,
        }
        for fused, plain in sorted(groups)
    ]
