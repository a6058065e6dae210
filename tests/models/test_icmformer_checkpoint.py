"""Official iCMFormer files: recognised and described by themselves, compared with their weights, never executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError, DescriptionError, Door
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import parse_description, random_network, read_checkpoint_file, release_state
from mmms_deploy.models.config import SwinConfig, ViTConfig
from mmms_deploy.models.icmformer import ICMFormer
from mmms_deploy.models.icmformer_checkpoint import SWIN_CLASS, VIT_CLASS
from mmms_deploy.models.icmformer_config import ICMFormerConfig
from tests.support.icmformer import official_values, tiny_icmformer, unread_state
from tests.support.official import config_of
from tests.support.paths import FAMILIES
from tests.support.skipclick import official_software

KINDS = ("swin", "vit")


def made(kind: str, **fields: Any) -> ICMFormer:
    """A narrow network at a size that an official config can say."""
    network = random_network(tiny_icmformer(kind, size=(64, 64), **fields), 0)
    assert isinstance(network, ICMFormer)
    return network


def save(path: Path, network: ICMFormer, state: dict[str, Tensor] | None = None, **changes: Any) -> None:
    """Write a file as the official software does; keyword arguments change values of the config's parameters."""
    config = network.config
    with official_software() as loss:
        values = official_values(config, loss())
        for name, value in changes.items():
            table, _, entry = name.partition("__")
            if entry:
                values[table] = values[table] | {entry: value}
            else:
                values[table] = value
        torch.save(
            {
                "state_dict": state if state is not None else whole_state(network),
                "config": config_of(SWIN_CLASS if config.swin else VIT_CLASS, values),
            },
            path,
        )


def whole_state(network: ICMFormer) -> dict[str, Tensor]:
    return {**release_state(network), **unread_state(network)}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


