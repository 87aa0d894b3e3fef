"""The image priors that see one image at four strides, by the names that configurations call them by."""

from __future__ import annotations

from torch import nn

from bundle.networks.efficientnet_lite import EfficientNetLitePrior
from bundle.networks.image_prior import PVT_V2_VARIANTS, PvtV2Prior
from bundle.networks.pvt_beside_lite import PvtBesideLitePrior
from bundle.networks.pvt_on_lite import PvtOnLitePrior

_LITE, _ON, _BESIDE = "lite0", "_on_lite0", "_beside_lite0"


def build_image_prior(name: str, pretrained: str | None = None, drop_path_rate: float = 0.0) -> nn.Module:
    """The image prior of that name.

    Args:
        name: a variant of PVT v2, see `PvtV2Prior`; 'lite0', see `EfficientNetLitePrior`; a variant followed by
            '_on_lite0' or '_beside_lite0', see `PvtOnLitePrior` and `PvtBesideLitePrior`.
        pretrained: weights of the PVT, or of EfficientNet-Lite0 where that is part of the prior; None starts from
            random weights.
        drop_path_rate: stochastic depth of the PVT.

    Raises:
        ValueError: no such prior.
    """
    for ending, joint in ((_ON, PvtOnLitePrior), (_BESIDE, PvtBesideLitePrior)):
        if name.endswith(ending) and name.removesuffix(ending) in PVT_V2_VARIANTS:
            return joint(name.removesuffix(ending), pretrained, drop_path_rate)
    if name == _LITE:
        return EfficientNetLitePrior(pretrained)
    if name not in PVT_V2_VARIANTS:
        known = ", ".join(PVT_V2_VARIANTS)
        raise ValueError(
            f"image_prior must be one of {known}, one of these followed by {_ON} or {_BESIDE}, or {_LITE}, "
            f"not {name!r}"
        )
    return PvtV2Prior(name, pretrained=pretrained, drop_path_rate=drop_path_rate)
