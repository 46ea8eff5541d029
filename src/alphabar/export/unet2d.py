"""The network ``unet`` as a UNet2DModel of diffusers, where one computes the same.

A UNet2DModel has one block more than ``unet`` on the way up at each resolution, which takes the skip
connection that ``unet`` does not have. Its weights are set so that it passes its input on unchanged: zero
where it adds, one where it copies. All other weights are those of ``unet``, one to one.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from alphabar.networks.layers import group_norm
from alphabar.networks.unet import UNet

RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "modulation": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}
"""The layers of a residual block: the name in ``unet`` → that in a UNet2DModel."""


def is_exact(network: Any) -> bool:
    """Whether a UNet2DModel computes the same.

    It must be a ``unet`` whose widths are all the same, for diffusers changes the width before it grows the
    features and ``unet`` after, and whose group normalisations all have as many groups.
    """
    if type(network) is not UNet:
        return False
    downs: Any = network.downs
    widths = {down.blocks[0].conv2.out_channels for down in downs}
    (width, *others) = widths
    return not others and group_norm(width).num_groups == group_norm(2 * width).num_groups


def unet2d_config(network: Any, sample_size: tuple[int, ...]) -> dict[str, Any]:
    """The settings of the UNet2DModel of a `UNet`. sample_size: (height, width) of a signal, in pixels."""
    width, attends = network.downs[0].blocks[0].conv2.out_channels, []
    for down in network.downs:
        attends.append(not isinstance(down.blocks[0].attention, nn.Identity))
    attention = network.middle_attention()
    groups = group_norm(width).num_groups
    return {
        "sample_size": [side // network.patch for side in sample_size],
        "in_channels": network.channels * network.patch**2,
        "out_channels": network.channels * network.patch**2,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["AttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "block_out_channels": [width] * len(attends),
        "layers_per_block": len(network.downs[0].blocks),
        "attention_head_dim": width if attention is None else width // attention.heads,
        "add_attention": attention is not None,
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups,
        "resnet_time_scale_shift": "scale_shift",
        "class_embed_type": None if network.embed_cond is None else "identity",
    }


def unet2d_weights(network: Any) -> dict[str, Tensor]:
    """The weights of the UNet2DModel of a `UNet` by name, without those of the embedding of conditions."""
    made = {
        **_layer(network.stem, "conv_in"),
        **_layer(network.embed[0], "time_embedding.linear_1"),
        **_layer(network.embed[2], "time_embedding.linear_2"),
        **_layer(network.norm, "conv_norm_out"),
        **_layer(network.output, "conv_out"),
    }
    for level, down in enumerate(network.downs):
        if level:
            made |= _layer(down.shrink, f"down_blocks.{level - 1}.downsamplers.0.conv")
        made |= _blocks(down.blocks, f"down_blocks.{level}")
    made |= _blocks(network.middle, "mid_block")
    for level, up in enumerate(network.ups):
        made |= _blocks([*up.blocks, _passing_on(up.blocks[0])], f"up_blocks.{level}")
        if not isinstance(up.grow, nn.Identity):
            made |= _layer(up.grow[1], f"up_blocks.{level}.upsamplers.0.conv")
    return made


def _blocks(blocks: Any, place: str) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for i, block in enumerate(blocks):
        for own, theirs in RESIDUAL.items():
            made |= _layer(getattr(block, own), f"{place}.resnets.{i}.{theirs}")
        if not isinstance(block.attention, nn.Identity):
            made |= dict(_attention(block.attention, f"{place}.attentions.{i}"))
    return made


def _attention(attention: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    yield from _layer(attention.norm, f"{place}.group_norm").items()
    for kind in ("weight", "bias"):
        parts = getattr(attention.qkv, kind).flatten(1 if kind == "weight" else 0).chunk(3)
        for letter, part in zip("qkv", parts, strict=True):
            yield f"{place}.to_{letter}.{kind}", part
    yield f"{place}.to_out.0.weight", attention.out.weight.flatten(1)
    yield f"{place}.to_out.0.bias", attention.out.bias


def _layer(layer: nn.Module, place: str) -> dict[str, Tensor]:
    return {f"{place}.{name}": value for name, value in layer.state_dict().items()}


@torch.no_grad()
def _passing_on(block: nn.Module) -> nn.Module:
    """A block like this one that passes the first half of its input on and adds nothing to it."""
    made: Any = deepcopy(block)
    for parameter in made.parameters():
        parameter.zero_()
    width = made.conv2.out_channels
    made.skip.weight[:, :width, 0, 0] = torch.eye(width)
    return made
