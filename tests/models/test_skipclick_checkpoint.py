"""Official SkipClick files: recognised, described by their own config, and never executed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError, DescriptionError, Door
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models import SkipClick, SkipClickConfig
from mmms_deploy.models.checkpoint import parse_description, read_checkpoint_file
from mmms_deploy.models.skipclick_checkpoint import MODEL_CLASS
from tests.support.skipclick import (
    NARROW,
    official_config,
    save_official,
    tiny_official,
    tiny_skipclick,
)

BACKBONE = {"name": "dinov2_b14_reg", "blocks": [3, 6, 9, 12], "overrides": NARROW}
"""An official config cannot say that the extractor is narrow."""
FULL = {"backbone_params": official_config(SkipClickConfig())["params"]["backbone_params"]["value"]}


def opened(path: Path, **overrides: Any) -> SkipClick:
    network = open_source(Source(checkpoint=path, overrides={"backbone": BACKBONE} | overrides)).network
    assert isinstance(network, SkipClick)
    return network


class TestDescription:
    def test_the_published_network(self, tmp_path) -> None:
        """The config of SkipClick itself equals the defaults of our configuration."""
        save_official(tmp_path / "s.pth", {"w": torch.zeros(1)}, SkipClickConfig())
        file = read_checkpoint_file(tmp_path / "s.pth")
        config = parse_description(file.description, "test")
        assert file.problem is None
        assert config.backbone.blocks == (3, 6, 9, 12)
        assert config == SkipClickConfig(backbone=config.backbone)

    @pytest.mark.parametrize("variant", [{"levels": (1,), "skips": False}, {"skips": False}, {"mix_depth": 3}])
    def test_variants(self, tmp_path, variant) -> None:
        config = tiny_skipclick(size=(56, 56), **variant)
        tiny_official(tmp_path / "s.pth", config)
        network = opened(tmp_path / "s.pth")
        assert (network.config.levels, network.config.skips) == (config.levels, config.skips)
        assert len(network.backbone_mix.blocks) == config.mix_depth

    def test_what_the_config_decides(self, tmp_path) -> None:
        tiny_official(tmp_path / "s.pth", norm_radius=3, norm_mean_std=((0.5, 0.5, 0.5), (0.2, 0.3, 0.4)))
        config = opened(tmp_path / "s.pth").config
        assert config.clicks.radius == 3
        assert (config.image.mean, config.image.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))

    def test_older_files_lack_what_came_later(self, tmp_path) -> None:
        config = official_config(tiny_skipclick(size=(56, 56), skips=False))
        for name in ("backbone_weight_path", "backbone_repo_path", "use_conv_stack"):
            del config["params"][name]
        state = tiny_official(tmp_path / "s.pth", tiny_skipclick(size=(56, 56), skips=False))
        torch.save({"state_dict": state, "config": config}, tmp_path / "old.pth")
        assert not opened(tmp_path / "old.pth").config.skips

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"use_disks": False}, "use_disks = False"),
            ({"with_prev_mask": False}, "with_prev_mask = False"),
            ({"random_split": True}, "random_split = True"),
            ({"use_conv_stack": True}, "use_conv_stack = True"),
            ({"use_intermediate": [1, 2, 3]}, r"use_intermediate = \[1, 2, 3\]"),
            ({"use_intermediate": None}, "use_intermediate = None"),
            ({"extractor_type": "sam"}, "extractor_type = 'sam'"),
            ({"extractor_type": "dinov3"}, "extractor_type = 'dinov3'"),
            ({"skip_connections": "yes"}, "skip_connections = 'yes'"),
            ({"norm_radius": -5}, "norm_radius = -5"),
            ({"norm_mean_std": 1.0}, "norm_mean_std = 1.0"),
            ({"use_windows": True}, "use_windows = True"),
            ({"backbone_params": [1]}, r"backbone_params = \[1\]"),
            ({"backbone_params": FULL["backbone_params"] | {"patch_size": (16, 16)}}, r"patch_size = \(16, 16\)"),
            ({"backbone_params": FULL["backbone_params"] | {"window": 7}}, "backbone_params.window = 7"),
            ({"backbone_params": FULL["backbone_params"] | {"depth": 2.5}}, "depth = 2.5"),
            ({"backbone_params": FULL["backbone_params"] | {"img_size": 448}}, "img_size = 448"),
            ({"neck_params": {"in_dim": 24}}, "neck_params.out_dims = None"),
            ({"head_params": {"upsample": "x2"}}, "head_params.upsample = 'x2'"),
            ({"head_params": {"num_classes": 2}}, "head_params.num_classes = 2"),
        ],
    )
    def test_values_that_no_published_network_has(self, tmp_path, changes, message) -> None:
        tiny_official(tmp_path / "s.pth", **changes)
        with pytest.raises(DescriptionError, match=f"(?s){message}.*pass it as description") as caught:
            opened(tmp_path / "s.pth")
        assert "--description" in caught.value.message(Door.COMMAND_LINE)

    def test_a_switch_that_is_off_may_be_there(self, tmp_path) -> None:
        config = tiny_skipclick(size=(56, 56))
        params = official_config(config)["params"]["backbone_params"]["value"]
        tiny_official(tmp_path / "s.pth", config, backbone_params=params | {"use_window": False, "window": None})
        opened(tmp_path / "s.pth")

    def test_another_class(self, tmp_path) -> None:
        config = official_config(tiny_skipclick()) | {"class": "isegm.model.is_deeplab_model.DeeplabModel"}
        torch.save({"state_dict": {"w": torch.zeros(1)}, "config": config}, tmp_path / "s.pth")
        with pytest.raises(DescriptionError, match=f"(?s)DeeplabModel.*{MODEL_CLASS}"):
            opened(tmp_path / "s.pth")

    @pytest.mark.parametrize(
        ("config", "message"),
        [(None, "no config"), ({"epoch": 3}, "without class and params"), (3, "without class and params")],
    )
    def test_a_missing_config(self, tmp_path, config, message) -> None:
        state = tiny_official(tmp_path / "s.pth")
        torch.save({"state_dict": state} | ({} if config is None else {"config": config}), tmp_path / "bare.pth")
        with pytest.raises(DescriptionError, match=f"(?s){message}.*family = .skipclick"):
            opened(tmp_path / "bare.pth")

    def test_missing_parameters(self, tmp_path) -> None:
        state = tiny_official(tmp_path / "s.pth")
        config = official_config(tiny_skipclick())
        del config["params"]["norm_radius"]
        torch.save({"state_dict": state, "config": config}, tmp_path / "s.pth")
        with pytest.raises(DescriptionError, match=r"has no norm_radius, but .*use_disks"):
            opened(tmp_path / "s.pth")

    def test_dinov3(self, tmp_path) -> None:
        state = tiny_official(tmp_path / "s.pth")
        renamed = {name.replace("dinov2", "dinov3"): tensor for name, tensor in state.items()}
        save_official(tmp_path / "s.pth", renamed, tiny_skipclick())
        with pytest.raises(DescriptionError, match="DINOv3 is not supported"):
            opened(tmp_path / "s.pth")

    def test_a_description_beside_it_wins(self, tmp_path) -> None:
        tiny_official(tmp_path / "s.pth", use_windows=True)
        toml = tmp_path / "s.toml"
        toml.write_text(
            'family = "skipclick"\nsize = [56, 56]\nmix_depth = 2\nmix_heads = 3\nneck_widths = [8, 16, 16, 32]\n'
            "head_width = 16\n"
        )
        source = Source(checkpoint=tmp_path / "s.pth", description=toml, overrides={"backbone": BACKBONE})
        assert isinstance(open_source(source).network, SkipClick)


class TestKeys:
    def test_every_tensor_arrives(self, tmp_path) -> None:
        state = tiny_official(tmp_path / "s.pth")
        network = opened(tmp_path / "s.pth")
        own = network.state_dict()
        for name, tensor in state.items():
            if not name.startswith(("feature_extractor.", "head.up_conv")):
                assert torch.equal(own.pop(name), tensor), name
        assert all(name.startswith("backbone.vit.") for name in own)
        prefix = "feature_extractor.dinov2."
        for name in ("blocks.11.ls2.gamma", "blocks.0.attn.qkv.weight", "patch_embed.proj.bias"):
            assert torch.equal(own[f"backbone.vit.{name}"], state[prefix + name])
        assert torch.equal(own["backbone.vit.reg_token"], state[prefix + "register_tokens"])

    def test_what_is_unread_may_be_missing(self, tmp_path) -> None:
        state = tiny_official(tmp_path / "s.pth")
        lean = {n: t for n, t in state.items() if "up_conv" not in n and not n.endswith("mask_token")}
        save_official(tmp_path / "s.pth", lean, tiny_skipclick(size=(56, 56)))
        opened(tmp_path / "s.pth")

    def test_wrong_keys_are_listed(self, tmp_path) -> None:
        state = tiny_official(tmp_path / "s.pth")
        state["neck.down_4.9.bias"] = torch.zeros(1)
        state["head.up_conv3.0.bias"] = torch.zeros(1)
        state["neck.down_16.0.weight"] = torch.zeros(1, 2, 3, 3)
        del state["feature_extractor.dinov2.blocks.3.norm1.weight"], state["fuse.bias"]
        save_official(tmp_path / "s.pth", state, tiny_skipclick(size=(56, 56)))
        with pytest.raises(CheckpointKeysError) as caught:
            opened(tmp_path / "s.pth")
        text = str(caught.value)
        assert "2 keys missing, 2 unexpected, 1 misshapen" in text
        for part in ("backbone.blocks.3.norm1.weight", "fuse.bias", "neck.down_4.9.bias", "head.up_conv3.0.bias"):
            assert part in text
        assert "neck.down_16.0.weight: [1, 2, 3, 3], expected [16, 48, 1, 1]" in text

    def test_a_config_that_fits_other_weights(self, tmp_path) -> None:
        """The config has one feature, and the weights fuse four."""
        tiny_official(tmp_path / "s.pth", use_intermediate=[11])
        with pytest.raises(CheckpointKeysError, match=r"unexpected fuse\.weight"):
            opened(tmp_path / "s.pth")

    def test_another_size_resamples_both_tables(self, tmp_path) -> None:
        """Both bicubic: the mixing blocks' table without antialiasing, the extractor's with it."""
        state = tiny_official(tmp_path / "s.pth")
        network = opened(tmp_path / "s.pth", size=[84, 56])

        def resampled(table: torch.Tensor, side: int, **how: Any) -> torch.Tensor:
            maps = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
            maps = torch.nn.functional.interpolate(maps, size=(6, 4), mode="bicubic", align_corners=False, **how)
            return maps.permute(0, 2, 3, 1).reshape(1, 24, -1)

        mix = resampled(state["backbone_mix.pos_embed"], 4)
        torch.testing.assert_close(network.backbone_mix.pos_embed, mix, rtol=0, atol=1e-6)
        table = resampled(state["feature_extractor.dinov2.pos_embed"][:, 1:], 37, antialias=True)
        torch.testing.assert_close(network.backbone.vit.pos_embed, table, rtol=0, atol=1e-6)


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def crafted(path: Path, pickled: bytes) -> None:
    """Write a file in the layout of torch.save, with a given pickle."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))


