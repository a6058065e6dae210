"""Checkpoints as training software writes them: nests, prefixes, averages, and objects beside the weights."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import random
import sys
import types
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError, Door, MMMSDeployWarning
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import CheckpointFile, read_checkpoint_file

State = dict[str, torch.Tensor]


def weights(offset: float = 0.0) -> State:
    """The weights of a network with the tops of names that MMMS has."""
    names = ("backbone.blocks.0.attn.qkv.weight", "backbone.cls_token", "fpn.down_4.1.bias", "csnet.norm1.weight")
    return {name: torch.arange(3.0) + 10 * number + offset for number, name in enumerate(names)}


def prefixed(state: State, *prefixes: str) -> State:
    return {"".join(prefixes) + name: tensor for name, tensor in state.items()}


def read(tmp_path, content: Any, choice: str | None = None, **how: Any) -> CheckpointFile:
    torch.save(content, tmp_path / "c.pt", **how)
    return read_checkpoint_file(tmp_path / "c.pt", choice)


def same(found: CheckpointFile, expected: State) -> bool:
    state = found.state
    return state.keys() == expected.keys() and all(torch.equal(state[n], expected[n]) for n in expected)


class TestPrefixes:
    @pytest.mark.parametrize(
        "prefixes",
        [
            ("_orig_mod.",),
            ("module.",),
            ("model.",),
            ("net.",),
            ("_orig_mod.", "module."),
            ("module.", "_orig_mod."),
            ("model.", "_orig_mod.", "module.", "net."),
            ("_forward_module.", "model."),
            ("module.", "module.", "model."),
        ],
        ids="".join,
    )
    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    def test_in_any_order_and_depth(self, tmp_path, prefixes, suffix) -> None:
        state = prefixed(weights(), *prefixes)
        if suffix == "pt":
            torch.save({"model": state}, tmp_path / "c.pt")
        else:
            save_file(state, tmp_path / "c.safetensors")
        assert same(read_checkpoint_file(tmp_path / f"c.{suffix}"), weights())

    def test_of_single_layers(self, tmp_path) -> None:
        state = {
            "model.backbone._orig_mod.blocks.0._checkpoint_wrapped_module.attn.qkv.weight": torch.arange(3.0),
            "model.backbone._orig_mod.cls_token": torch.arange(3.0) + 10,
            "fpn.module.down_4.1.bias": torch.arange(3.0) + 20,
            "model.module.csnet.norm1.weight": torch.arange(3.0) + 30,
        }
        assert same(read(tmp_path, state), weights())

    def test_what_a_training_module_holds_beside_its_network(self, tmp_path) -> None:
        state = prefixed(weights(), "model.") | {"criterion.weight": torch.ones(2), "val_iou.confmat": torch.ones(2)}
        with pytest.warns(MMMSDeployWarning, match="criterion.weight, val_iou.confmat belong to the training"):
            found = read(tmp_path, {"state_dict": state})
        assert same(found, weights())


class TestNests:
    @pytest.mark.parametrize(
        "nests",
        [
            ("state_dict",),
            ("model",),
            ("model_state_dict",),
            ("net",),
            ("weights",),
            ("params",),
            ("checkpoint", "model", "state_dict"),
            ("model", "module"),
        ],
        ids="/".join,
    )
    def test_any_depth(self, tmp_path, nests) -> None:
        content: Any = prefixed(weights(), "module.")
        for key in reversed(nests):
            content = {key: content, "epoch": 3, "step": torch.tensor(7)}
        found = read(tmp_path, content)
        assert same(found, weights())
        assert found.place == "/".join(nests)

    def test_the_same_weights_under_two_keys(self, tmp_path) -> None:
        state = weights()
        assert same(read(tmp_path, {"state_dict": state, "model": dict(state)}), weights())

    def test_two_full_sets(self, tmp_path) -> None:
        content = {"generator": weights(), "student": weights(1.0), "optimizer": {"state": {}, "param_groups": []}}
        with pytest.raises(
            CheckpointKeysError, match=r"several sets of weights: generator \(4 tensors\), student \(4 tensors\)"
        ) as caught:
            read(tmp_path, content)
        assert 'weights="generator"' in str(caught.value)
        assert "--weights generator" in caught.value.message(Door.COMMAND_LINE)
        assert same(read(tmp_path, content, "student"), weights(1.0))
        with pytest.raises(CheckpointKeysError, match="no weights 'teacher'"):
            read(tmp_path, content, "teacher")

    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    def test_two_networks_in_one_dict(self, tmp_path, suffix) -> None:
        state = prefixed(weights(), "student.") | prefixed(weights(1.0), "teacher.")
        path = tmp_path / f"c.{suffix}"
        torch.save(state, path) if suffix == "pt" else save_file(state, path)
        with pytest.raises(CheckpointKeysError, match=r"student \(4 tensors\), teacher \(4 tensors\)"):
            read_checkpoint_file(path)
        assert same(read_checkpoint_file(path, "teacher"), weights(1.0))

    def test_names_that_meet_without_their_prefixes(self, tmp_path) -> None:
        with pytest.raises(CheckpointKeysError, match=r"several sets of weights: model .*, net "):
            read(tmp_path, prefixed(weights(), "model.") | prefixed(weights(1.0), "net."))

    def test_a_file_without_weights(self, tmp_path) -> None:
        for content in ({}, {"epoch": 3}, [torch.zeros(1)], 3, {"optimizer": {"state": {0: {"step": torch.ones(1)}}}}):
            with pytest.raises(CheckpointCorruptError, match="holds no state dict"):
                read(tmp_path, content)

    def test_lists_in_circles(self, tmp_path) -> None:
        content: dict[str, Any] = {"state_dict": weights()}
        content["self"] = content["state_dict"]["again"] = content
        assert same(read(tmp_path, content), weights())


class TestAverages:
    KEYS = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ModelEMA", "averaged_model")

    @pytest.mark.parametrize("key", KEYS)
    def test_beside_the_trained_weights(self, tmp_path, key) -> None:
        content = {"model": weights(), key: prefixed(weights(1.0), "module.")}
        with pytest.warns(MMMSDeployWarning, match=rf"averaged weights \(EMA\) lie beside .* in {key} .*--weights ema"):
            found = read(tmp_path, content)
        assert same(found, weights())
        assert not found.averaged
        with pytest.warns(MMMSDeployWarning, match="averaged weights .* are taken"):
            found = read(tmp_path, content, "ema")
        assert same(found, weights(1.0))
        assert (found.averaged, found.place) == (True, key)

    def test_in_a_callback_of_lightning(self, tmp_path) -> None:
        content = {
            "state_dict": prefixed(weights(), "model."),
            "callbacks": {"EMA{'decay': 0.99}": {"ema_state_dict": weights(1.0)}, "ModelCheckpoint": {"best": 0.5}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}],
        }
        with pytest.warns(MMMSDeployWarning):
            assert same(read(tmp_path, content, "ema"), weights(1.0))

    @pytest.mark.parametrize("prefix", ["ema_model.module.", "model_ema.", "ema."])
    def test_in_the_same_dict(self, tmp_path, prefix) -> None:
        state = prefixed(weights(), "model.") | prefixed(weights(1.0), prefix) | {"model_ema.decay": torch.ones(())}
        with pytest.warns(MMMSDeployWarning):
            assert same(read(tmp_path, state), weights())
        with pytest.warns(MMMSDeployWarning):
            assert same(read(tmp_path, state, "ema"), weights(1.0))

    def test_alone(self, tmp_path) -> None:
        with pytest.warns(MMMSDeployWarning, match="are taken"):
            found = read(tmp_path, {"ema": {"n_averaged": torch.tensor(3), **prefixed(weights(1.0), "module.")}})
        assert same(found, weights(1.0))
        assert found.averaged

    def test_without_names(self, tmp_path) -> None:
        """In the order of the parameters; buffers are not averaged."""
        state = {**weights(), "csnet.bn.running_mean": torch.ones(3)}
        shadow = [tensor + 1 for tensor in weights().values()]
        content = {"model": state, "ema": {"decay": 0.99, "shadow_params": shadow}}
        with pytest.warns(MMMSDeployWarning, match="without names"):
            read(tmp_path, content)
        with pytest.warns(MMMSDeployWarning):
            found = read(tmp_path, content, "ema")
        assert same(found, {**weights(1.0), "csnet.bn.running_mean": torch.ones(3)})
        content["ema"]["shadow_params"] = shadow[:2]
        with pytest.raises(CheckpointKeysError, match="do not fit the 4 trained parameters"):
            read(tmp_path, content, "ema")

    def test_chosen_where_there_are_none(self, tmp_path) -> None:
        with pytest.raises(CheckpointKeysError, match="no averaged weights"):
            read(tmp_path, weights(), "ema")

    def test_of_random_weights(self) -> None:
        with pytest.raises(Exception, match="of random weights"):
            open_source(Source(random_seed=0, weights="ema"))


class Colour(enum.Enum):
    RED = 1


class Settings(dict):
    """A class of its own that is a dict, as configuration libraries have them."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fpn = nn.Linear(2, 2)
        self.register_buffer("table", torch.ones(2))


