"""Train the small Llama of the embedded study from scratch: transformers' own class and file layout, so
that every later stage treats it as it treats a model from the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import UserError
from ..runtime.files import atomic_files
from ..runtime.progress import Progress
from ..settings.model import Pretraining
from .muon import Muon

BOS, EOS, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"


def rate_factor(recipe: Pretraining, step: int) -> float:
    """The learning rate of ``step`` (from 0), as a share of its peak."""
    falling = (recipe.steps - step) / max(recipe.cooldown * recipe.steps, 1)
    return min(1.0, (step + 1) / (recipe.warmup + 1), falling)


def read_texts(path: str | Path) -> list[str]:
    """The ``text`` of every line of a jsonl file. Raises UserError if there is none."""
    try:
        with open(path) as file:
            texts = [json.loads(line)["text"] for line in file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} must be a file of lines {{"text": ...}}: {error!r}') from None
    if not texts:
        raise UserError(f"{path} holds no text")
    return texts


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for every word of ``texts`` (words stand between spaces), which begins every
    text with BOS. Decoding joins words by spaces, so encoding again gives the same tokens."""
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: i for i, word in enumerate([UNKNOWN, BOS, EOS, PAD, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN
    )


def build_model(recipe: Pretraining, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model. Projections that write to the residual stream start 1/sqrt(2 L) smaller, so
    that the stream grows evenly with depth (GPT-2's initialisation)."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.ffn,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=recipe.spread)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.div_((2 * recipe.layers) ** 0.5)
            layer.mlp.down_proj.weight.div_((2 * recipe.layers) ** 0.5)
    return model


def pack(
    documents: Iterable[Sequence[int]], length: int, pad: int, window: int = 16
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of whole documents, each in the first of ``window`` open rows where it fits, cut to ``length``
    if longer. Yields ids and positions, int64 [length]: positions restart at 0 with every document, and
    the padding at a row's end is one more document."""

    def finished(row: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        room = length - sum(map(len, row))
        parts = [*row, [pad] * room]
        return np.concatenate(parts).astype(np.int64), np.concatenate([np.arange(len(p)) for p in parts])

    rows: list[list[Sequence[int]]] = []
    for document in documents:
        document = document[:length]
        fitting = (row for row in rows if sum(map(len, row)) + len(document) <= length)
        if (row := next(fitting, None)) is not None:
            row.append(document)
            continue
        if len(rows) == window:
            yield finished(rows.pop(0))
        rows.append([document])
    yield from map(finished, rows)


def batches(
    documents: list[list[int]], recipe: Pretraining, pad: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of packed rows, ids and positions int64 [batch, length]; the documents come in a
    new random order in every epoch."""
    rng = np.random.default_rng(recipe.seed)
    shuffled = (documents[i] for _ in iter(int, 1) for i in rng.permutation(len(documents)))
    rows = pack(shuffled, recipe.length, pad)
    while True:
        ids, positions = zip(*(next(rows) for _ in range(recipe.batch)), strict=True)
        yield torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(positions))


def packed_loss(
    model: LlamaForCausalLM, ids: torch.Tensor, positions: torch.Tensor, pad: int
) -> torch.Tensor:
    """Mean next-token loss in nats of packed rows [batch, length]. Restarting positions make transformers
    keep attention inside each document; neither its first token nor padding is predicted."""
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
    targets = ids[:, 1:]
    counted = (positions[:, 1:] > 0) & (targets != pad)
    return cross_entropy(logits[counted], targets[counted])


def optimizers(model: LlamaForCausalLM, recipe: Pretraining) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        Muon(matrices, lr=recipe.muon, weight_decay=recipe.decay),
        torch.optim.AdamW(others, lr=recipe.adamw, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(
    model: LlamaForCausalLM, documents: list[list[int]], recipe: Pretraining, pad: int
) -> list[tuple[int, float, float]]:
    """Train ``model`` in place on token ids. Returns (step, loss in nats, learning rate of Muon) for each
    step. Equal inputs give equal weights on one machine with one number of threads."""
    peaks = [(optimizer, optimizer.param_groups[0]["lr"]) for optimizer in optimizers(model, recipe)]
    stream, log = batches(documents, recipe, pad), []
    model.train()
    with Progress("pretraining", recipe.steps, "step") as progress:
        for step in range(recipe.steps):
            for optimizer, peak in peaks:
                optimizer.param_groups[0]["lr"] = peak * rate_factor(recipe, step)
            loss = packed_loss(model, *next(stream), pad)
            if not loss.isfinite():
                raise UserError(f"the loss is not finite at step {step + 1}: lower the learning rates")
            loss.backward()
            for optimizer, _ in peaks:
                optimizer.step()
                optimizer.zero_grad()
            log.append((step + 1, loss.item(), recipe.muon * rate_factor(recipe, step)))
            progress.update(note=f"loss {log[-1][1]:.2f}")
    return log


def pretrain(text: str | Path, folder: str | Path, recipe: Pretraining) -> None:
    """Train on the jsonl file ``text`` and write a Hugging Face checkpoint (config, generation config,
    safetensors, tokenizer) and ``training.csv`` to ``folder``."""
    texts = read_texts(text)
    tokenizer = word_tokenizer(texts)
    documents = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    model = build_model(recipe, tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, {len(documents):,} documents")
    log = train(model, documents, recipe, tokenizer.pad_token_id)
    with atomic_files(folder, last="config.json") as temporary:
        tokenizer.save_pretrained(temporary)
        model.save_pretrained(temporary)
        with open(temporary / "training.csv", "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["step", "loss", "learning_rate"])
            out.writerows([step, f"{loss:.6g}", f"{rate:.6g}"] for step, loss, rate in log)