class TestNothingIsExecuted:
    @pytest.mark.parametrize("place", ["beside", "config", "state", "nested"])
    @pytest.mark.parametrize("function", [os.system, eval, exec, subprocess.Popen, __import__, open, getattr])
    def test_a_call_of_anything_else(self, tmp_path, function, place) -> None:
        """It is refused at every place of an otherwise official file."""
        trace = tmp_path / "executed"
        arguments = {
            os.system: (f"touch {trace}",),
            eval: (f"open({str(trace)!r}, 'w')",),
            exec: (f"open({str(trace)!r}, 'w')",),
            subprocess.Popen: (["touch", str(trace)],),
            __import__: ("antigravity",),
            open: (str(trace), "w"),
            getattr: (trace, "touch"),
        }
        evil = Calls(function, *arguments[function])
        config = tiny_skipclick(size=(56, 56))
        content: dict[str, Any] = {"state_dict": OrderedDict(w=torch.zeros(1)), "config": official_config(config)}
        if place == "beside":
            content["evil"] = evil
        elif place == "config":
            content["config"] = official_config(config, evil)
        elif place == "state":
            content["state_dict"]["evil"] = evil
        else:
            content["config"]["params"]["random_split"]["value"] = [{"a": (1, [evil])}]
        content["loss"] = [Calls(Placeholder)]  # what makes it a file of the official package
        with pytest.MonkeyPatch.context() as patch:
            lend(patch)
            torch.save(content, tmp_path / "evil.pth")
        with pytest.raises(CheckpointCorruptError, match="holds more than tensors"):
            read_checkpoint_file(tmp_path / "evil.pth")
        assert not trace.exists()

    def test_a_call_of_what_is_allowed_calls_nothing(self, tmp_path, monkeypatch) -> None:
        """The package is installed, and would leave a trace when imported or called."""
        trace = tmp_path / "executed"
        package = tmp_path / "site" / "isegm"
        package.mkdir(parents=True)
        body = f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
        (package / "__init__.py").write_text(body)
        (package / "evil.py").write_text(f"{body}def call(*args): Path({str(trace)!r}).touch()\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        # {"w": isegm.evil.call("x")}, then BUILD with a state, then the same through pathlib.
        pickled = (
            b"\x80\x02}q\x00(X\x01\x00\x00\x00wcisegm.evil\ncall\nX\x01\x00\x00\x00x\x85R}X\x01\x00\x00\x00aK\x01sb"
            b"X\x01\x00\x00\x00pcpathlib\nPosixPath\nX\x01\x00\x00\x00/\x85Ru."
        )
        crafted(tmp_path / "evil.pth", pickled)
        with pytest.raises(CheckpointCorruptError, match="no state dict"):
            read_checkpoint_file(tmp_path / "evil.pth")
        assert not trace.exists()
        assert not [name for name in sys.modules if name.split(".")[0] == "isegm"]

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
    @pytest.mark.parametrize(
        "pickled",
        [
            b"\x80\x02cisegm.a\nb\n0cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
            b"\x80\x02cisegm.a\nb\n0cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
            b"\x80\x04\x8c\x07isegm.a\x8c\x01b\x93.",  # STACK_GLOBAL
            b"\x80\x02(X\x04\x00\x00\x00trueiposix\nsystem\n.",  # INST
            b"\x80\x02cisegm.a\nb\n)\x81}X\x01\x00\x00\x00aK\x01sX\x01\x00\x00\x00bK\x02s.",  # an item
        ],
    )
    def test_pickles_by_hand(self, tmp_path, pickled) -> None:
        crafted(tmp_path / "evil.pth", pickled)
        with pytest.raises(CheckpointCorruptError):
            read_checkpoint_file(tmp_path / "evil.pth")

    def test_a_dotted_name_is_not_looked_up(self, tmp_path) -> None:
        crafted(tmp_path / "evil.pth", b"\x80\x02cisegm.a\nos.system\nX\x04\x00\x00\x00true\x85R.")
        with pytest.raises(CheckpointCorruptError, match=r"no state dict but an object of isegm\.a\.os\.system"):
            read_checkpoint_file(tmp_path / "evil.pth")


def lend(patch: pytest.MonkeyPatch) -> None:
    """Let pickle find ``isegm.Placeholder`` while a file is written."""
    from types import ModuleType

    module = ModuleType("isegm")
    module.Placeholder = Placeholder
    patch.setitem(sys.modules, "isegm", module)
    patch.setitem(sys.modules, "isegm.model", module)


class Placeholder:
    """A class of the official package."""


Placeholder.__module__ = "isegm.model"
