"""CSNet on tokens, and what it adds at every click that the image alone decides."""

from __future__ import annotations

from torch import Tensor, nn

from mmms_deploy.export.rewrites.deployed import DeployedMMMS
from mmms_deploy.models.fpn import SCALES
from mmms_deploy.models.mmms import CSNet
from mmms_deploy.models.segformer import tokens


class TokenCSNet(nn.Module):
    """CSNet whose sums are sums of tokens.

    The paper's form brings the patch embedding's normalised tokens to a map, adds the pyramids' maps, and makes tokens
    of the sum. Here the same numbers are added as tokens. Those of the mixed pyramid depend on the image alone, so they
    are the features.

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
    """Make features, and CSNet's sums with them, tokens; see :class:`TokenCSNet`."""
    network.csnet = TokenCSNet(network.csnet)  # type: ignore[assignment]
    network.token_features = True
    return True


def feature_biases(network: DeployedMMMS) -> bool:
    """Add MSPatchEmbed's biases to the features, once an image, instead of to f_int at every click.

    CSNet adds features and f_int to each other first of all.
    """
    for scale in SCALES:
        conv = network.patch_embed.get_submodule(f"proj_{scale}")
        network.feature_biases.append(conv.get_parameter("bias"))
        conv.register_parameter("bias", None)
    return True
