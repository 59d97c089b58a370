"""Conversations: which tokens are answers, and healing that learns these alone. The oracles are the words of
the answers, and a plain loop over the model's own loss with labels of -100."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.conversations import as_conversation, tokenise_conversation
from deeper_layers.data.packing import Steps
from deeper_layers.data.tokens import Tokens, read_documents, tokenise, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.methods import healing_method
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.settings.healing import PartialHealing
from helpers.config import ROOT
from helpers.healing import VOCABULARY, tiny_llama

torch.set_num_threads(1)
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '> ' + m.content + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
FORGETS = TEMPLATE.replace("m.content", "(m.content if loop.last or m.role != 'assistant' else 'gone')")
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + TEMPLATE
WORDS = ["<pad>", "<system>", "<user>", "<assistant>", "<end>"]
WORDS += [f"w{number}" for number in range(len(WORDS), VOCABULARY)]


def tokenizer_with(template: str | None) -> PreTrainedTokenizerFast:
    built = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", chat_template=template)


def program(name: str, folder: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / f"scripts/{name}.py"), *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def random_conversations(count: int, turns: int = 2) -> list[list[dict[str, str]]]:
    rng = np.random.default_rng(0)

    def words() -> str:
        return " ".join(rng.choice(WORDS[5:], rng.integers(1, 7)))

    return [
        said(*[pair for _ in range(turns) for pair in (("user", words()), ("assistant", words()))])
        for _ in range(count)
    ]


def test_what_is_learned_are_the_answers_and_their_ends():
    first = said(("system", "w10 w11"), ("user", "w12"), ("assistant", "w13 w14"))
    messages = first + said(("user", "w15"), ("assistant", "w16"))
    ids, learned = tokenise_conversation(tokenizer_with(TEMPLATE), messages)
    written = [WORDS[i] for i in ids]
    before = "<system> w10 w11 <end> <user> w12 <end> <assistant> w13 w14 <end>"
    assert written == f"{before} <user> w15 <end> <assistant> w16 <end>".split()
    answers = [word for word, is_learned in zip(written, learned, strict=True) if is_learned]
    assert answers == ["w13", "w14", "<end>", "w16", "<end>"]


def test_a_list_of_messages_is_a_conversation_and_nothing_else_is():
    messages = said(("user", "a"), ("assistant", "b"))
    assert as_conversation([m | {"id": 5} for m in messages]).messages == messages
    for value in (None, "text", [], ["text"], [{"role": "user"}], [{"role": "user", "content": None}]):
        assert as_conversation(value) is None


@pytest.mark.parametrize(
    "template, messages, words",
    [
        (None, said(("user", "w9")), "the tokenizer has no chat template"),
        (REFUSES, said(("system", "w9")), "refuses a conversation of system: no system here"),
        (FORGETS, random_conversations(1)[0], "writes an answer otherwise when messages follow it"),
    ],
)
def test_what_cannot_be_written_out_is_one_line(template, messages, words):
    with pytest.raises(UserError, match=words):
        tokenise_conversation(tokenizer_with(template), messages)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_files_of_conversations_become_tokens(ending, tmp_path):
    found = random_conversations(20)
    if ending == "jsonl":
        lines = [json.dumps({"messages": messages, "source": "x"}) for messages in found]
        (tmp_path / "chat.jsonl").write_text("\n".join(lines) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"messages": found}), tmp_path / "chat.parquet")
    options = [
        "--source",
        f"chat.{ending}",
        "--field",
        "messages",
        "--documents",
        "15",
        "--out",
        "train.jsonl",
    ]
    program("sample", tmp_path, *options, "--out", "train.jsonl")
    documents = list(read_documents(tmp_path / "train.jsonl"))
    assert len(documents) == 15 and all(messages in found for messages in documents)
    tokenizer_with(TEMPLATE).save_pretrained(tmp_path / "model")
    words = ["--checkpoint", "model", "--text", "train.jsonl", "--out", "tokens.json"]
    program("tokenise", tmp_path, *words)
    tokens = Tokens(tmp_path / "tokens.json")
    summary = json.loads((tmp_path / "tokens.json").read_text())
    for number, messages in enumerate(documents):
        ids, learned = tokenise_conversation(tokenizer_with(TEMPLATE), messages)
        marked = tokens.marked(number, 99)
        assert tokens[number].tolist() == ids and (marked >= 0).tolist() == learned
        assert np.where(marked < 0, ~marked, marked).tolist() == ids
    assert summary["learned"] == int(tokens.learned.sum()) < summary["tokens"]
    columns = load_file(tmp_path / "tokens.safetensors")
    assert columns["learned"].tolist() == tokens.learned.tolist() and len(columns["ids"]) == summary["tokens"]


def test_texts_beside_conversations_are_learned_whole(tmp_path):
    tokenizer = tokenizer_with(TEMPLATE)
    write_tokens(tmp_path / "t", tokenise(tokenizer, ["w7 w8", random_conversations(1)[0], "w9"]))
    tokens = Tokens(tmp_path / "t")
    assert [(tokens.marked(d, 99) >= 0).all() for d in range(3)] == [True, False, True]
    write_tokens(tmp_path / "plain", tokenise(tokenizer, ["w7 w8"]))
    assert Tokens(tmp_path / "plain").learned is None


# Healing

RECIPE = PartialHealing(
    layers=1, learning_rate=3e-3, warmup=1, steps=6, batch=4, length=24, packing=False, precision="fp32"
)
BLOCK = LayerSet.contiguous(1, 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    tiny_llama(layers=5).save_pretrained(root / "full")
    cut_checkpoint(root / "full", BLOCK, root / "cut")
    write_tokens(root / "train", tokenise(tokenizer_with(TEMPLATE), random_conversations(60)))
    return root


@pytest.mark.parametrize("batch_tokens", [None, 40])
def test_healing_learns_the_answers_alone(study, tmp_path, batch_tokens):
    """Each step's loss, in parts or not, against AdamW on the model's own loss with labels of -100."""
    recipe = replace(RECIPE, batch_tokens=batch_tokens)
    cut, train = study / "cut", study / "train"
    files = HealingFiles(cut, train, tmp_path / "out", tmp_path / "state", study / "full")
    healing_method("partial").heal(files, recipe)
    rows = list(csv.DictReader((tmp_path / "out/training.csv").read_text().splitlines()))
    model = load_model(cut).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("model.layers.2.", "model.norm", "lm_head")))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, weight_decay=0.0)
    steps = Steps(Tokens(train), recipe.steps, recipe.batch, recipe.length, recipe.packing, recipe.seed)
    assert len(rows) == len(steps)
    for number, row in enumerate(rows):
        documents = steps[number]
        shape = len(documents), max(map(len, documents))
        ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
        for place, document in enumerate(documents):
            ids[place, : len(document)] = torch.from_numpy(np.where(document < 0, ~document, document))
            labels[place, : len(document)] = torch.from_numpy(np.where(document < 0, -100, document))
        loss = model(input_ids=ids, labels=labels).loss
        assert float(row["loss"]) == pytest.approx(loss.item(), abs=1e-5)
        asked_too = model(input_ids=ids, labels=ids.masked_fill(ids == 0, -100)).loss
        assert abs(asked_too.item() - loss.item()) > 1e-3
        optimiser.param_groups[0]["lr"] = float(row["learning_rate"])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()


def test_a_gradient_is_that_of_the_answers(study):
    from deeper_layers.data.batches import padded
    from deeper_layers.healing.objective import Objective

    tokens = Tokens(study / "train")
    documents = [tokens.marked(number, 24) for number in range(7)]
    model = load_model(study / "cut")
    ids, last = padded(documents)
    learned, ids = ids >= 0, torch.where(ids >= 0, ids, ~ids)
    found = Objective(model, RECIPE)(ids, last, learned)["cross_entropy"]
    labels = torch.where(learned & (torch.arange(ids.shape[1]) <= last[:, None]), ids, -100)
    count = (labels[:, 1:] >= 0).sum()
    expected = model(input_ids=ids, labels=labels).loss * count
    head = model.get_output_embeddings().weight
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, head)[0] for loss in (found, expected)), rtol=1e-4, atol=1e-5
    )
    assert count == sum(int((document[1:] >= 0).sum()) for document in documents)


def test_conversations_whose_answers_are_cut_off_are_left_out(study):
    tokens = Tokens(study / "train")
    steps = Steps(tokens, 20, 4, 6, packing=False)
    assert all((document[1:] >= 0).any() for k in range(20) for document in steps[k])
    with pytest.raises(UserError, match="has no document with an answer in 2 tokens: nothing to heal on"):
        Steps(tokens, 1, 1, 2, packing=False)
