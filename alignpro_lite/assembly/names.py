"""What the fast decoder graphs call the weights of a model."""

from __future__ import annotations

import re

_PRODUCT = re.compile(r"(model\.layers\.\d+)\.(attn|mlp)\.(\w+)\.MatMul\.weight")
_ROOMS = {"attn": "self_attn", "mlp": "mlp"}
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}


def modules_of(weight: str) -> tuple[str, ...]:
    """The modules of a Hugging Face model that a weight of a graph is made of, fused in this order.

    Args:
        weight: Such as `model.layers.0.attn.qkv_proj.MatMul.weight`.

    Returns:
        Such as `model.layers.0.self_attn.q_proj` and two more; none for other weights.
    """
    if (found := _PRODUCT.fullmatch(weight)) is None:
        return ()
    layer, room, name = found.groups()
    return tuple(f"{layer}.{_ROOMS[room]}.{module}" for module in _FUSED.get(name, (name,)))
