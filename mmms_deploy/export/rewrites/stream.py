"""CSNet on tokens, and the biases that can be added once an image instead of at every click."""

from __future__ import annotations

from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import DeployedMMMS
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.mmms import CSNet
from mmms_deploy.models.segformer import tokens


class TokenCSNet(nn.Module):
    """CSNet with sums of tokens instead of maps.

    The paper's form turns the patch embedding's normalised tokens into a map, adds the pyramids' maps, and turns the
    sum into tokens. Here the same numbers are added as tokens. The tokens of the mixed pyramid depend on the image
    alone, so they are the features.

    Args:
        csnet: CSNet in the paper's form; its parts keep their names.
    """

    def __init__(self, csnet: CSNet) -> None:
        super().__init__()
        for name, part in csnet.named_children():
            self.add_module(name, part)

    def forward(self, mixed: tuple[Tensor, ...], interaction: tuple[Tensor, ...]) -> Tensor:
        """f_mix as tokens (B, H/i * W/i, C_i) and f_int as maps (B, C_i, H/i, W/i) -> logits (B, 1, H/4, W/4)."""
        outputs: list[Tensor] = []
        for number, (mix, inter) in enumerate(zip(mixed, interaction, strict=True), start=1):
            height, width = inter.shape[2:]
            x = mix + tokens(inter)
            embed = getattr(self, f"patch_embed{number}", None)
            if embed is not None:
                x = x + embed.norm(tokens(embed.proj(outputs[-1])))
            for block in self.get_submodule(f"block{number}").children():
                x = block(x, height, width)
            # In four dimensions, because ONNX Runtime fuses a sum and a norm of three into one slow kernel.
            norm = self.get_submodule(f"norm{number}")
            outputs.append(norm(x.reshape(len(x), height, width, -1)).permute(0, 3, 1, 2))
        logits: Tensor = self.get_submodule("decode_head")(tuple(outputs))
        return logits


def token_stream(network: DeployedMMMS) -> bool:
    """Turn the features, and CSNet's sums with them, into tokens; see :class:`TokenCSNet`."""
    network.csnet = TokenCSNet(network.csnet)  # type: ignore[assignment]
    network.token_features = True
    return True


def feature_biases(network: DeployedMMMS) -> bool:
    """Add MSPatchEmbed's biases to the features, once an image, instead of to f_int at every click.

    This is exact because CSNet's first operation adds features and f_int.
    """
    for scale in SCALES:
        conv = network.patch_embed.get_submodule(f"proj_{scale}")
        network.feature_biases.append(conv.get_parameter("bias"))
        conv.register_parameter("bias", None)
    return True
