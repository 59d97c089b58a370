"""docs/architectures.md, from the table of architectures of the test suite and tiny models of them."""

from __future__ import annotations

import transformers

from deeper_layers.checkpoints import decoder_config as configs
from deeper_layers.checkpoints.model_types import FIRST_ATTENDS
from deeper_layers.errors import UserError
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.reporting.text import and_list
from helpers import tiny
from helpers.tiny import (
    ARCHITECTURES,
    CACHE_DIFFERS,
    FIRST_STAYS,
    REFUSED,
    lora_targets,
    tiny_config,
    tiny_model,
)

BLOCK = LayerSet.parse("drop_2-2")  # one layer: whatever the period of a pattern, it shifts


def row(name: str, model) -> str:
    """The line of an architecture in docs/architectures.md."""
    changed = configs.changed_fields(configs.Decoder.of(model.config), BLOCK)
    edited = ", ".join(f"`{field}`" for field in sorted(changed)) or "-"
    found = ", ".join(f"`{target}`" for target in lora_targets(model)) or "none: name them"
    return f"| {name} | {found} | {edited} | {'differs' if name in CACHE_DIFFERS else 'equal'} |"


def refused_row(name: str, message: str) -> str:
    case = ", ".join(
        f"`{field}: {value}`" for field, value in REFUSED[name].items() if field not in tiny.SMALL
    )
    return f"| {name} | {case or 'always'} | {message.split('cannot be removed: ')[1]} |"


def page() -> str:
    """The page, from the tables of the architectures and a tiny model of each."""
    transformers.logging.set_verbosity_error()
    works = [row(n, tiny_model(n, **case)) for n, case in ARCHITECTURES.items() if tiny.known(n)]
    refused = []
    for name, case in REFUSED.items():
        try:
            configs.cut_config(tiny_config(name, **case), BLOCK)
        except UserError as error:
            refused.append(refused_row(name, str(error)))
    return f"""# Architectures

Written by `make docs` from the tables of the architectures' test suite, which runs everything said here on
a tiny random model of each type (transformers {transformers.__version__}).

The approach is generic, so a model type that is not listed may work too: `cut.py --verify` compares the cut
model with the original layer by layer and refuses what it cannot keep exact.

Models that read pictures too, such as Llava, Mistral3, Qwen2.5-VL, Gemma 3 and Llama 4, are measured, cut and
healed by their language model, asked in text alone; the checkpoint that is written is whole, with what sees
pictures as it was, and its own class loads it. How well the cut model still reads pictures is not measured.
(`tests/test_pictures.py`: tiny random models, their tensors named as by transformers and as on the hub.)

Weights in FP8 (`quant_method: fp8`) and MXFP4 (GPT-OSS) are cut as they are and become bf16 or fp32 when
they are loaded, whole: not for `precision: nf4` and not for `stream`. An export with an adapter has ordinary
numbers. Checkpoints that are quantised otherwise (bitsandbytes, GPTQ, AWQ, compressed-tensors, torchao, ...)
are refused: give the model that they were made from, which `precision: nf4` quantises. Masks and rotary
tables that older versions of transformers stored are let through, and a cut leaves them out. A GGUF file is
turned into ordinary weights first ([operations](operations.md#gguf-files)).

## Tested: {len(works)} model types

For each, without one layer and without a set with gaps: logits of the model cut in memory, and of the
checkpoint cut on disk and loaded again, are equal to those of the original whose removed layers do nothing
(difference 0.0), with no missing or unexpected tensor; greedy generation with a cache gives the tokens of
generation without. Without one layer: angular distances equal those of a plain loop and, streamed from the
disk layer by layer, are the same to the last digit; one LoRA step lowers the loss.

- *LoRA targets*: the linear modules of the feed-forward networks, found by `targets: [auto]`. Where there are
  none (fused experts, state-space layers), name targets in the recipe; the error lists the linear modules.
- *Edited in the config*: what says something of single layers, besides the number of layers.
- *Cache*: `differs` where this transformers generates other tokens with a cache than without even when
  nothing is removed; so does {and_list(sorted(FIRST_ATTENDS))} when its first layer is a linear one,
  so a cut that makes it one is refused.

| model type | LoRA targets | edited in the config | cache |
|---|---|---|---|
{chr(10).join(works)}

## Refused, with a clear error

Also refused: any config with a period that places layers and that no list spells out, a block that holds
every attention layer of a hybrid, models with an encoder, the first layer of {and_list(sorted(FIRST_STAYS))}.

| model type | when | why |
|---|---|---|
{chr(10).join(refused)}
"""