def stranger() -> Any:
    """An object of a module that is gone when the file is read, and that would say so if it were called."""
    module = types.ModuleType("omegaconf_like")

    class DictConfig:
        def __init__(self) -> None:
            self._content = {"lr": 0.1, "nested": [1, 2]}

        def __setstate__(self, state: Any) -> None:
            raise AssertionError("it was unpickled")

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf_like", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    sys.modules["omegaconf_like"] = module
    return DictConfig()


BESIDE: dict[str, Callable[[], Any]] = {
    "numpy scalar": lambda: np.float64(0.5),
    "numpy array": lambda: np.arange(3),
    "numpy random state": np.random.get_state,
    "torch random state": torch.get_rng_state,
    "python random state": random.getstate,
    "path": lambda: pathlib.PosixPath("/data/x"),
    "windows path": lambda: pathlib.PureWindowsPath("C:/x"),
    "date": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "namespace": lambda: argparse.Namespace(lr=0.1, out=pathlib.PosixPath("/x")),
    "defaultdict": lambda: collections.defaultdict(list, {"a": [1]}),
    "counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([1, 2]),
    "partial": lambda: functools.partial(nn.LayerNorm, eps=1e-6),
    "enum": lambda: Colour.RED,
    "flags": lambda: {Colour.RED: 1, "set": {1, 2}, "frozen": frozenset({3})},
    "a dict of its own class": lambda: Settings(a=1, b=Settings(c=2)),
    "an object of a module that is gone": stranger,
    "dtype and device": lambda: [torch.float16, torch.device("cpu"), torch.Size([1])],
    "bytes": lambda: [b"x", bytearray(b"y"), 10**30, 1j],
    "class": lambda: nn.Linear,
}


