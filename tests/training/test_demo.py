"""The command that trains the demo's head, from frames to a checkpoint, on a tiny Hiera."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("cv2")

from mmms_deploy.bundle.contract import ClickContract, PreviousMask
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import MMMSConfig
from mmms_deploy.models.checkpoint import parse_description, read_checkpoint_file
from mmms_deploy.training import Recipe, new_network
from mmms_deploy.training.pipeline import write_checkpoint
from tests.support.davis import write_davis
from tests.support.hiera import sam2
from tests.support.tiny import HIERA, tiny_config
from training.davis import HELD_OUT, Frame
from training.demo import FIRST_FOLDER, Phase, demo_config, held_out_part, train_demo
from training.demo_thermal import PHASE as THERMAL_PHASE
from training.demo_thermal import train_demo_thermal
from training.proposals import Proposals

RECIPE = Recipe(steps=2, views=2, targets=1, rounds=(2,), round_weights=(1.0,), warmup=1, seed=5)
PHASES = (
    Phase(RECIPE, views=4, every=5, wholes=False),
    Phase(msgspec.structs.replace(RECIPE, steps=1, seed=6), views=3, every=1, wholes=True),
)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path / "davis", ("cows", HELD_OUT[0]), 2)


def _tiny() -> MMMSConfig:
    clicks = ClickContract(previous=PreviousMask.PROBABILITY)
    return tiny_config(size=(64, 64), backbone=HIERA, fpn_hidden=(8, 16, 16, 32), clicks=clicks)


class Proposer:
    """Proposes nothing, and notes the frames that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self) -> Callable[[Frame], Proposals]:
        return self._propose

    def _propose(self, frame: Frame) -> Proposals:
        self.asked.append(f"{frame.sequence}/{frame.name}")
        return Proposals(np.zeros((0, *frame.mask.shape), bool), np.zeros(0, np.float32))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({name: value for name, value in sam2().items() if ".trunk." in name}, path)
    return path


def test_a_run_makes_a_head_that_goes_with_the_backbones_file(davis: Path, tmp_path: Path, weights: Path) -> None:
    proposer = Proposer()

    def run(out: str, start: Path | None = None) -> Path:
        return train_demo(
            davis, tmp_path / out, weights, proposer, start=start, config=_tiny(), phases=PHASES, objects=1
        )

    checkpoint = run("run")
    assert proposer.asked == ["cows/00000", "cows/00001"]  # never a held-out sequence, and each frame once
    result = checkpoint.read_bytes()
    assert run("run").read_bytes() == result  # goes on from the last steps: there is nothing left to do
    network = open_source(Source(checkpoint=checkpoint, backbone_checkpoint=weights)).network
    trunk = network.backbone.state_dict()["encoder.trunk.patch_embed.proj.weight"]
    assert torch.equal(trunk, sam2()["image_encoder.trunk.patch_embed.proj.weight"])
    assert (tmp_path / "run" / "report.html").is_file()

    first = tmp_path / "run" / FIRST_FOLDER / "checkpoint.safetensors"
    assert first.read_bytes() != result
    assert run("again", first).read_bytes() == result  # the second phase alone, from the first one's head


def test_the_thermal_demo_is_the_demo_with_a_fuser(davis: Path, tmp_path: Path, weights: Path) -> None:
    start = save_head(tmp_path / "start.safetensors", weights)
    recipe = msgspec.structs.replace(THERMAL_PHASE.recipe, steps=2, views=2, targets=1, warmup=1)
    phase = replace(THERMAL_PHASE, recipe=recipe, views=3)

    def run(out: str) -> Path:
        return train_demo_thermal(davis, tmp_path / out, weights, Proposer(), start=start, phase=phase, objects=1)

    checkpoint = run("thermal")
    result = checkpoint.read_bytes()
    assert run("thermal").read_bytes() == result
    made, before = (read_checkpoint_file(path) for path in (checkpoint, start))
    (spec,) = parse_description(made.description, "it").modalities
    assert (spec.name, spec.optional) == ("thermal", True)
    assert all(torch.equal(made.state[name], value) for name, value in before.state.items())
    assert {name.split(".")[0] for name in made.state.keys() - before.state.keys()} == {"fuser"}


def save_head(path: Path, weights: Path) -> Path:
    """Write a new head as a run writes it: float16, without the backbone."""
    write_checkpoint(path, new_network(_tiny(), weights, 3), backbone=False, half=True)
    return path


def test_the_held_out_sequences_are_what_is_measured(davis: Path) -> None:
    part = held_out_part(davis)
    assert part.scene_names == (f"{HELD_OUT[0]}/00000", f"{HELD_OUT[0]}/00001")


def test_the_demo_is_a_small_head_on_sam_2_tiny() -> None:
    config = demo_config()
    assert (config.backbone.name, config.size) == ("sam2_hiera_t", (448, 448))
