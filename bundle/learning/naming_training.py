"""Teaches the text prior and the naming of structures, on texts alone, before any image is shown.

Which structures a text names has nothing to do with images: learnt by itself it takes minutes, and a training on images
can leave both parts as they are (`frozen_parts`), which saves it the backward pass through the text prior.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.cases import CaseReference
from bundle.cases.modality import MODALITIES, Modality
from bundle.cases.structures import Structures
from bundle.learning.checkpoint import Stateful, load_checkpoint, save_checkpoint, save_whole
from bundle.learning.handlers import warmup_cosine
from bundle.learning.prompting import Prompt, PromptDrawer
from bundle.networks.segmenter import DiffusionSegmenter
from bundle.wording import all_terms, everyday

logger = logging.getLogger(__name__)


class NamingTraining:
    """Trains `network.text_prior` and `network.naming`; the other parts stay as they are.

    What a step sees depends on the seed and its number alone, so that a training that was stopped goes on as if it had
    not been.

    Args:
        network: with a text prior that learns and a naming head.
        structures: of the network.
        output_dir: of checkpoint.pt and, at the end, model.pt, the whole network; a training found there goes on.
        references: cases whose own texts are among those read, each a text about its modality's structures.
        drawer: of all other texts.
        steps: optimiser steps.
        texts: a step.
        own_share: of the texts that are cases' own.
        learning_rate, weight_decay, warmup_steps: AdamW with a cosine schedule.
        save_every: steps between checkpoints.

    Raises:
        ValueError: the network reads no text or names nothing.
        WeightsError: output_dir holds the checkpoint of another training.
    """

    def __init__(
        self,
        network: DiffusionSegmenter,
        structures: Structures,
        output_dir: str | Path,
        references: Sequence[Sequence[CaseReference]] = (),
        drawer: PromptDrawer | None = None,
        steps: int = 2000,
        texts: int = 64,
        own_share: float = 0.15,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        save_every: int = 200,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if network.text_prior is None or network.naming is None:
            raise ValueError("read_text: the network reads no text; set it to true")
        self.network, self.structures, self.output_dir = network, structures, Path(output_dir)
        self.drawer = drawer or PromptDrawer(structures)
        self.steps, self.texts, self.own_share = steps, texts, own_share
        self.save_every, self.seed, self.progress = save_every, seed, progress
        own = {(r.modality, r.prompt) for group in references for r in group if r.prompt and r.modality}
        self.own: list[tuple[Modality, str]] = sorted(own)
        self.parts = nn.ModuleDict({"text_prior": network.text_prior, "naming": network.naming}).train()
        self.optimizer = torch.optim.AdamW(
            self.parts.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self.lr_scheduler = warmup_cosine(self.optimizer, warmup_steps, steps)
        self._stateful: dict[str, Stateful] = {
            "network": self.parts,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
        }
        self._settings = {
            name: str(value)
            for name, value in {
                "seed": seed,
                "steps": steps,
                "texts": texts,
                "own_share": own_share,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "warmup_steps": warmup_steps,
                "own": len(self.own),
            }.items()
        }
        self.done = 0
        if self._checkpoint.is_file():
            self.done = int(load_checkpoint(self._checkpoint, self._stateful, self._settings)["step"])

    @property
    def _checkpoint(self) -> Path:
        return self.output_dir / "checkpoint.pt"

    def run(self) -> dict[str, float]:
        """Train to the end, write model.pt and return the evaluation."""
        bar = tqdm(
            range(self.done, self.steps),
            initial=self.done,
            total=self.steps,
            unit="step",
            disable=not self.progress,
        )
        for step in bar:
            loss = self._step(step)
            self.done = step + 1
            bar.set_postfix(loss=f"{loss:.4f}")
            if self.done % self.save_every == 0 or self.done == self.steps:
                save_checkpoint(self._checkpoint, self._stateful, {"step": self.done}, self._settings)
        figures = self.evaluate()
        logger.info("naming: %s", json.dumps({name: round(value, 4) for name, value in figures.items()}))
        save_whole(self.network.state_dict(), self.output_dir / "model.pt")
        return figures

    def _step(self, step: int) -> float:
        random = Random(f"{self.seed} {step}")
        drawn = [self._drawn(random) for _ in range(self.texts)]
        named = torch.zeros((self.texts, self.structures.channels))
        for row, prompt in enumerate(drawn):
            named[row, list(prompt.channels)] = 1.0
        log_odds = self._log_odds([prompt.text for prompt in drawn])
        loss = nn.functional.binary_cross_entropy_with_logits(log_odds, named[:, 1:].to(log_odds.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        self.lr_scheduler.step()
        return float(loss.detach())

    def _drawn(self, random: Random) -> Prompt:
        if self.own and random.random() < self.own_share:
            modality, text = random.choice(self.own)
            return Prompt(text, frozenset(self.structures.of_modality(modality)))
        if random.random() < 0.5:
            return self.drawer.for_words_alone(random)
        return self.drawer.for_image(random.choice(MODALITIES), "", random)

    def _log_odds(self, texts: Sequence[str]) -> Tensor:
        log_odds: Tensor = self.parts["naming"](self.parts["text_prior"](texts))
        return log_odds

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Shares, 0 to 1, on words that are never drawn.

        Returns:
            `held_out_names`: held-out synonyms that name their structure and no other; `meaningless`: held-out
            everyday words that name nothing.
        """
        terms = all_terms(self.structures)
        asked = [
            (phrase, entry.value - 1) for entry in self.structures for phrase in terms[entry.name].held_out
        ]
        nothing = everyday()["held_out"]
        figures = {}
        if asked:
            named = self._log_odds([phrase for phrase, _ in asked]) > 0.0
            only = torch.zeros_like(named)
            only[range(len(asked)), [channel for _, channel in asked]] = True
            figures["held_out_names"] = float((named == only).all(dim=1).float().mean())
        if nothing:
            figures["meaningless"] = float((self._log_odds(nothing) <= 0.0).all(dim=1).float().mean())
        return figures