class TestObjectsBeside:
    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
    @pytest.mark.parametrize("name", list(BESIDE))
    def test_they_are_passed_over(self, tmp_path, name, old, protocol) -> None:
        what = BESIDE[name]()
        content = {"what": what, "state_dict": weights(), "more": [what]}
        how = {"_use_new_zipfile_serialization": not old, "pickle_protocol": protocol}
        torch.save(content, tmp_path / "c.pt", **how)
        sys.modules.pop("omegaconf_like", None)
        assert same(read_checkpoint_file(tmp_path / "c.pt"), weights())

    def test_a_network_that_was_pickled_whole(self, tmp_path) -> None:
        network = Net()
        assert same(read(tmp_path, {"model": network, "epoch": 1}), network.state_dict())
        assert same(read(tmp_path, network), network.state_dict())

    def test_an_optimizer(self, tmp_path) -> None:
        network = Net()
        optimizer = torch.optim.Adam(network.parameters())
        network.fpn(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        content = {
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "optim_g": optimizer.state_dict(),
        }
        assert same(read(tmp_path, content), network.state_dict())

    def test_parameters_and_views(self, tmp_path) -> None:
        base = torch.arange(24.0)
        state = {
            "fpn.parameter": nn.Parameter(torch.ones(2)),
            "fpn.view": base[4:8],
            "fpn.transposed": base.reshape(4, 6).T,
            "fpn.expanded": torch.ones(1, 3).expand(2, 3),
            "fpn.scalar": torch.tensor(2.0),
            "fpn.empty": torch.empty(0, 3),
            "fpn.half": torch.ones(2, dtype=torch.bfloat16),
        }
        for old in (False, True):
            assert same(read(tmp_path, state, _use_new_zipfile_serialization=not old), state)


class TestNothingIsCalled:
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_deep_tuples_do_not_hang(self, tmp_path, protocol) -> None:
        """Each holds the one before it twice: hashing or printing the last takes for ever."""
        deep = b"K\x01K\x01\x86" + b"2\x86" * 60
        pickled = b"\x80\x02}(X\x01\x00\x00\x00a" + deep + deep + b"K\x01X\x06\x00\x00\x00config" + deep + b"u."
        buffer = io.BytesIO()
        torch.save({"w": torch.zeros(1)}, buffer)
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "c.pt", "w") as target:
            for name in source.namelist():
                target.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
        with pytest.raises(CheckpointCorruptError, match="no state dict"):
            read_checkpoint_file(tmp_path / "c.pt")

    @pytest.mark.parametrize("where", ["offset", "size", "stride"])
    def test_numbers_outside_of_the_file(self, tmp_path, where, monkeypatch) -> None:
        from mmms_deploy.weights import passive_pickle

        real = passive_pickle._MAKERS["torch._utils._rebuild_tensor_v2"]
        wrong = {"offset": {1: 10**6}, "size": {2: (10**6,)}, "stride": {3: (-1,)}}[where]

        def make(args):
            return real(tuple(wrong.get(place, value) for place, value in enumerate(args)))

        makers = {**passive_pickle._MAKERS, "torch._utils._rebuild_tensor_v2": make}
        monkeypatch.setattr(passive_pickle, "_MAKERS", makers)
        with pytest.raises(CheckpointCorruptError, match=r"outside of its storage|impossible shape"):
            read(tmp_path, {"fpn.w": torch.zeros(3)})

    def test_every_prefix_of_a_file_is_refused_by_name(self, tmp_path) -> None:
        for old in (False, True):
            torch.save({"state_dict": weights()}, tmp_path / "c.pt", _use_new_zipfile_serialization=not old)
            whole = (tmp_path / "c.pt").read_bytes()
            for length in range(1, len(whole) - 1, 37):
                (tmp_path / "cut.pt").write_bytes(whole[:length])
                with pytest.raises(CheckpointCorruptError):
                    read_checkpoint_file(tmp_path / "cut.pt")
