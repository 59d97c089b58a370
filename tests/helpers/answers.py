"""Prompts, and the answers of a tiny model to them: ours, and those of lm-eval's own model one at a time."""

from __future__ import annotations

import random

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from deeper_layers.evaluation.harness import CutsLM
from deeper_layers.models.layers import removed
from deeper_layers.pruning.layer_set import LayerSet
from helpers.tiny import VOCABULARY

BLOCK = LayerSet.parse("drop_2-3")


def prompts() -> list[str]:
    """Nine that begin with the same 20 words, of three lengths, and three that do not."""
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(2, VOCABULARY)}" for _ in range(count))

    before = words(20)
    return [f"{before} {words(2 + i % 3)}" for i in range(9)] + [words(length) for length in (2, 9, 5)]


def requests(said: dict) -> list[Instance]:
    return [Instance("generate_until", {}, (text, dict(said)), i) for i, text in enumerate(prompts())]


ASKED = {"until": ["w7 w9", "w11"], "max_gen_toks": 8}


def by_lm_eval(model, tokenizer, said: dict = ASKED) -> list[str]:
    with removed(model, BLOCK):
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        return lm.generate_until(requests(said), disable_tqdm=True)


def ours(model, tokenizer, said: dict = ASKED, batch: int | None = None, **more) -> list[str]:
    return CutsLM(model, tokenizer, [BLOCK], batch, "test", None, **more).generate_until(requests(said))
