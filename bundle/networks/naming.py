"""Which structures a prompt names.

A prompt names a structure if any of its words, as the text prior reads them in their context, does. What a prompt
does not name is not segmented, however clearly the image shows it; words that name nothing leave an empty mask.
"""

from __future__ import annotations

from torch import Tensor, nn

from bundle.networks.text_prior import TextFeatures

#: Log-odds that an untrained token names a structure: few tokens name one.
_RARE = -4.0


class StructureNaming(nn.Module):
    """Log-odds that a prompt names each structure: the largest over its tokens.

    Args:
        structures: of the network, background left out.
        text_width: of a text token.
    """

    def __init__(self, structures: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_width)
        self.hidden = nn.Linear(text_width, text_width)
        self.score = nn.Linear(text_width, structures)
        nn.init.constant_(self.score.bias, _RARE)

    def forward(self, text: TextFeatures) -> Tensor:
        """B prompts -> (B, structures) float32."""
        tokens = nn.functional.gelu(self.hidden(self.norm(text.tokens)))
        scores: Tensor = self.score(tokens).float()
        return scores.masked_fill(~text.mask[..., None], float("-inf")).amax(dim=1)


def named_channels(log_odds: Tensor) -> list[int]:
    """(structures,) log-odds of one prompt -> channels of the mask that it names, background being 0."""
    return [channel + 1 for channel in log_odds.gt(0.0).nonzero()[:, 0].tolist()]
