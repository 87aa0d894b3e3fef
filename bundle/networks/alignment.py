"""Alignment of text and image: LCPDN's text-vision-alignment prompt block, equations 1 to 5."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bundle.networks.text_prior import TextFeatures


class TextVisionPrompt(nn.Module):
    """Text and image tokens -> what is added to the embedding of the timesteps.

    Args:
        text_width: of a text token.
        image_width: of an image token.
        embedding_width: of the timesteps' embedding, d in the paper.
        width: shared latent dimension, D in the paper.
    """

    def __init__(self, text_width: int, image_width: int, embedding_width: int, width: int = 768) -> None:
        super().__init__()
        self.query = nn.Linear(text_width, width, bias=False)
        self.key = nn.Linear(image_width, width, bias=False)
        self.value = nn.Linear(image_width, width, bias=False)
        self.to_embedding = nn.Linear(width, embedding_width)

    def forward(self, text: TextFeatures, image_tokens: Tensor) -> Tensor:
        """Text features and (B, M, image_width) -> (B, embedding_width)."""
        query, key, value = self.query(text.tokens), self.key(image_tokens), self.value(image_tokens)
        attention = (query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        attended = attention @ value  # eq. 1
        joined = attended.tanh() * query  # eq. 2
        real = text.mask.to(joined)[..., None]
        mean = (joined * real).sum(dim=1) / real.sum(dim=1)  # eq. 3, padding left out
        prompt: Tensor = self.to_embedding(mean)  # eq. 4; eq. 5 adds it to the timesteps' embedding
        return prompt


def replicated(text: TextFeatures, count: int) -> Tensor:
    """As many text tokens as an image has: real tokens repeated from the first, or cut (LCPDN, sec. 3.4).

    Args:
        text: B prompts.
        count: of image tokens, M.

    Returns:
        (B, M, width).
    """
    lengths = text.mask.sum(dim=1, keepdim=True)
    position = torch.arange(count, device=lengths.device)[None] % lengths
    return text.tokens.gather(1, position[..., None].expand(-1, -1, text.tokens.shape[-1]))
