"""Healing: how a cut is trained (paper, appendix A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .base import REQUIRED, Settings, check_words, section, setting
from .precision import PRECISIONS
from .texts import SPLITS, TextUse

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")


@dataclass(frozen=True, kw_only=True)
class LoraSettings(Settings):
    """The adapter."""

    rank: int = setting(int, 64, "LoRA rank.", least=1)
    alpha: float | None = setting(float, None, "LoRA alpha. Default is the rank.", above=0)
    dropout: float = setting(float, 0.05, "LoRA dropout.", least=0, below=1)
    targets: Sequence[str] = setting(
        str,
        ("auto",),
        "Names of the linear layers to adapt. Default is those of the feed-forward layers, found in the "
        "model.",
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The training, with the paper's settings (appendix A.1) as defaults. ``batch`` is in rows of at most
    ``length`` tokens."""

    WHAT = "healing"

    learning_rate: float = setting(float, 3e-4, "Peak learning rate.", above=0)
    schedule: str = setting(str, "cosine", "Learning rate after the warm-up.", choices=SCHEDULES)
    warmup: int = setting(int, 100, "Steps of linear warm-up; fewer than steps.", least=0)
    weight_decay: float = setting(float, 0.0, "Weight decay of AdamW.", least=0)
    clip: float = setting(float, 1.0, "Largest norm of the gradient.", above=0)
    steps: int = setting(int, 5000, "Optimiser steps.", least=1)
    batch: int = setting(int, 16, "Rows per optimiser step.", least=1)
    batch_tokens: int | None = setting(
        int,
        None,
        "Tokens that go through the model at once, padding counted; the rest of a step accumulates. Halved "
        "when memory runs out. Default is what memory seems to have room for. With dropout its masks depend "
        "on it.",
        determines=False,
        least=1,
    )
    length: int = setting(int, 2048, "Tokens per row.", least=2)
    packing: bool = setting(
        bool,
        False,
        "Fill rows with several documents that do not see each other. The paper has one document per row.",
    )
    cross_entropy: float = setting(
        float, 1.0, "Weight, in what training lowers, of the loss of the next token (the paper's).", least=0
    )
    logits: float = setting(
        float,
        0.0,
        "Weight of the divergence from the uncut model's distribution of the next token (distillation).",
        least=0,
    )
    interface: float = setting(
        float,
        0.0,
        "Weight of the squared difference from the uncut model's residual stream where the cut ends, in "
        "parts of its own square (the paper's equation 8).",
        least=0,
    )
    precision: str = setting(
        str, "nf4", "Of the frozen weights: fp32, bf16 or nf4 (4 bits, bitsandbytes).", choices=PRECISIONS
    )
    seed: int = setting(int, 0, "Seed of adapter, order and dropout.", least=0)
    checkpointing: str = setting(
        str,
        "auto",
        "Gradient checkpointing; auto, once not even one row fits without.",
        determines=False,
        key=False,
        choices=("auto", "on", "off"),
    )
    save_every: float = setting(
        float, 600, "Seconds between checkpoints to resume from.", determines=False, key=False, least=0
    )

    @property
    def has_teacher(self) -> bool:
        """Whether the uncut model takes part."""
        return self.logits > 0 or self.interface > 0

    def check(self) -> None:
        if not (self.cross_entropy or self.has_teacher):
            raise UserError(
                "healing: cross_entropy, logits and interface are all 0; give one of them a weight above 0"
            )
        if self.warmup >= self.steps:
            raise UserError(f"healing: warmup is {self.warmup} of {self.steps} steps, it must be fewer")


@dataclass(frozen=True, kw_only=True)
class Healing(TrainingSettings, LoraSettings):
    """The training of an adapter."""

    def check(self) -> None:
        super().check()
        if not self.targets:
            raise UserError("healing: targets is empty; name linear layers, or write auto")
        check_words("healing.targets", self.targets)


@dataclass(frozen=True, kw_only=True)
class PartialHealing(TrainingSettings):
    """The training of a part of the cut's own weights."""

    layers: int = setting(int, 3, "Last layers that train, with the norm behind them and the head.", least=1)
    precision: str = setting(
        str, "bf16", "Of the frozen weights; those that train are in fp32.", choices=("fp32", "bf16")
    )


@dataclass(frozen=True, kw_only=True)
class HealingAfterRepair(Healing):
    """The training of an adapter on a cut that another recipe has repaired."""

    after: str = setting(str, REQUIRED, "Recipe of the study that repairs the same cut first.")


@dataclass(frozen=True, kw_only=True)
class HealedCuts(TextUse):
    """How a recipe heals, on what text, and which cuts."""

    method: str = setting(
        str,
        "qlora",
        "Healing method, by its name in healing/methods.py. The keys from rank on are those of qlora; other "
        "methods read those that they share with it, and have their own under settings.",
    )
    settings: dict | None = section(dict, "Settings of a method other than qlora, by their names.")
    split: str = setting(str, "train", "Split of the text.", choices=SPLITS)
    control: bool = setting(bool, False, "Also train the uncut model; tells healing from training on.")
    remove: Sequence[int] = setting(
        int, (), "Heal only cuts of these n. Default is all of the study.", least=1
    )
    strategies: Sequence[str] = setting(
        str, (), "Heal only cuts of these strategies. Default is all of the study."
    )


@dataclass(frozen=True, kw_only=True)
class Recipe(Healing, HealedCuts):
    """A recipe of the configuration."""

    models: dict | None = section(dict, "Values of these keys for single models, by their names.", named=True)
