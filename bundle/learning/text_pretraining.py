"""Pre-training of the small text encoder that the bundle brings along.

Two published objectives on generated wording: masked-language modelling (Devlin et al., 'BERT', 2019), and
InfoNCE over mean-pooled embeddings of paraphrases (Gao et al., 'SimCSE', 2021; van den Oord et al., 2018). The
encoder is a small ModernBERT (Warner et al., 'Smarter, Better, Faster, Longer', 2024) or BERT.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from bundle.atomic import replace_folder, write_atomically
from bundle.learning.checkpoint import Stateful, load_checkpoint, save_checkpoint
from bundle.learning.handlers import warmup_cosine
from bundle.learning.text_encoder import (
    SPECIAL_TOKENS,
    Architecture,
    EncoderSize,
    make_encoder,
    name_tokenizer,
    train_tokenizer,
    wrapped,
)
from bundle.wording import Infection, Meaning, NamedStructures, SentenceGenerator, all_terms

logger = logging.getLogger(__name__)

_NOTE_WORDS = (40, 400)
_MISSPELT = 0.2  # of the second wordings
_README = Path(__file__).with_name("text_prior_readme.md")
_IGNORED = -100  # label of tokens that are not to be predicted, torch's default


def misspell(text: str, random: Random) -> str:
    """One letter of one longer word left out, doubled or exchanged with the next."""
    words = text.split(" ")
    long = [number for number, word in enumerate(words) if len(word) > 5]
    if not long:
        return text
    number = random.choice(long)
    word = words[number]
    i = random.randrange(1, len(word) - 2)
    start, letter, following, end = word[:i], word[i], word[i + 1], word[i + 2 :]
    middle = random.choice([following, letter * 2 + following, following + letter])
    words[number] = start + middle + end
    return " ".join(words)


def mask_tokens(
    ids: Tensor, maskable: Tensor, share: float, mask_id: int, vocabulary: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """BERT's corruption: of the chosen tokens 80 % become the mask, 10 % another token, 10 % stay.

    DataCollatorForLanguageModeling of transformers takes special tokens for other ones too.

    Args:
        ids: (B, N).
        maskable: (B, N) bool, False at special tokens and padding.

    Returns:
        Corrupted ids and labels, both (B, N); labels are -100 where nothing is to be predicted.
    """
    chosen = (torch.rand(ids.shape, generator=generator) < share) & maskable
    fate = torch.rand(ids.shape, generator=generator)
    others = torch.randint(len(SPECIAL_TOKENS), vocabulary, ids.shape, generator=generator)
    corrupted = torch.where(chosen & (fate < 0.8), mask_id, ids)
    corrupted = torch.where(chosen & (fate >= 0.9), others, corrupted)
    return corrupted, torch.where(chosen, ids, _IGNORED)


def contrastive_loss(first: Tensor, second: Tensor, meanings: Sequence[str], temperature: float) -> Tensor:
    """Symmetric InfoNCE; other texts of the same meaning are no negatives.

    Args:
        first, second: (B, width) embeddings of two wordings of each meaning.
        meanings: B keys.
    """
    similarity = normalize(first, dim=1) @ normalize(second, dim=1).T / temperature
    keys = {key: number for number, key in enumerate(dict.fromkeys(meanings))}
    number = torch.tensor([keys[key] for key in meanings])
    same = (number[:, None] == number[None]) & ~torch.eye(len(number), dtype=torch.bool)
    similarity = similarity.masked_fill(same.to(similarity.device), float("-inf"))
    target = torch.arange(len(meanings), device=similarity.device)
    return (cross_entropy(similarity, target) + cross_entropy(similarity.T, target)) / 2


@dataclass(eq=False)
class TextPretraining:
    """Trains a tokenizer and an encoder and writes them as a folder that transformers can read.

    What a step sees depends on the seed and its number alone, so that a training that was stopped goes on as if
    it had not been. `output_dir` holds checkpoint.pt, log.jsonl, tokenizer.json and, at the end, `text_prior/`.

    Args:
        output_dir: where to write; a training that is found there is continued.
        architecture: 'modernbert' (8,192 tokens) or 'bert' (512 tokens).
        size: of the encoder.
        steps: optimiser steps.
        pairs: pairs of paraphrases a step.
        notes: texts a step for masked-language modelling, besides the first of each pair.
        note_tokens: longest of these; longer ones are cut.
        mask_share: of the tokens that are to be predicted.
        temperature: of InfoNCE.
        contrastive_weight: against 1 for masked-language modelling.
        corpus: sentences that the tokenizer is trained on.
        save_every: steps between checkpoints and evaluations.

    Raises:
        WeightsError: output_dir holds the checkpoint of another training.
    """

    output_dir: Path
    architecture: Architecture = "modernbert"
    size: EncoderSize = EncoderSize()
    steps: int = 900
    pairs: int = 64
    notes: int = 8
    note_tokens: int = 128
    mask_share: float = 0.25
    temperature: float = 0.05
    contrastive_weight: float = 1.0
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    corpus: int = 20000
    save_every: int = 150
    seed: int = 0
    device: str | torch.device = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        self.output_dir = Path(self.output_dir)
        self.tokenizer = self._tokenizer()
        torch.manual_seed(self.seed)
        self.model = make_encoder(self.architecture, self.size, self.tokenizer).to(torch.device(self.device))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.98)
        )
        self.lr_scheduler = warmup_cosine(self.optimizer, self.warmup_steps, self.steps)
        self._parts: dict[str, Stateful] = {
            "network": self.model,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
        }
        self.done = 0
        if self._checkpoint.is_file():
            self.done = int(load_checkpoint(self._checkpoint, self._parts, self.settings)["step"])

    @property
    def settings(self) -> dict[str, str]:
        """What a continuation may not change: everything but where, how often and on what it runs."""
        free = ("output_dir", "save_every", "device", "progress")
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in free}
        return {name: str(value) for name, value in {**values, "size": json.dumps(asdict(self.size))}.items()}

    @property
    def folder(self) -> Path:
        """Where the trained encoder is written."""
        return self.output_dir / "text_prior"

    def run(self, until: int | None = None) -> dict[str, float]:
        """Train to the end, write the folder and return the last evaluation.

        Args:
            until: stop after this step, to be continued later; nothing is written but the checkpoint.
        """
        last = self.steps if until is None else min(until, self.steps)
        bar = tqdm(
            range(self.done, last),
            initial=self.done,
            total=self.steps,
            disable=not self.progress,
            unit="step",
        )
        figures: dict[str, float] = {}
        for step in bar:
            losses = self._step(step)
            self.done = step + 1
            if self.done % self.save_every == 0 or self.done == last:
                figures = self._log(losses)
                save_checkpoint(self._checkpoint, self._parts, {"step": self.done}, self.settings)
            bar.set_postfix({name: f"{value:.3f}" for name, value in {**losses, **figures}.items()})
        if self.done == self.steps:
            figures = figures or self.evaluate()
            self._write(figures)
        return figures

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """(B, width): unit vectors in the direction of the mean over real tokens."""
        self.model.eval()
        return normalize(self._pooled(*self._tokens(texts)), dim=1)

    def evaluate(self) -> dict[str, float]:
        """Shares, 0 to 1, on phrasings that were held out, and on sentences drawn anew.

        Returns:
            `retrieval`: held-out phrasings whose nearest name among the structures that have some is theirs;
            `retrieval_all`: the same among all names; `sides_reports`, `sides_prompts`: texts that are nearer to
            a paraphrase than to the same with left and right exchanged.
        """
        terms = list(all_terms().values())
        held_out = [(phrase, term.name) for term in terms for phrase in term.held_out]
        phrases = self.embed([phrase for phrase, _ in held_out])
        figures = {}
        for figure, names in (
            ("retrieval", [term.name for term in terms if term.held_out]),
            ("retrieval_all", [term.name for term in terms]),
        ):
            nearest = (phrases @ self.embed(names).T).argmax(1).tolist()
            hits = [names[i] == name for i, (_, name) in zip(nearest, held_out, strict=True)]
            figures[figure] = sum(hits) / len(hits)
        generator = SentenceGenerator(2**60 + self.seed)  # beyond the seeds of steps
        figures["sides_reports"] = self._sides(generator, [generator.infection() for _ in range(300)])
        figures["sides_prompts"] = self._sides(
            generator,
            [NamedStructures((term,)) for term in terms if term.opposite is not None for _ in range(8)],
        )
        return figures

    @property
    def _checkpoint(self) -> Path:
        return self.output_dir / "checkpoint.pt"

    def _sides(self, generator: SentenceGenerator, meanings: Sequence[Infection | NamedStructures]) -> float:
        sided: list[tuple[Meaning, Meaning]] = []
        for meaning in meanings:
            other = meaning.opposite()
            if other is not None:
                sided.append((meaning, other))
        say = generator.say
        anchors = self.embed([say(meaning) for meaning, _ in sided])
        same = self.embed([say(meaning) for meaning, _ in sided])
        opposite = self.embed([say(other) for _, other in sided])
        return float(((anchors * same).sum(1) > (anchors * opposite).sum(1)).float().mean())

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        path = self.output_dir / "tokenizer.json"
        if not path.is_file():
            generator = SentenceGenerator(self.seed)
            texts = (generator.note(30) for _ in range(self.corpus // 5))
            trained = train_tokenizer(texts, self.size.vocabulary)
            with write_atomically(path) as temporary:
                trained.backend_tokenizer.save(str(temporary))
        return wrapped(Tokenizer.from_file(str(path)))

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of real tokens, both (B, N); texts longer than `note_tokens` are cut."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.note_tokens, return_tensors="pt"
        )
        return batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)

    def _pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        real = mask[..., None].to(tokens.dtype)
        return (tokens * real).sum(1) / real.sum(1)

    def _step(self, step: int) -> dict[str, float]:
        self.model.train()
        random = Random(f"{self.seed} {step}")
        generator = SentenceGenerator(random.getrandbits(48))
        torch.manual_seed(random.getrandbits(48))  # of dropout
        noise = torch.Generator().manual_seed(random.getrandbits(48))
        pairs = generator.pairs(self.pairs)
        texts = [pair.first for pair in pairs] + [
            misspell(pair.second, random) if random.random() < _MISSPELT else pair.second for pair in pairs
        ]
        first, second = self._pooled(*self._tokens(texts)).chunk(2)
        contrastive = contrastive_loss(first, second, [pair.meaning for pair in pairs], self.temperature)
        masked = self._masked_loss(
            [
                *(generator.sentence() for _ in range(self.pairs // 2)),
                *(generator.note(random.randint(*_NOTE_WORDS)) for _ in range(self.notes)),
            ],
            noise,
        )
        self.optimizer.zero_grad()
        (masked + self.contrastive_weight * contrastive).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.lr_scheduler.step()
        return {"masked": masked.item(), "contrastive": contrastive.item()}

    def _masked_loss(self, texts: Sequence[str], noise: torch.Generator) -> Tensor:
        """Cross-entropy of the hidden tokens; short and long texts in passes of their own, to pad little."""
        total = torch.zeros((), device=self.device)
        predicted = 0
        for some in (texts[: self.pairs // 2], texts[self.pairs // 2 :]):
            if not some:
                continue
            ids, mask = self._tokens(some)
            maskable = mask.bool() & (ids >= len(SPECIAL_TOKENS))
            corrupted, labels = mask_tokens(
                ids.cpu(),
                maskable.cpu(),
                self.mask_share,
                self.tokenizer.mask_token_id,
                len(self.tokenizer),
                noise,
            )
            logits = self.model(input_ids=corrupted.to(self.device), attention_mask=mask).logits
            labels = labels.to(self.device)
            total = total + cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            predicted += int((labels != _IGNORED).sum())
        return total / max(predicted, 1)

    def _log(self, losses: dict[str, float]) -> dict[str, float]:
        figures = self.evaluate()
        line = {"step": self.done, **losses, **figures}
        with (self.output_dir / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({name: round(value, 4) for name, value in line.items()}) + "\n")
        logger.info("text pre-training %s", line)
        return figures

    def _write(self, figures: dict[str, float]) -> None:
        parameters = sum(parameter.numel() for parameter in self.model.base_model.parameters())
        with replace_folder(self.folder) as folder:
            state = {name: value.half() for name, value in self.model.base_model.state_dict().items()}
            bare = type(self.model.base_model)
            options = {"add_pooling_layer": False} if self.architecture == "bert" else {}
            encoder = bare(self.model.config, **options).half()
            encoder.load_state_dict(state)
            encoder.save_pretrained(folder)
            self.tokenizer.model_max_length = self.model.config.max_position_embeddings
            self.tokenizer.save_pretrained(folder)
            name_tokenizer(folder / "tokenizer_config.json")
            (folder / "README.md").write_text(self._readme(parameters, figures), encoding="utf-8")

    def _readme(self, parameters: int, figures: dict[str, float]) -> str:
        defaults = {one.name: str(one.default) for one in fields(self)}
        options = {
            **{n: v for n, v in self.settings.items() if n != "size" and v != defaults[n]},
            "architecture": self.architecture,
            **({"dropout": self.size.dropout} if self.size.dropout else {}),
        }
        return _README.read_text(encoding="utf-8").format(
            options=" ".join(f"--{name} {value}" for name, value in options.items()),
            training=self,
            parameters=parameters,
            longest=self.model.config.max_position_embeddings,
            tokens=len(self.tokenizer),
            terms=len(all_terms()),
            rows="\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in figures.items()),
        )
