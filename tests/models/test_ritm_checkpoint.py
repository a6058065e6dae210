"""Official files of SimpleClick and MFP: recognised by themselves, compared with their network, never executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmms_deploy.bundle.contract import to_builtins
from mmms_deploy.bundle.protocol import MFP_PROTOCOL, RITM_FAMILY
from mmms_deploy.errors import CheckpointCorruptError, CheckpointKeysError, DescriptionError, Door
from mmms_deploy.export.source import Source, open_source
from mmms_deploy.models.checkpoint import parse_description, release_state
from mmms_deploy.models.config import SimpleClickConfig, ViTConfig
from mmms_deploy.models.families import FAMILIES, build_network
from mmms_deploy.models.mfp_config import HRNetConfig, MFPConfig
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.models.resemblance import resemblance
from mmms_deploy.models.ritm_checkpoint import describe_ritm, without_unread
from tests.support.paths import FAMILIES as FACTS
from tests.support.ritm import official_class, official_state, save_official, tiny_mfp, tiny_simpleclick
from tests.support.tiny import tiny_config

CONFIGS = {"simpleclick": tiny_simpleclick(), "mfp": tiny_mfp(), "mfp-hrnet": tiny_mfp("hrnet", size=(448, 448))}
HUGE = {"vit": ViTConfig(patch=(14, 14), dim=1280, depth=32, heads=16), "neck_widths": (240, 480, 960, 1920)}
LARGE = {"vit": ViTConfig(dim=1024, depth=24, heads=16), "neck_widths": (192, 384, 768, 1536)}
XTINY = {"vit": ViTConfig(dim=160, depth=8, heads=4), "neck_widths": (96, 192, 288, 384), "head_width": 128}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param]


def opened(path: Path, **fields: Any) -> InteractiveNetwork:
    return open_source(Source(checkpoint=path, overrides=fields or None)).network


class TestRecognition:
    def test_a_file_needs_no_other_word(self, config: Any, tmp_path: Path) -> None:
        network = save_official(tmp_path / "net.pth", config)
        found = opened(tmp_path / "net.pth")
        assert found.config == config
        assert found.config.published == (RITM_FAMILY if config.family == "simpleclick" else MFP_PROTOCOL)
        for name, tensor in release_state(found).items():
            assert torch.equal(tensor, release_state(network)[name]), name

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_weights_alone(self, config: Any, suffix: str, tmp_path: Path) -> None:
        """Shapes say all but a ViT's heads; those of the published widths are known."""
        state = official_state(build_network(config))
        path = tmp_path / f"bare.{suffix}"
        torch.save(dict(state), path) if suffix == "pth" else save_file(dict(state), path)
        found = opened(path, size=config.size).config
        assert isinstance(found, type(config))
        if isinstance(config, MFPConfig) and config.hrnet is not None:
            assert isinstance(found, MFPConfig)
            assert found.hrnet == config.hrnet
        else:
            assert (found.neck_widths, found.head_width) == (config.neck_widths, config.head_width)
            assert found.vit.dim == config.vit.dim
            assert found.vit.depth == config.vit.depth

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("simpleclick-base", SimpleClickConfig()),
            ("simpleclick-large", SimpleClickConfig(**LARGE)),
            ("simpleclick-huge", SimpleClickConfig(**HUGE)),
            ("simpleclick-xtiny", SimpleClickConfig(**XTINY)),
            ("mfp-base", MFPConfig(vit=ViTConfig())),
            ("mfp-hrnet18", MFPConfig(hrnet=HRNetConfig())),
            ("mfp-hrnet18s", MFPConfig(hrnet=HRNetConfig(ocr_width=48, small=True))),
        ],
    )
    def test_the_released_classes(self, name: str, expected: Any) -> None:
        """Every tensor of the released classes, and nothing but their shapes."""
        path = FACTS / "keys" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"no list of keys at {path}")
        shapes = {key: tuple(shape) for key, shape in json.loads(path.read_text()).items()}
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        config = parse_description(describe_ritm(None, state, name), name)
        assert config == expected
        with torch.device("meta"):
            ours = {key: tuple(value.shape) for key, value in build_network(config).state_dict().items()}
        assert {key: tuple(value.shape) for key, value in without_unread(state, None).items()} == ours

    def test_n_and_r_max_are_the_file_s(self, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", tiny_mfp(), N=3, R_max=50)
        modulation = opened(tmp_path / "net.pth").config.clicks.modulation
        assert modulation is not None
        assert (modulation.similar_clicks, modulation.radius) == (3, 50.0)

    def test_a_radius_and_statistics_of_its_own(self, config: Any, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", config, norm_radius=3, norm_mean_std=((0.5,) * 3, (0.2, 0.3, 0.4)))
        found = opened(tmp_path / "net.pth").config
        assert found.clicks.radius == 3
        assert found.clicks.channels == config.clicks.channels
        assert (found.image.mean, found.image.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
        assert found.image.resize.align_corners

    def test_another_size_resamples_the_positions(self, tmp_path: Path) -> None:
        network = save_official(tmp_path / "net.pth", tiny_simpleclick())
        found = opened(tmp_path / "net.pth", size=(96, 128))
        table, before = (n.get_parameter("backbone.pos_embed") for n in (found, network))
        assert table.shape == (1, 1 + 6 * 8, 24)
        expected = torch.nn.functional.interpolate(
            before[:, 1:].reshape(1, 4, 6, 24).permute(0, 3, 1, 2), size=(6, 8), mode="bicubic", align_corners=False
        )
        assert torch.equal(table[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 48, 24))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"use_disks": False}, "use_disks = False"),
            ({"with_prev_mask": False}, "with_prev_mask = False"),
            ({"random_split": True}, "random_split = True"),
            ({"clicks_groups": 2}, "clicks_groups = 2"),
            ({"norm_radius": "wide"}, "norm_radius = 'wide'"),
            ({"norm_mean_std": 3}, "norm_mean_std = 3"),
            ({"backbone_params": {"embed_dim": 24.5}}, "backbone_params.embed_dim = 24.5"),
            ({"backbone_params": [1]}, "backbone_params = [1]"),
            ({"neck_params": {"out_dims": [1, 2]}}, "neck_params.out_dims = [1, 2]"),
            ({"head_params": {"upsample": "x4"}}, "head_params.upsample = 'x4'"),
            ({"a_parameter": 1}, "a_parameter = 1"),
        ],
    )
    def test_values_that_no_published_network_has(self, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", tiny_simpleclick(), **changes)
        with pytest.raises(DescriptionError) as error:
            opened(tmp_path / "net.pth")
        assert said in error.value.given
        assert 'family = "simpleclick"' in error.value.message(Door.COMMAND_LINE)

    def test_a_class_of_another_network(self, tmp_path: Path) -> None:
        content = {"class": "isegm.model.is_deeplab_model.DeeplabModel", "params": {}}
        torch.save({"state_dict": {"a.weight": torch.zeros(2)}, "config": content}, tmp_path / "net.pth")
        with pytest.raises(DescriptionError) as error:
            opened(tmp_path / "net.pth")
        assert "is_deeplab_model.DeeplabModel" in error.value.given
        assert "no known family" in error.value.given
        assert error.value.expected is not None
        assert official_class(tiny_mfp()) in error.value.expected

    def test_a_class_that_the_weights_contradict(self, tmp_path: Path) -> None:
        state = official_state(build_network(tiny_mfp()))
        config = {"class": official_class(tiny_simpleclick()), "params": {}}
        torch.save({"state_dict": state, "config": config}, tmp_path / "net.pth")
        with pytest.raises(DescriptionError) as error:
            opened(tmp_path / "net.pth")
        assert official_class(tiny_mfp()) in error.value.given

    @pytest.mark.parametrize(
        ("name", "changes", "said"),
        [
            ("mfp-hrnet", {"width": 6}, r"misshapen +conv_prevMod.1.conv.bias: \[60\], expected \[90\]"),
            ("mfp-hrnet", {"ocr_width": 6}, r"misshapen +feature_extractor.cls_head.weight: .*16, .*12, "),
            ("mfp", {"head_params": {"channels": 16}}, r"misshapen +head.conv_prevMod.1.conv.bias: \[8\], .*16"),
            ("simpleclick", {"backbone_params": {"depth": 5, "num_heads": 3}}, "missing +backbone.blocks.4.attn"),
        ],
    )
    def test_a_config_that_the_weights_contradict_names_tensors(
        self, name: str, changes: dict[str, Any], said: str, tmp_path: Path
    ) -> None:
        save_official(tmp_path / "net.pth", CONFIGS[name], **changes)
        with pytest.raises(CheckpointKeysError, match=said):
            opened(tmp_path / "net.pth")

    def test_a_file_that_nothing_recognises_says_what_it_resembles(self, tmp_path: Path) -> None:
        state = official_state(build_network(tiny_simpleclick()))
        del state["backbone.pos_embed"]
        torch.save(state, tmp_path / "net.pth")
        with pytest.raises(DescriptionError) as error:
            opened(tmp_path / "net.pth")
        assert "named like those of simpleclick" in error.value.given
        assert error.value.expected is not None
        assert all(family in error.value.expected for family in FAMILIES)

    def test_a_size_alone_says_no_family(self, tmp_path: Path) -> None:
        state = official_state(build_network(tiny_simpleclick()))
        del state["backbone.pos_embed"]
        torch.save(state, tmp_path / "net.pth")
        fields = {name: value for name, value in to_builtins(tiny_config()).items() if name != "family"}
        with pytest.raises(CheckpointKeysError, match=r"mmms was taken; .* named like those of simpleclick"):
            opened(tmp_path / "net.pth", **fields)

    def test_a_separate_backbone(self, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", tiny_simpleclick())
        with pytest.raises(CheckpointKeysError, match="backbone of a simpleclick network"):
            open_source(Source(checkpoint=tmp_path / "net.pth", backbone_checkpoint=tmp_path / "net.pth"))

    @pytest.mark.parametrize(
        ("fields", "option"),
        [
            ({"backbone": {"name": "mae_b16"}}, "--backbone"),
            ({"modalities": [{"name": "depth", "channels": 1}], "size": [96, 128]}, "--modality"),
        ],
    )
    def test_a_field_that_the_family_does_not_have(self, fields: dict[str, Any], option: str, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", tiny_simpleclick())
        with pytest.raises(DescriptionError) as error:
            opened(tmp_path / "net.pth", **fields)
        assert error.value.fix == f"leave out {next(iter(fields))!r} among the overrides"
        assert error.value.command_fix == f"leave out {option}"

    def test_a_truncated_file(self, config: Any, tmp_path: Path) -> None:
        save_official(tmp_path / "net.pth", config)
        whole = (tmp_path / "net.pth").read_bytes()
        (tmp_path / "net.pth").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointCorruptError):
            opened(tmp_path / "net.pth")


class TestKeys:
    def spoiled(self, path: Path, config: Any) -> None:
        """One key missing, one unexpected, one misshapen; the config is the network's."""
        network = build_network(config)
        state = official_state(network)
        first = "patch_embed_coords.proj.bias" if "backbone.pos_embed" in state else "maps_transform.0.bias"
        del state[first]
        state["head.extra.weight"] = torch.zeros(3)
        last = next(name for name in reversed(state) if name.endswith("conv1x1.weight") or name.endswith("_seg.weight"))
        state[last] = torch.zeros(5, 5)
        torch.save({"state_dict": state}, path)
        self.names = (first, "head.extra.weight", last)

    def test_all_are_listed(self, config: Any, tmp_path: Path) -> None:
        self.spoiled(tmp_path / "net.pth", config)
        with pytest.raises(CheckpointKeysError) as error:
            opened(tmp_path / "net.pth", size=config.size)
        text = error.value.given
        assert "1 keys missing, 1 unexpected, 1 misshapen" in text
        for kind, name in zip(("missing", "unexpected", "misshapen"), self.names, strict=True):
            assert f"{kind:<10} {name}" in text
        message = error.value.message(Door.COMMAND_LINE)
        assert "of the network that the file describes" in message
        assert "copy the file again and compare its hash with the source's; where it is whole, describe" in message
        assert f'describe the network with --description (family = "{config.family}"), see ' in message

    def test_a_given_description_is_what_is_to_be_corrected(self, tmp_path: Path) -> None:
        self.spoiled(tmp_path / "net.pth", tiny_simpleclick())
        (tmp_path / "net.json").write_text(json.dumps(to_builtins(tiny_simpleclick())))
        with pytest.raises(CheckpointKeysError, match="of the network that the description names") as error:
            open_source(Source(checkpoint=tmp_path / "net.pth", description=tmp_path / "net.json"))
        assert error.value.fix == "correct the description (backbone, widths, modalities), or rename the keys"

    def test_an_optimizer_beside_the_weights(self, config: Any, tmp_path: Path) -> None:
        network = save_official(tmp_path / "net.pth", config)
        state = official_state(network)
        optimizer = torch.optim.Adam(network.parameters())
        torch.save({"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "net.pth")
        assert opened(tmp_path / "net.pth", size=config.size).config.family == config.family


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_resembles_itself(family: str) -> None:
    with torch.device("meta"):
        names = list(release_state(build_network(FAMILIES[family].config())))  # type: ignore[call-arg]
    assert f"named like those of {family} (100 %" in resemblance(names)


def test_other_weights_resemble_nothing() -> None:
    assert "no known family" in resemblance(["encoder.layer.0.weight", "encoder.layer.0.bias"])
