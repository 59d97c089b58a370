"""The tasks of general knowledge in resources/questions: what their files hold, that lm-eval finds them from
any working directory, and that it scores them as is said."""

import json
import operator
from collections import Counter

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deeper_layers.evaluation.job import TaskSuite
from deeper_layers.evaluation.tasks import answer_levels, check_tasks, load_tasks
from helpers.config import ROOT

FOLDER = ROOT / "resources/questions"
CHOOSING = ("facts", "words")
TASKS = (*CHOOSING, "arithmetic")
EXAMPLES = "2 + 5 = 7\n9 - 3 = 6\n4 * 2 = 8\n8 + 6 = 14\n15 - 7 = 8\n3 * 6 = 18\n"
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]


def load(*names: str, **settings):
    return load_tasks(TaskSuite(names, include=(FOLDER,), **settings))


@pytest.mark.parametrize("name", TASKS)
def test_every_line_is_a_question_of_its_own_and_short(name):
    documents, text = lines(name), (FOLDER / f"{name}.jsonl").read_text()
    assert len(documents) >= 150
    assert len({document["question"].lower() for document in documents}) == len(documents)
    assert max(map(len, text.splitlines())) <= 200
    for document in documents:
        words = [document["kind"], document["question"], document["right"], *document.get("wrong", [])]
        assert all(word and word == word.strip() and "  " not in word for word in words), document
        assert len(document["question"]) <= 90


@pytest.mark.parametrize("name", CHOOSING)
def test_one_of_four_different_answers_is_right(name):
    for document in lines(name):
        answers = [document["right"], *document["wrong"]]
        assert set(document) == {"kind", "question", "right", "wrong"}
        assert len(answers) == 4 == len({answer.lower() for answer in answers}), document


def test_the_right_answer_of_a_problem_is_what_it_comes_to():
    documents = lines("arithmetic")
    for document in documents:
        first, sign, second, equals = document["question"].split()
        assert equals == "=" and document["right"] == str(OPERATIONS[sign](int(first), int(second)))
        assert int(document["right"]) > 0
        assert f"{document['question']} " not in EXAMPLES


@pytest.mark.parametrize("name", CHOOSING)
def test_the_position_of_the_right_answer_says_nothing(name):
    _, (task,) = load(name)
    documents, written = list(task.eval_docs), {line["question"]: line for line in lines(name)}
    assert len(documents) == len(written)
    for document in documents:
        line = written[document["question"]]
        assert document["choices"][document["answer"]] == line["right"]
        assert sorted(document["choices"]) == sorted([line["right"], *line["wrong"]])
    assert documents == list(load(name)[1][0].eval_docs)  # the same order each time
    for number in (40, len(documents)):  # of a limit, too
        positions = Counter(document["answer"] for document in documents[:number])
        assert set(positions) == {0, 1, 2, 3} and max(positions.values()) - min(positions.values()) <= 1
    kinds = Counter(line["kind"] for line in written.values())
    assert len({document["kind"] for document in documents[:100]}) > 0.6 * len(kinds)
    assert answer_levels([task]) == {"chance": {name: task.config.metadata["chance"]}, "majority": {}}
    assert task.config.metadata["chance"] == 0.25


def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model of characters."""
    characters = ["<pad>", "<bos>", "<eos>", "<unk>", "\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(vocab_size=len(characters), initializer_range=0.5, **sizes, **ends)
    return LlamaForCausalLM(config).eval(), PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def best(model, tokenizer, question: str, choices: list[str]) -> int:
    """The choice with the highest log-likelihood after the question and a space."""
    prompt, scores = tokenizer(question).input_ids, []
    for choice in choices:
        ids = torch.tensor([tokenizer(f"{question} {choice}").input_ids])
        logs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        scores.append(logs[len(prompt) - 1 :].sum().item())
    return scores.index(max(scores))


@torch.no_grad()
def test_lm_eval_scores_a_random_model_as_a_plain_loop_does():
    model, tokenizer = tiny()
    manager, tasks = load(*TASKS)
    check_tasks(tasks, model.config.to_dict())
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    out = simple_evaluate(harness, tasks=list(TASKS), task_manager=manager, limit=5, log_samples=True)
    assert out["versions"] == dict.fromkeys(TASKS, 1.0)
    for name in CHOOSING:
        right = [
            best(model, tokenizer, s["doc"]["question"], s["doc"]["choices"]) == s["doc"]["answer"]
            for s in out["samples"][name]
        ]
        assert [s["acc"] for s in out["samples"][name]] == [float(r) for r in right] and len(right) == 5
        for s in out["samples"][name]:
            asked = [(s["doc"]["question"], f" {choice}") for choice in s["doc"]["choices"]]
            assert [tuple(arguments) for arguments in s["arguments"]] == asked
        assert out["results"][name]["acc,none"] == pytest.approx(sum(right) / 5)
    assert {s["acc"] for name in CHOOSING for s in out["samples"][name]} == {0.0, 1.0}  # both are seen
    for sample in out["samples"]["arithmetic"]:
        assert sample["arguments"][0][0] == EXAMPLES + sample["doc"]["question"]
    assert "exact_match,number" in out["results"]["arithmetic"]


@pytest.mark.parametrize(
    ("answer", "right"), [(" {}", 1), ("{}\n", 1), (" {}.", 1), (" {}0", 0), ("", 0), (" so {}", 0)]
)
def test_the_number_that_is_written_counts(answer, right):
    _, (task,) = load("arithmetic")
    task.build_all_requests(limit=1)
    (request,) = task.instances
    request.resps = [answer.format(request.doc["right"])]
    task.apply_filters()
    assert task.process_results(request.doc, [request.filtered_resps["number"]]) == {"exact_match": right}


def test_examples_are_never_the_question_itself():
    for name in TASKS:
        _, (task,) = load(name, shots=20)
        task.set_config("num_fewshot", 20)
        task.build_all_requests(limit=20)
        for request in task.instances:
            *shown, asked = request.args[0].split("\n" if name == "arithmetic" else "\n\n")
            assert asked == request.doc["question"]
            assert len(shown) == 20 + 6 * (name == "arithmetic")
            assert not [example for example in shown if example.startswith(asked)]
