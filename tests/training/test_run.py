"""Steps, states and the loop: a continued run computes the bits of one that was never stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("cv2")

from mmms_deploy.errors import Door
from mmms_deploy.models.checkpoint import read_checkpoint_file
from mmms_deploy.progress import Progress
from mmms_deploy.training.errors import (
    TrainingDataError,
    TrainingError,
    TrainingInUseError,
    TrainingSettingsError,
    TrainingStateError,
)
from mmms_deploy.training.loop import LOG_FILE, STATE_FILE, read_log
from mmms_deploy.training.measure import HeldOut
from mmms_deploy.training.occupied import occupied
from mmms_deploy.training.pipeline import Training, takes_bfloat16, write_checkpoint
from mmms_deploy.training.run import Elsewhere
from tests.support.trainable import CPU, HEAT, Squares, narrow_network, small_recipe, small_training


def states_equal(a: Training, b: Training) -> bool:
    one, other = a.run.state(), b.run.state()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("modalities", [(), (HEAT,)])
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, modalities: tuple) -> None:
    cache = tmp_path / "features"
    with small_training(tmp_path / "whole", *modalities, cache=cache) as whole:
        whole.compute_features()
        whole.train()

        def stop(step: Progress) -> None:
            if step.done == 4:
                raise KeyboardInterrupt

        with small_training(tmp_path / "part", *modalities, cache=cache) as part, pytest.raises(KeyboardInterrupt):
            part.train(on_progress=stop)
        with small_training(tmp_path / "part", *modalities, cache=cache) as again:
            assert again.resume()
            assert again.run.step == 4
            again.train()
            assert states_equal(whole, again)
    lines = read_log(tmp_path / "part")
    assert lines[-1]["step"] == 6
    assert not list((tmp_path / "part").glob(".*.partial"))


def test_what_was_logged_after_the_state_is_dropped(tmp_path: Path) -> None:
    with small_training(tmp_path) as training:
        training.compute_features()
        training.train()
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write(json.dumps({"step": 9, "loss": 1.0}) + '\n{"step": 1')
    with small_training(tmp_path) as training:
        assert training.resume()
        training.train()
    assert [line["step"] for line in read_log(tmp_path)] == [6]


def test_the_loss_falls_and_the_backbone_stays(tmp_path: Path) -> None:
    recipe = small_recipe(steps=60, learning_rate=3e-3, rounds=(2,), round_weights=(1.0,), gamma=0.0, views=4)
    network = narrow_network()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    with Training(network, Squares(), tmp_path, recipe, device=CPU, threads=2) as training:
        training.compute_features()
        trained = training.train()
    lines = [line for line in read_log(tmp_path) if "loss" in line]
    assert lines[-1]["loss"] < 0.85 * lines[0]["loss"]
    assert lines[-1]["last"] > lines[0]["last"]
    after = trained.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not trained.training


def test_the_threads_collect_the_whole_gradient(tmp_path: Path) -> None:
    with small_training(tmp_path) as training:
        training.compute_features()
        training.train()
        assert all(torch.isfinite(value).all() for value in training.run.state().values())
        first, second = training.run._replicas
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(first.parameters(), second.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))
        assert isinstance(first.backbone, Elsewhere)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"recipe": small_recipe(seed=8)}, r"the settings was|the settings were|seed 7, now 8"),
        ({"threads": 1}, "the number of threads was"),
        ({"start": "abc"}, "the checkpoint to start from was"),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(tmp_path: Path, changes: dict, word: str) -> None:
    with small_training(tmp_path) as training:
        training.compute_features()
        training.train()
    with small_training(tmp_path, **changes) as other, pytest.raises(TrainingStateError, match=word) as caught:
        other.resume()
    assert "--fresh" in caught.value.message(Door.COMMAND_LINE)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    with small_training(tmp_path) as training:
        (tmp_path / STATE_FILE).write_bytes(b"nothing")
        with pytest.raises(TrainingStateError, match="cannot be read"):
            training.resume()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_state(tmp_path: Path) -> None:
    with small_training(tmp_path) as training:
        training.compute_features()
        with torch.no_grad():
            training.run.head.csnet.decode_head.linear_pred.bias.fill_(float("nan"))
        with pytest.raises(TrainingError, match="step 1 is no finite number"):
            training.train()
    assert not (tmp_path / STATE_FILE).exists()


def test_an_estimate_says_what_is_to_come_and_changes_nothing(tmp_path: Path) -> None:
    with small_training(tmp_path, HEAT) as training:
        before = {name: value.clone() for name, value in training.run.state().items()}
        found = training.estimate()
        assert (found.views, found.missing, found.steps) == (6, 6, 6)
        assert found.parameters == sum(p.numel() for p in training.run.head.parameters())
        assert found.seconds == pytest.approx(6 * found.view_seconds + 6 * found.step_seconds)
        assert all(torch.equal(training.run.state()[name], value) for name, value in before.items())
        training.compute_features()
        assert training.estimate().missing == 0
    with (
        Training(narrow_network(), Squares(0), tmp_path / "none", small_recipe(), device=CPU) as empty,
        pytest.raises(TrainingDataError, match="no scene has an object"),
    ):
        empty.estimate()


def test_measurements_are_logged_at_their_steps(tmp_path: Path) -> None:
    with small_training(tmp_path) as training:
        training.compute_features()
        training.train(measure=lambda run: {"at": run.step}, measure_every=2)
    assert [line["measured"]["at"] for line in read_log(tmp_path) if "measured" in line] == [2, 4]


def test_a_checkpoint_has_the_backbone_or_not(tmp_path: Path) -> None:
    network = narrow_network()
    sizes = {}
    for backbone in (True, False):
        for half in (True, False):
            path = tmp_path / f"{backbone}-{half}.safetensors"
            sizes[backbone, half] = write_checkpoint(path, network, backbone=backbone, half=half)
            names = read_checkpoint_file(path).state
            assert any(name.startswith("backbone.") for name in names) == backbone
    assert sizes[True, True] < 0.6 * sizes[True, False]
    assert sizes[False, False] < sizes[True, False]


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with (
        occupied(tmp_path / "run"),
        pytest.raises(TrainingInUseError, match="another run"),
        occupied(tmp_path / "run"),
    ):
        pass
    with occupied(tmp_path / "run"):
        pass


def test_narrow_convolutions_are_not_trained_in_bfloat16() -> None:
    assert not takes_bfloat16(torch.nn.Conv2d(8, 8, 4), CPU)
    assert takes_bfloat16(torch.nn.Conv2d(8, 8, 4), torch.device("cuda"))


def test_held_out_scenes_without_any_measure_nothing() -> None:
    assert len(HeldOut([], narrow_network())) == 0


def test_the_fuser_learns_alone_where_the_head_has_no_rate(tmp_path: Path) -> None:
    recipe = small_recipe(head_rate=0.0, modality_dropout=0.5)
    with small_training(tmp_path, HEAT, recipe=recipe) as training:
        before = {name: value.clone() for name, value in training.run.head.state_dict().items()}
        training.compute_features()
        training.train()
        for after in (training.run.head.state_dict(), training.run.average.state_dict()):
            changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
            assert changed
            assert all(name.startswith("fuser.") for name in changed)


def test_a_step_without_any_heat_leaves_a_fuser_that_learns_alone(tmp_path: Path) -> None:
    recipe = small_recipe(head_rate=0.0, modality_dropout=1.0, steps=2)
    with small_training(tmp_path, HEAT, recipe=recipe) as training:
        before = {name: value.clone() for name, value in training.run.head.state_dict().items()}
        training.compute_features()
        training.train()
        assert all(torch.equal(value, before[name]) for name, value in training.run.head.state_dict().items())


def test_nothing_is_trained_without_a_fuser_and_a_rate(tmp_path: Path) -> None:
    with pytest.raises(TrainingSettingsError, match="head_rate of 0 for a mmms network without a fuser"):
        small_training(tmp_path, recipe=small_recipe(head_rate=0.0))


def test_the_head_learns_at_a_share_of_the_fusers_rate(tmp_path: Path) -> None:
    recipe = small_recipe(head_rate=0.25)
    with small_training(tmp_path, HEAT, recipe=recipe) as training:
        run = training.run
        fuser = {id(p) for name, p in run.head.named_parameters() if name.startswith("fuser.")}
        groups = run._optimizer.param_groups
        for group in groups:
            own = {id(p) for p in group["params"]}
            assert own <= fuser or not own & fuser
            assert group["share"] == (1.0 if own <= fuser else 0.25)
        assert sum(len(group["params"]) for group in groups) == len(list(run.head.parameters()))
