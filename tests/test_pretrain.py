"""The base model: words in and out unchanged, documents that do not see each other, training that learns and
repeats itself bit by bit, and lm-eval's view of the world's tasks."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from deeper_layers.data.world import World, write_world
from deeper_layers.errors import UserError
from deeper_layers.pretraining.muon import Muon
from deeper_layers.pretraining.pretrain import (
    build_model,
    pack,
    packed_loss,
    pretrain,
    rate_factor,
    read_texts,
    train,
    word_tokenizer,
)
from deeper_layers.runtime.files import sha256
from deeper_layers.settings.model import Pretraining

TINY = Pretraining(layers=2, width=32, heads=2, ffn=64, steps=30, batch=4, length=64, warmup=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1, people=20)


@pytest.fixture(scope="module")
def study(world, tmp_path_factory):
    """A folder with results/texts/world, and results/model trained on it."""
    folder = tmp_path_factory.mktemp("study")
    before = os.getcwd()
    os.chdir(folder)
    write_world("results/texts/world", world, questions=40, train=1500, calibration=50, validation=50)
    pretrain("results/texts/world/train.jsonl", "results/model", TINY)
    os.chdir(before)
    return folder


def test_every_word_of_every_split_and_question_has_a_token(world, study):
    tokenizer = AutoTokenizer.from_pretrained(study / "results/model")
    texts = [
        t
        for split in ("train", "calibration", "validation")
        for t in read_texts(study / f"results/texts/world/{split}.jsonl")
    ]
    for q in world.knowledge(40) + world.yesno(40):
        texts += [f"{q['question']} {choice} ." for choice in q["choices"]]
    texts += [f"{q['question']} {q['worked']}" for q in world.reasoning(40)]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.unk_token_id not in ids and len(ids) == len(text.split()) + 1
        assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == len({word for text in texts for word in text.split()}) + 4
    assert {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token} == {"<s>", "</s>", "<pad>"}


def test_packing_loses_nothing_and_restarts_positions():
    rng = np.random.default_rng(0)
    documents = [rng.integers(5, 50, rng.integers(1, 40)).tolist() for _ in range(200)]
    rows = list(pack(documents, length=32, pad=3))
    found = []
    for ids, positions in rows:
        assert ids.shape == positions.shape == (32,)
        starts = [*np.flatnonzero(positions == 0), 32]
        parts = [ids[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]
        for a, b in zip(starts, starts[1:], strict=False):
            assert positions[a:b].tolist() == list(range(b - a))
        found += [part for part in parts if 3 not in part]
    assert sorted(found) == sorted(document[:32] for document in documents)
    assert sum(3 in ids for ids, _ in rows) / len(rows) < 1 and np.mean([ids != 3 for ids, _ in rows]) > 0.9


def test_packed_documents_do_not_see_each_other():
    model = build_model(TINY, word_tokenizer(["a b c d e f g h i j"])).double().eval()
    documents = [[1, 4, 5, 6, 7, 2], [1, 9, 8, 2], [1, 13, 12, 11, 10, 9, 8, 2]]
    rows = list(pack(documents, length=12, pad=3))
    ids, positions = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
    assert ids.shape == (2, 12)
    alone = []
    with torch.no_grad():
        for document in documents:
            logits = model(input_ids=torch.tensor([document])).logits[0, :-1].log_softmax(-1)
            alone += (-logits[range(len(document) - 1), document[1:]]).tolist()
        packed = packed_loss(model, ids, positions, pad=3)
    assert len(alone) == 15 and packed.item() == pytest.approx(np.mean(alone), rel=1e-9)


def test_training_learns_and_repeats_itself_bit_by_bit(study, tmp_path):
    pretrain(study / "results/texts/world/train.jsonl", tmp_path / "again", TINY)
    files = sorted(path.name for path in (study / "results/model").iterdir())
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    for name in files:
        assert sha256(study / "results/model" / name) == sha256(tmp_path / "again" / name), name
    with open(tmp_path / "again/training.csv") as file:
        log = list(csv.DictReader(file))
    assert [int(line["step"]) for line in log] == list(range(1, 31))
    losses = [float(line["loss"]) for line in log]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert max(float(line["learning_rate"]) for line in log) == TINY.muon


def test_another_seed_is_another_model(study):
    tokenizer = AutoTokenizer.from_pretrained(study / "results/model")
    one, same, other = (build_model(Pretraining(seed=seed, layers=2), tokenizer) for seed in (0, 0, 1))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)


def test_checkpoint_loads_as_any_other(study):
    model, loading = AutoModelForCausalLM.from_pretrained(study / "results/model", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 32)
    assert model.generation_config.eos_token_id == model.config.eos_token_id == 2
    assert sum(p.numel() for p in model.parameters()) == model.num_parameters()


def test_learning_rate_rises_stays_and_falls():
    recipe = Pretraining(steps=100, warmup=9, cooldown=0.4)
    factors = [rate_factor(recipe, step) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[9:60] == [1.0] * 51
    assert factors[60:] == pytest.approx([(100 - step) / 40 for step in range(60, 100)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 100},
        {"width": 33, "heads": 3},
        {"layers": 0},
        {"steps": -1},
        {"length": 1},
        {"spread": 0.0},
        {"cooldown": 1.5},
        {"warmup": -1},
    ],
)
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Pretraining(**wrong)


def test_a_diverging_loss_stops_the_training(study):
    model = build_model(TINY, AutoTokenizer.from_pretrained(study / "results/model"))
    with pytest.raises(UserError, match="not finite at step"):
        train(model, [[1, 4, 5, 6, 2]] * 50, dataclasses.replace(TINY, adamw=1e30), pad=3)


@pytest.mark.parametrize("content", [None, "", "no json\n", '{"words": "a"}\n', '["a"]\n'])
def test_a_text_that_is_none_is_refused(content, tmp_path):
    path = tmp_path / "train.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="train.jsonl"):
        read_texts(path)


def test_lm_eval_scores_the_tasks(study, monkeypatch):
    monkeypatch.chdir(study)
    manager = TaskManager(include_path=["results/texts/world/tasks"], include_defaults=False)
    assert set(manager.all_tasks) == {"knowledge", "yesno", "reasoning"}
    model = AutoModelForCausalLM.from_pretrained("results/model")
    tokenizer = AutoTokenizer.from_pretrained("results/model")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=20)
    out = simple_evaluate(lm, tasks=["knowledge", "yesno", "reasoning"], task_manager=manager)
    metrics = {"knowledge": "acc,none", "yesno": "acc,none", "reasoning": "exact_match,final-answer"}
    for name, metric in metrics.items():
        value = out["results"][name][metric]
        right = [by_hand(model, tokenizer, sample["doc"]) for sample in out["samples"][name]]
        assert value == pytest.approx(np.mean(right))
        stderr = out["results"][name][metric.replace(",", "_stderr,")]
        assert stderr == pytest.approx(np.std(right, ddof=1) / len(right) ** 0.5)
    chances = {name: out["configs"][name]["metadata"]["chance"] for name in out["configs"]}
    assert chances == {"knowledge": 0.25, "yesno": 0.5, "reasoning": 0.0}
    assert 0.5 <= out["configs"]["yesno"]["metadata"]["majority"] < 1


class EveryOther(LM):
    """Writes the worked steps of every other problem, and all but the last step of the rest."""

    def __init__(self, questions: list[dict]):
        super().__init__()
        self.known = {q["question"]: q["worked"].removesuffix(" .") for q in questions[::2]}
        self.known |= {q["question"]: q["worked"].rpartition(" ; so")[0] for q in questions[1::2]}

    def generate_until(self, requests):
        assert {request.args[1]["until"][0] for request in requests} == {"."}
        return [self.known[request.args[0]] for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def test_the_number_after_so_is_the_answer(world, study, monkeypatch):
    monkeypatch.chdir(study)
    manager = TaskManager(include_path=["results/texts/world/tasks"], include_defaults=False)
    lm = EveryOther(read_lines("results/texts/world/tasks/reasoning.jsonl"))
    out = simple_evaluate(lm, tasks=["reasoning"], task_manager=manager)
    assert out["results"]["reasoning"]["exact_match,final-answer"] == 0.5


def read_lines(path: str) -> list[dict]:
    with open(path) as file:
        return [json.loads(line) for line in file]


@torch.no_grad()
def by_hand(model, tokenizer, question: dict) -> bool:
    """Whether the model answers right, without lm-eval: the choice of largest logit, or greedy decoding."""
    ids = tokenizer(question["question"], return_tensors="pt")["input_ids"]
    if "choices" in question:
        choices = [tokenizer(choice)["input_ids"][1] for choice in question["choices"]]
        return model(input_ids=ids).logits[0, -1, choices].argmax().item() == question["answer"]
    words = []
    while len(words) < 32 and words[-1:] not in (["."], ["</s>"]):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        words.append(tokenizer.decode(ids[0, -1:]))
    marks = [i for i, word in enumerate(words[:-1]) if word == "so" and words[i + 1].isdigit()]
    return bool(marks) and words[marks[-1] + 1] == question["answer"]


def test_muon_steps_as_torchs_own_does():
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in [(8, 8), (24, 8), (8, 24), (24, 8)]]
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in start] for _ in range(2))
    optimizers = [
        kind(parameters, lr=0.1, weight_decay=0.2)
        for kind, parameters in ((Muon, ours), (torch.optim.Muon, theirs))
    ]
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        # torch's own rounds to bfloat16, of 8 bits.
        torch.testing.assert_close(mine - before, other - before, rtol=0.02, atol=0.01)
