"""Train a demo network: ``python -m training.train --data ../shared/data/davis --out training/runs/demo``.

A run can be stopped at any time; the same command goes on from the last state. On one machine's CPU the continued run
computes the same bits as an uninterrupted one: every step's pictures and clicks are functions of the seed and the step.
"""

from __future__ import annotations

import copy
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click as cli
import cv2
import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from mmms_deploy.models import MMMS, MMMSConfig
from mmms_deploy.models.checkpoint import save_checkpoint
from mmms_deploy.training.clicks import ClickMaps
from mmms_deploy.training.mixing import mix_batch
from mmms_deploy.training.network import FUSER
from mmms_deploy.training.replicas import average_statistics, follow, gather_gradients, replicate
from mmms_deploy.training.rounds import Round, RoundRules, Targets, click_rounds
from training.batches import Batch, Batches, stream
from training.davis import read_frames, split, with_regions
from training.guides import Guides
from training.predictor import normalised
from training.recipe import SEED, Demo, Recipe, config_for, demo_config, initial_network, recipe_for
from training.weights import resized_state

CLICK_STREAM = 1
"""Third word of the seed of clicks; pictures have a shorter key."""

LOG_EVERY = 20
"""Steps averaged in a line of the log."""


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; none on biases, norms and position tables.

    Where a run starts from a checkpoint, the weights from there have groups of their own, with another ``share`` of the
    learning rate.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.endswith(("pos_embed", "cls_token", "reg_token"))
        started = recipe.start is not None and not name.startswith(FUSER)
        groups.setdefault((started, plain), []).append(parameter)
    return [
        {
            "params": groups[started, plain],
            "weight_decay": 0.0 if plain else recipe.weight_decay,
            "share": recipe.start_rate if started else 1.0,
        }
        for started, plain in sorted(groups)
    ]