class TestRecognition:
    def test_a_file_needs_no_other_word(self, kind, tmp_path) -> None:
        network = made(kind)
        save(tmp_path / "i.pth", network)
        found = open_source(Source(checkpoint=tmp_path / "i.pth")).network
        assert found.config == network.config
        for name, tensor in release_state(found).items():
            assert torch.equal(tensor, release_state(network)[name]), name

    def test_weights_without_a_config(self, kind, tmp_path) -> None:
        """What shapes cannot say comes from what was published: the narrow ViT's heads were not."""
        network = made(kind)
        torch.save(whole_state(network), tmp_path / "bare.pth")
        file = read_checkpoint_file(tmp_path / "bare.pth")
        if kind == "vit":
            assert file.problem is not None
            assert "without a config that says its attention heads" in file.problem.given
            return
        config = parse_description(file.description, "test")
        assert isinstance(config, ICMFormerConfig)
        assert (config.swin, config.cross_depth) == (network.config.swin, 2)
        assert config.size == (448, 448)

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("swin_base", {"swin": SwinConfig(), "size": (384, 384)}),
            ("swin_small", {"swin": SwinConfig(width=96, heads=(3, 6, 12, 24)), "size": (224, 224), "head_width": 192}),
            ("base", {}),
            ("large", {"vit": ViTConfig(dim=1024, depth=24, heads=16), "neck_widths": (192, 384, 768, 1536)}),
            (
                "huge",
                {"vit": ViTConfig(patch=(14, 14), dim=1280, depth=32, heads=16), "neck_widths": (240, 480, 960, 1920)},
            ),
        ],
    )
    def test_the_released_classes(self, name, fields, monkeypatch) -> None:
        """Every tensor of the released classes, and nothing but their shapes."""
        path = FAMILIES / "keys" / f"icmformer-{name}.json"
        if not path.is_file():
            pytest.skip(f"no list of keys at {path}")
        from mmms_deploy.models.families import build_network
        from mmms_deploy.models.ritm_checkpoint import describe_ritm, without_unread
        from mmms_deploy.models.swin import relative_position_index

        shapes = json.loads(path.read_text())
        state = {
            key: relative_position_index(12) if key.endswith("_index") else torch.empty(shape, device="meta")
            for key, shape in shapes.items()
        }
        config = parse_description(describe_ritm(None, state, name), name)
        assert config == ICMFormerConfig(**fields)
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in build_network(config).state_dict().items()}
        left = without_unread(state, None)
        assert {key: tuple(value.shape) for key, value in left.items()} == expected

    def test_a_radius_and_statistics_of_its_own(self, kind, tmp_path) -> None:
        save(tmp_path / "i.pth", made(kind), norm_radius=3, norm_mean_std=((0.5, 0.5, 0.5), (0.2, 0.3, 0.4)))
        config = open_source(Source(checkpoint=tmp_path / "i.pth")).network.config
        assert config.clicks.radius == 3
        assert (config.image.mean, config.image.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
        assert config.image.resize.align_corners

    def test_the_number_of_cross_modality_blocks_is_that_of_the_weights(self, tmp_path) -> None:
        """The paper has 4 and the released code 8, under one name."""
        save(tmp_path / "i.pth", made("swin", cross_depth=3))
        assert open_source(Source(checkpoint=tmp_path / "i.pth")).network.config.cross_depth == 3

    def test_another_size(self, tmp_path) -> None:
        """The position table is brought to it."""
        save(tmp_path / "i.pth", made("vit"))
        network = open_source(Source(checkpoint=tmp_path / "i.pth", overrides={"size": (96, 128)})).network
        assert network.get_parameter("backbone.pos_embed").shape == (1, 1 + 6 * 8, 24)


class TestContradictions:
    @pytest.mark.parametrize(
        ("changes", "said", "tensor"),
        [
            ({"backbone_params__window_size": 7}, "window_size = 7", "0.blocks.0.attn.relative_position_bias_table"),
            ({"backbone_params__embed_dim": 16}, "embed_dim = 16", "backbone.patch_embed.proj.weight"),
            ({"backbone_params__num_heads": [1, 2, 8, 8]}, "num_heads", "2.blocks.0.attn.relative_position_bias_table"),
            ({"backbone_params__mlp_ratio": 2}, "mlp_ratio = 2", "0.blocks.0.mlp.fc1.weight"),
            ({"backbone_params__patch_size": 8}, "patch_size = 8", "backbone.patch_embed.proj.weight"),
            ({"head_params__channels": 16}, "channels = 16", "head.fusion_conv.conv.weight"),
        ],
    )
    def test_a_swin_s(self, tmp_path, changes, said, tensor) -> None:
        self.refused(tmp_path, made("swin"), changes, said, tensor)

    @pytest.mark.parametrize(
        ("changes", "said", "tensor"),
        [
            ({"backbone_params__embed_dim": 32}, "embed_dim = 32", "backbone.patch_embed.proj.weight"),
            ({"backbone_params__patch_size": (14, 14)}, "patch_size", "backbone.patch_embed.proj.weight"),
            ({"backbone_params__mlp_ratio": 2}, "mlp_ratio = 2", "backbone.blocks.0.mlp.fc1.weight"),
            ({"neck_params__out_dims": [8, 8, 32, 16]}, "out_dims", "neck.down_16.0.weight"),
        ],
    )
    def test_a_vit_s(self, tmp_path, changes, said, tensor) -> None:
        self.refused(tmp_path, made("vit"), changes, said, tensor)

    def refused(self, folder, network, changes, said, tensor) -> None:
        save(folder / "i.pth", network, **changes)
        with pytest.raises(DescriptionError) as caught:
            open_source(Source(checkpoint=folder / "i.pth"))
        assert said in caught.value.given
        assert f"{tensor} is [" in caught.value.given
        assert "--description" in caught.value.message(Door.COMMAND_LINE)

    def test_an_index_of_another_window(self, tmp_path) -> None:
        network, name = made("swin"), "backbone.layers.1.blocks.1.attn.relative_position_index"
        state = whole_state(network)
        state[name] = state[name].flip(0)
        save(tmp_path / "i.pth", network, state)
        with pytest.raises(DescriptionError, match=f"windows of 4 x 4, but {name}"):
            open_source(Source(checkpoint=tmp_path / "i.pth"))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"use_disks": False}, "use_disks = False"),
            ({"with_aux_output": True}, "with_aux_output = True"),
            ({"norm_radius": 0}, "norm_radius = 0"),
            ({"use_windows": True}, "use_windows = True"),
            ({"backbone_params": [1]}, r"backbone_params = \[1\]"),
            ({"backbone_params__ape": True}, "backbone_params.ape = True"),
            ({"backbone_params__depths": [2, 2]}, r"depths = \[2, 2\]"),
            ({"head_params__upsample": "x2"}, "head_params.upsample = 'x2'"),
            ({"norm_mean_std": 1.0}, "norm_mean_std = 1.0"),
        ],
    )
    def test_values_that_no_released_network_has(self, tmp_path, changes, message) -> None:
        save(tmp_path / "i.pth", made("swin"), **changes)
        with pytest.raises(DescriptionError, match=message):
            open_source(Source(checkpoint=tmp_path / "i.pth"))

    def test_a_config_of_another_class(self, tmp_path) -> None:
        network = made("swin")
        torch.save({"state_dict": whole_state(network), "config": {"class": VIT_CLASS, "params": {}}}, tmp_path / "i.p")
        with pytest.raises(DescriptionError, match=f"(?s){VIT_CLASS}.*{SWIN_CLASS}"):
            open_source(Source(checkpoint=tmp_path / "i.p"))


