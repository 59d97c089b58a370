"""Models: where they come from, and the small Llama that a study may train itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from .base import REQUIRED, Settings, section, setting
from .texts import TextUse


@dataclass(frozen=True, kw_only=True)
class Pretraining(Settings):
    """Shape of the base model and its training: ``steps`` batches of ``batch`` rows of ``length`` tokens.

    Both learning rates rise for ``warmup`` steps, stay, and fall to zero over the last ``cooldown`` share of
    the steps. Large token embeddings at the start (``spread``) make so small a model learn much sooner.
    """

    WHAT = "pretrain"

    layers: int = setting(int, 12, "Decoder layers L.", least=2)
    width: int = setting(int, 128, "Width of the residual stream.", least=8)
    heads: int = setting(int, 4, "Attention heads; the width is an even multiple of them.", least=1)
    ffn: int = setting(int, 256, "Width of the feed-forward layers.", least=8)
    steps: int = setting(int, 350, "Optimiser steps.", least=1)
    batch: int = setting(int, 16, "Rows per step.", least=1)
    length: int = setting(int, 128, "Tokens per row.", least=2)
    seed: int = setting(int, 0, "Seed of weights and document order.", least=0)
    muon: float = setting(float, 0.03, "Peak learning rate of the matrices inside the layers.", above=0)
    decay: float = setting(float, 0.3, "Weight decay of the matrices.", least=0)
    adamw: float = setting(float, 3e-3, "Peak learning rate of embeddings and norms.", above=0)
    warmup: int = setting(int, 20, "Steps of linear warm-up.", least=0)
    cooldown: float = setting(
        float, 0.4, "Share of the steps over which the learning rate falls to zero.", least=0, most=1
    )
    spread: float = setting(float, 0.5, "Standard deviation of the embeddings at the start.", above=0)

    def check(self) -> None:
        if self.width % (2 * self.heads):  # rotary embeddings turn pairs
            raise UserError(
                f"pretrain: width is {self.width}, it must be an even multiple of the {self.heads} heads, "
                f"such as {2 * self.heads * max(1, round(self.width / (2 * self.heads)))}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Pretraining, TextUse):
    """A model that the study trains, and on which text."""


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    """A model of the configuration."""

    WHAT = "models"

    source: str = setting(
        str,
        REQUIRED,
        "pretrain (train it here), the path of a checkpoint folder or of a .gguf file, or a model id of the "
        "Hugging Face hub.",
    )
    revision: str | None = setting(
        str, None, "Commit of a hub model. Pin it. Default is the newest, whatever that is."
    )
    trust_remote_code: bool = setting(
        bool, False, "Run the Python code that comes with this one checkpoint. Off unless you have read it."
    )
    convert: str | None = setting(
        str,
        None,
        "Layout that the checkpoint is rewritten from first. qwen, first-generation Qwen (to Qwen2).",
        choices=("qwen",),
    )
    dtype: str = setting(
        str,
        "bf16",
        "Of the weights that a .gguf file is turned into, once, before anything else.",
        choices=("bf16", "fp32"),
    )
    reshard: bool = setting(
        bool,
        False,
        "Write the weights once more, one file for each layer. Each cut then links the layers that it shares "
        "with others and writes only those after it.",
    )
    gpus: int = setting(
        int,
        1,
        "GPUs of a job that runs this model. 1 is on a GPU or not at all, 0 on the CPU.",
        determines=False,
        least=0,
        most=1,
    )
    pretrain: dict | None = section(TrainedModel, "For source pretrain, the Llama to train and how.")

    def check(self) -> None:
        if self.source == "pretrain" and self.pretrain is None:
            raise UserError("models: source is pretrain, so it needs a key pretrain")
        is_gguf = self.source.endswith(".gguf")
        if is_gguf and self.convert:
            raise UserError("models.convert: a GGUF file has a layout of its own; leave it out")
        if self.reshard and (self.convert or is_gguf):
            raise UserError("models.reshard: a converted model is written anew anyway; leave it out")
