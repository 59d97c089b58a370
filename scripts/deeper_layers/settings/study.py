"""A study: what is combined with what, and all sections of its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from .base import REQUIRED, Settings, section, setting
from .distances import Distances
from .formats import FORMATS
from .healing import Recipe
from .losses import ChoiceLosses
from .model import Model
from .speed import SpeedSettings
from .strategies import StrategySettings
from .suites import Suite
from .texts import Text

ACCOUNT = re.compile(r"[A-Za-z0-9][\w.-]*")
EXPORT = re.compile(r"[^/]+/[^/]+/(\d+|full|drop_[\d_-]+)")
CARDS = ("l4", "rtx-4090", "rtx-a6000", "l40s", "a100-40gb", "a100-80gb", "h100-80gb", "h200")


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """The section ``study``: all combinations of these are studied."""

    WHAT = "study"

    models: Sequence[str] = setting(str, REQUIRED, "Names of keys under models.", several=True, unique=True)
    remove: Sequence[int] | None = setting(
        int,
        None,
        "Numbers of layers n to remove, or all for 1..L-1. The uncut model is always included.",
        several=True,
        unique=True,
        empty=True,
        none="all",
        least=0,
    )
    strategies: Sequence[str] = setting(
        str,
        ("similarity",),
        "How the n layers are chosen: names of keys under strategies, or a rule by itself. similarity, the "
        "block with the least angular distance; deepest, the last n layers but the very last one; published, "
        "the authors' own blocks, which need no distances; influence, the n layers that change the hidden "
        "states least, wherever they are; iterative, those of least influence one after another, measured "
        "again each time; last, the last n layers; random, n layers by seed; loss, the block without which "
        "the loss on calibration text is least; one_shot_loss, the n layers without each of which, alone, it "
        "is least; greedy, one layer after another, each time the one without which it is least.",
        unique=True,
    )
    recipes: Sequence[str] = setting(
        str,
        (),
        "Names of keys under recipes; each heals every cut. Empty for no healing.",
        unique=True,
        empty=True,
    )
    suites: Sequence[str] = setting(
        str, (), "Names of keys under suites, by which every model is measured.", unique=True, empty=True
    )
    chunks: int = setting(
        int,
        1,
        "Jobs that share the evaluation of a recipe's cuts by a suite. Each loads the model once, and begins "
        "when its cuts are healed: on one machine 1 is fastest; on a cluster, as many as run at a time.",
        determines=False,
        least=1,
    )
    speed: bool = setting(
        bool,
        False,
        "Also measure the memory and the speed of every cut, as speed says. snakemake speed does so without "
        "it.",
    )


@dataclass(frozen=True, kw_only=True)
class Configuration(Settings):
    """A whole configuration."""

    WHAT = "configuration"

    outdir: str = setting(str, "results", "Folder that everything is written to.")
    card: str = setting(
        str,
        "a100-80gb",
        "GPU that memory and hours are estimated for, by snakemake plan and for schedulers.",
        determines=False,
        choices=CARDS,
    )
    study: dict = section(
        StudySettings, "What is studied, namely all combinations of these.", default=REQUIRED
    )
    models: dict = section(
        Model,
        "Models by the name they have in paths, tables and figures.",
        default=REQUIRED,
        named=True,
    )
    texts: dict = section(
        Text,
        "Texts by name, each with the splits train, calibration and validation, which share no document.",
        default=REQUIRED,
        named=True,
    )
    strategies: dict = section(
        StrategySettings,
        "Strategies by the name they have in tables and figures, for study.strategies beside the rules "
        "themselves: a rule with settings of its own.",
        default={},
        named=True,
    )
    distances: dict | None = section(
        Distances, "The angular distances that choose the block (paper, section 3.2)."
    )
    losses: dict | None = section(
        ChoiceLosses, "The losses by which the strategies loss, one_shot_loss and greedy choose."
    )
    recipes: dict = section(
        Recipe,
        "Ways to heal a cut, by the name of the treatment (paper, appendix A.1).",
        default={},
        named=True,
    )
    suites: dict = section(
        Suite,
        "What models are measured by. Either tasks of lm-eval, loss or perplexity.",
        default=REQUIRED,
        named=True,
    )
    speed: dict = section(
        SpeedSettings,
        "How memory and speed are measured, in one process, the cuts taking turns.",
        default={},
    )
    tolerance: float = setting(
        float,
        0.05,
        "In the summary, a cut keeps a measure if at most this part of it is lost, as docs/methods.md "
        "defines it.",
        least=0,
        most=1,
    )
    export: Sequence[str] = setting(
        str,
        (),
        "Checkpoints that snakemake export writes, each as MODEL/TREATMENT/N, as in embedded/healed/4 for "
        "the first strategy's block of 4 layers, or with the block itself, as in embedded/pruned/drop_6-9.",
        unique=True,
        empty=True,
    )
    formats: Sequence[str] = setting(
        str,
        (),
        "What each of these is also written as. For llama.cpp a GGUF file with weights of the type f32, f16, "
        "bf16, q8_0, q6_k, q5_k_m or q4_k_m; for transformers and vLLM nf4, a checkpoint in the 4 bits of "
        "bitsandbytes. See docs/serving.md.",
        choices=FORMATS,
        unique=True,
        empty=True,
    )
    hub: str | None = setting(
        str,
        None,
        "Account or organisation of the Hugging Face hub to which snakemake push uploads what export names, "
        "as private models.",
    )

    def check(self) -> None:
        folder = os.path.expanduser(self.outdir).rstrip("/")
        if not folder or folder.startswith("-") or set("{}") & set(folder):
            raise UserError(
                f"configuration.outdir: {self.outdir!r} cannot be the folder of the results; write a path "
                "that does not begin with - and has no { or }, such as results/mine"
            )
        if self.hub is not None and not ACCOUNT.fullmatch(self.hub):
            raise UserError(f"configuration.hub: {self.hub!r} is no name of an account or an organisation")
        for text in self.export:
            if not EXPORT.fullmatch(text):
                raise UserError(
                    f"configuration.export: {text!r} is not MODEL/TREATMENT/N, as in embedded/healed/4, or "
                    "with the block itself, as in embedded/healed/drop_6-9"
                )