class TestKeys:
    def test_missing_unexpected_and_misshapen(self, kind, tmp_path) -> None:
        network = made(kind)
        state = whole_state(network)
        del state["head.conv_seg.bias"]
        state["head.conv_sag.bias"] = torch.zeros(1)
        state["backbone.blocks2.1.norm3.bias"] = torch.zeros(5)
        save(tmp_path / "i.pth", network, state)
        with pytest.raises(CheckpointKeysError) as caught:
            open_source(Source(checkpoint=tmp_path / "i.pth"))
        lines = caught.value.given.splitlines()
        assert "1 keys missing, 1 unexpected, 1 misshapen" in lines[0]
        assert any("missing" in line and "head.conv_seg.bias (nearest: head.conv_sag.bias)" in line for line in lines)
        assert any("misshapen  backbone.blocks2.1.norm3.bias: [5]" in line for line in lines)

    def test_a_block_that_is_gone(self, tmp_path) -> None:
        """The config says how many there are."""
        network = made("swin")
        state = {k: v for k, v in whole_state(network).items() if not k.startswith("backbone.layers.2.blocks.1.")}
        save(tmp_path / "i.pth", network, state)
        with pytest.raises(CheckpointKeysError, match=r"missing +backbone.layers.2.blocks.1.attn.proj.bias"):
            open_source(Source(checkpoint=tmp_path / "i.pth"))

    def test_a_tensor_that_the_description_needs(self, tmp_path) -> None:
        network = made("swin")
        state = whole_state(network)
        del state["backbone.layers.3.blocks.0.attn.relative_position_bias_table"]
        save(tmp_path / "i.pth", network, state)
        with pytest.raises(DescriptionError, match=r"layers.3.blocks.0.attn.relative_position_bias_table is missing"):
            open_source(Source(checkpoint=tmp_path / "i.pth"))

    def test_heads_that_do_not_divide_a_stage_name_their_table(self, tmp_path) -> None:
        state = whole_state(made("swin"))
        name = "backbone.layers.1.blocks.0.attn.relative_position_bias_table"
        state[name] = torch.zeros(49, 3)
        torch.save(state, tmp_path / "i.pth")
        with pytest.raises(DescriptionError, match=rf"16 channels, but {name} is \[49, 3\]"):
            open_source(Source(checkpoint=tmp_path / "i.pth"))

    def test_a_separate_backbone(self, tmp_path) -> None:
        save(tmp_path / "i.pth", made("swin"))
        with pytest.raises(CheckpointKeysError, match="no part of it is frozen"):
            open_source(Source(checkpoint=tmp_path / "i.pth", backbone_checkpoint=tmp_path / "i.pth"))

    def test_a_truncated_file(self, tmp_path) -> None:
        save(tmp_path / "i.pth", made("swin"))
        whole = (tmp_path / "i.pth").read_bytes()
        (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointCorruptError):
            open_source(Source(checkpoint=tmp_path / "half.pth"))

    def test_a_training_checkpoint(self, tmp_path) -> None:
        """Beside an optimizer's state, the same."""
        network = made("swin")
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)).sum().backward()
        optimizer.step()
        torch.save({"state_dict": whole_state(network), "optimizer": optimizer.state_dict()}, tmp_path / "t.pth")
        found = open_source(Source(checkpoint=tmp_path / "t.pth")).network
        assert found.config.swin == network.config.swin