@dataclass(slots=True)
class Run:
    """A training run: the network, its averaged copy, the optimiser, and where they stand.

    On a CPU every thread takes a share of the batch through a replica of the network (shared weights, own gradients).
    That is faster than two threads inside each of a thousand small operations, and does not suffer from a busy machine.

    Attributes:
        recipe: Settings.
        config: The network at its final size.
        device: Where to compute.
        threads: Replicas that work at the same time; part of what makes a run repeatable.
        step: Steps done.
    """

    recipe: Recipe
    config: MMMSConfig
    device: torch.device
    threads: int = 1
    step: int = 0
    model: MMMS = field(init=False)
    average: MMMS = field(init=False)
    guides: Guides = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    _phase: int = field(init=False, default=0)
    _replicas: list[MMMS] = field(init=False)
    _guide_replicas: list[Guides] = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        # torch's thread count belongs to the calling thread.
        self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        torch.manual_seed(self.recipe.seed)
        self.guides = Guides(self.config.widths).to(self.device)
        self._guide_replicas = replicate(self.guides, self.threads)
        self._enter(initial_network(self._config(0), self.recipe))
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()

    def _config(self, phase: int) -> MMMSConfig:
        side = self.recipe.phases[phase].size
        return msgspec.structs.replace(self.config, size=(side, side))

    def _enter(self, model: MMMS) -> None:
        self.model = model.to(self.device).train()
        self._replicas = replicate(self.model, self.threads)
        groups = parameter_groups(self.model, self.recipe)
        groups.append({"params": list(self.guides.parameters()), "weight_decay": 0.0, "share": 1.0})
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-7)

    def _go_to_phase(self, phase: int) -> None:
        """Rebuild the networks at the size of a phase; moments carry over except where the shape changed."""
        old, average, moments = self.model, self.average, self.optimizer.state_dict()
        config = self._config(phase)
        model, mean = MMMS(config), MMMS(config)
        model.load_state_dict(resized_state(old.state_dict(), model))
        mean.load_state_dict(resized_state(average.state_dict(), mean))
        shapes = [parameter.shape for group in self.optimizer.param_groups for parameter in group["params"]]
        self._enter(model)
        self.average = mean.to(self.device).requires_grad_(False).eval()
        fresh = [parameter.shape for group in self.optimizer.param_groups for parameter in group["params"]]
        moments["state"] = {i: s for i, s in moments["state"].items() if shapes[i] == fresh[i]}
        self.optimizer.load_state_dict(moments)
        self._phase = phase

    def train_step(self, batch: Batch) -> list[Round]:
        """One optimiser step.

        Args:
            batch: See :class:`Batches`.

        Returns:
            The result of every click round.
        """
        phase = self.recipe.phase_at(self.step)
        if phase != self._phase:
            self._go_to_phase(phase)
        rate = self.recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        rng = np.random.default_rng([self.recipe.seed, self.step, CLICK_STREAM])
        rounds = int(rng.choice(self.recipe.rounds, p=self.recipe.round_weights))
        images = len(batch.images)
        shares = [
            self._pool.submit(self._accumulate, k, batch.share(k, self.threads), images, rounds)
            for k in range(min(self.threads, images))
        ]
        results = [share.result() for share in shares]
        self._gather()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return [
            Round(float(np.mean([r.loss for r in same])), float(np.mean([r.iou for r in same])))
            for same in zip(*results, strict=True)
        ]

    def _accumulate(self, number: int, batch: Batch, total: int, rounds: int) -> list[Round]:
        """Gradients of all rounds: the image part runs once, the click part once a round for all targets.

        Args:
            number: Number of the replica that collects the gradients.
            batch: This replica's share.
            total: Pictures of the whole batch.
            rounds: Click rounds.
        """
        model, guides = self._replicas[number], self._guide_replicas[number]
        rng = np.random.default_rng([self.recipe.seed, self.step, CLICK_STREAM, number])
        images, targets, regions, thermal, present = (part.to(self.device) for part in batch)
        count, per_image = targets.shape[:2]
        rgb = normalised(images, self.config.image)
        if self.config.modalities:
            thermal = normalised(thermal, self.config.modalities[0])
        truth = targets.flatten(0, 1)[:, None]
        first_weight = torch.where(regions.flatten(), self.recipe.region_weight, 1.0)
        owner = torch.arange(count, device=self.device).repeat_interleave(per_image)
        maps = ClickMaps(batch.targets.flatten(0, 1).numpy(), rng)
        maps.first()
        with torch.autocast(self.device.type, torch.bfloat16):
            names = [spec.name for spec in self.config.modalities]
            heat, given = dict.fromkeys(names, thermal), dict.fromkeys(names, present)
            features = mix_batch(model, model.encode(rgb), heat, given)
        # Each round's gradient stops at these leaves; they collect it for one pass through the image part.
        leaves = tuple(feature.detach().requires_grad_() for feature in features)
        if self.recipe.guide_weight:
            seeds = torch.from_numpy(maps.maps[:, :1].copy()).to(self.device)
            (guides(leaves, owner, truth, seeds) * (self.recipe.guide_weight * count / total)).backward()
        rules = RoundRules(self.recipe.first_gamma, self.recipe.gamma, self.recipe.iou_weight, self.recipe.iou_weight)
        asked = Targets(owner, truth, first_weight)
        results = click_rounds(model, leaves, maps, asked, rules, rounds, count / total)
        torch.autograd.backward(features, [leaf.grad for leaf in leaves])
        return results

    def _gather(self) -> None:
        """Sum the replicas' gradients and average their batch statistics, in a fixed order."""
        gather_gradients(self._replicas)
        gather_gradients(self._guide_replicas)
        average_statistics(self._replicas)

    def _update_average(self) -> None:
        """Move the averaged weights and the batch statistics towards the current ones."""
        follow(self.average, self.model, min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step)))

    def save(self, path: Path) -> None:
        """Write everything a continued run needs, atomically."""
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "guides": self.guides.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "phase": self._phase,
            "rng": torch.get_rng_state(),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a written state.

        Raises:
            ValueError: The state belongs to a run with other settings.
        """
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe)):
            raise ValueError(
                f"{path} was written with other settings; choose another --out, or delete it to start over"
            )
        if state["phase"] != self._phase:
            self._go_to_phase(state["phase"])
        self.model.load_state_dict(state["model"])
        for replica in self._replicas[1:]:
            replica.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.guides.load_state_dict(state["guides"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        torch.set_rng_state(state["rng"])

    def averaged(self) -> MMMS:
        """The averaged network at its own size, on the CPU."""
        model = MMMS(self.config)
        model.load_state_dict(resized_state(self.average.cpu().state_dict(), model))
        self.average.to(self.device)
        return model.eval()


def run_training(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    *,
    config: MMMSConfig | None = None,
    threads: int = 2,
    workers: int = 1,
    save_every: float = 120.0,
    console: Console | None = None,
) -> Run:
    """Train, or go on training, until the recipe's last step.

    Args:
        recipe: Settings.
        data: DAVIS folder; ``None`` draws everything.
        out: Folder of the run: ``state.pt``, ``weights.safetensors`` (averaged weights), ``log.jsonl``.
        config: The network at its final size; ``None`` is the demo network.
        threads: Replicas that work at the same time on a CPU; a GPU has one.
        workers: Processes that make pictures; 0 makes them in this one.
        save_every: Seconds between two states.
        console: Where to draw the progress bar.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = Run(recipe, config or demo_config(), device, threads if device.type == "cpu" else 1)
    state, weights = out / "state.pt", out / "weights.safetensors"
    if state.is_file():
        run.load(state)
    cache = out.parent / "cache" / "regions.npz"
    batches = Batches(recipe, data, cache)
    if data is not None and not cache.is_file():
        with_regions(read_frames(data, split(data)[0]), cache)
    console = console or Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f} IoU {task.fields[first]:.3f} > {task.fields[last]:.3f}"),
    )
    saved = time.monotonic()
    started, cpu = time.time(), time.process_time()
    with Progress(*columns, console=console) as bar, (out / "log.jsonl").open("a") as log:
        task = bar.add_task(
            f"training on {device.type}", total=recipe.steps, completed=run.step, loss=0.0, first=0.0, last=0.0
        )
        window: list[list[Round]] = []
        for batch in stream(batches, run.step, workers):
            window.append(run.train_step(batch))
            bar.update(task, completed=run.step)
            if run.step % LOG_EVERY == 0 or run.step == recipe.steps:
                line = {
                    "step": run.step,
                    "size": recipe.phases[recipe.phase_at(run.step - 1)].size,
                    "rate": recipe.rate(run.step - 1),
                    "loss": float(np.mean([r.loss for rounds in window for r in rounds])),
                    "first": float(np.mean([rounds[0].iou for rounds in window])),
                    "second": float(np.mean([rounds[1].iou for rounds in window if len(rounds) > 1] or [np.nan])),
                    "last": float(np.mean([rounds[-1].iou for rounds in window])),
                    "seconds": time.time() - started,
                    "cpu_seconds": time.process_time() - cpu,
                }
                bar.update(task, loss=line["loss"], first=line["first"], last=line["last"])
                log.write(json.dumps(line) + "\n")
                log.flush()
                window = []
            if time.monotonic() - saved > save_every:
                run.save(state)
                save_checkpoint(weights, run.averaged())
                saved = time.monotonic()
    run.save(state)
    save_checkpoint(weights, run.averaged())
    return run


@cli.command()
@cli.option(
    "--demo",
    type=cli.Choice([demo.value for demo in Demo]),
    default=Demo.RGB.value,
    show_default=True,
    help="Which of the networks that ship.",
)
@cli.option(
    "--data", type=cli.Path(path_type=Path), required=True, help="DAVIS folder: images/SEQ/*.jpg, masks/SEQ/*.png."
)
@cli.option("--out", type=cli.Path(path_type=Path), required=True, help="Folder of the run; goes on where it stopped.")
@cli.option("--threads", default=2, show_default=True, help="Threads on a CPU.")
@cli.option("--workers", default=1, show_default=True, help="Processes that make pictures.")
@cli.option("--seed", default=SEED, show_default=True, help="Seed of weights, pictures and clicks.")
def main(demo: str, data: Path, out: Path, threads: int, workers: int, seed: int) -> None:
    """Train a demo network."""
    chosen = Demo(demo)
    run_training(recipe_for(chosen, seed), data, out, config=config_for(chosen), threads=threads, workers=workers)


if __name__ == "__main__":
    main()
