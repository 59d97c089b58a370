"""How a model is asked: its first token, conversations, how it writes, what it thinks first. The oracle is
lm-eval's own model with the same words, and for thinking a loop over words."""

from __future__ import annotations

import json

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deeper_layers.errors import UserError
from deeper_layers.evaluation.evaluation import check_bos, check_chat
from deeper_layers.evaluation.harness import CutsLM, evaluate
from deeper_layers.evaluation.job import TaskSuite
from deeper_layers.evaluation.tasks import check_tasks, load_tasks
from deeper_layers.pruning.layer_set import FULL
from deeper_layers.runtime import provenance
from deeper_layers.settings.suites import Suite, TaskSettings
from helpers.answers import by_lm_eval, ours
from helpers.tiny import VOCABULARY, tiny_model

TEMPLATE = "{% for m in messages %}w{{ 5 if m.role == 'user' else 6 }} {{ m.content }} w8 {% endfor %}w6 "
LINES = [{"q": f"w{10 + i} w{20 + i} w{30 + i}", "right": f"w{40 + i}", "a": i % 2} for i in range(12)]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<s>": 1} | {f"w{number}": number for number in range(2, VOCABULARY)}
    built = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<s>", eos_token="<pad>", chat_template=TEMPLATE
    )


@pytest.fixture
def folder(tmp_path):
    """A task that chooses and one that writes, of the same questions."""
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "q.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
    }
    chooses = {
        "output_type": "multiple_choice",
        "doc_to_choice": ["w50 w51", "w52"],
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc"}],
    }
    writes = {
        "output_type": "generate_until",
        "doc_to_target": "{{right}}",
        "generation_kwargs": {"until": ["w9"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    }
    for name, own in (("chooses", chooses), ("writes", writes)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"task": name} | common | own))
    return tmp_path


def said(samples: dict) -> dict:
    """Of each task, what was asked and what came back, by document."""
    return {
        task: [(one["doc_id"], str(one["arguments"]), str(one["resps"])) for one in documents]
        for task, documents in samples.items()
    }


WAYS = {
    "as it is": {},
    "a first token": {"bos": "always"},
    "none": {"bos": "never"},
    "a conversation": {"chat": True},
    "one with examples and a system": {"chat": True, "system": "w3 w4", "shots": 2, "bos": "never"},
    "longer answers": {"generation": "max_gen_toks=7,until=w11"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_asked_as_lm_eval_asks_it(way, tokenizer, folder):
    model, asked = tiny_model("llama"), WAYS[way]
    suite = TaskSuite(("chooses", "writes"), (folder,), samples=True, **asked)
    manager, tasks = load_tasks(suite)
    lm = CutsLM(model, tokenizer, [FULL], None, "test", None, suite.bos, suite.think_end)
    ((_, found),) = evaluate(lm, suite, manager, tasks)
    manager, tasks = load_tasks(suite)
    bos = {"bos": asked["bos"] == "always"} if "bos" in asked else {}
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, add_bos_token=bos.get("bos"))
    expected = simple_evaluate(
        model=theirs,
        tasks=tasks,
        task_manager=manager,
        num_fewshot=suite.shots,
        apply_chat_template=suite.chat,
        system_instruction=suite.system,
        gen_kwargs=suite.generation,
    )
    for name, score in expected["results"].items():
        assert {k: v for k, v in score.items() if "," in k} == {
            k: v for k, v in found["results"][name].items() if "," in k
        }
    plain = json.loads(json.dumps(expected["samples"], default=str))
    assert [one[1] for one in said(found["samples"])["writes"]] == [one[1] for one in said(plain)["writes"]]
    assert [one[2] for one in said(found["samples"])["writes"]] == [one[2] for one in said(plain)["writes"]]
    assert provenance._recorded["begins_with_bos"] is (asked.get("bos") != "never")
    first = found["samples"]["writes"][0]["arguments"][0][0]
    assert first.startswith("w6 w3 w4 w8 w5") if "system" in asked else ("w5" in first) == suite.chat
    longest = max(len(one["resps"][0][0].split()) for one in found["samples"]["writes"])
    assert longest == (7 if "generation" in asked else 4)


def test_an_answer_is_what_follows_thinking(tokenizer):
    """Stop sequences count from there on, as of the words one by one."""
    model = tiny_model("llama")
    whole = by_lm_eval(model, tokenizer, {"until": ["never"], "max_gen_toks": 24})
    counts: dict[str, int] = {}
    for text in whole:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    thinks, stops = sorted(counts, key=lambda word: -counts[word])[:2]

    def expected(text: str) -> str:
        written: list[str] = []
        for word in text.split():
            written.append(word)
            if thinks in written:
                after = written[len(written) - written[::-1].index(thinks) :]
                if stops in after:
                    return " ".join(after[: after.index(stops)])
        before, _, after = " ".join(written).rpartition(thinks)
        return after.strip() if before or after != " ".join(written) else " ".join(written)

    asked = {"until": [stops], "max_gen_toks": 24}
    found = ours(model, tokenizer, asked, think_end=thinks)
    assert [text.strip() for text in found] == [_no_stop(expected(text), stops) for text in whole]
    assert found != ours(model, tokenizer, asked)


def _no_stop(text: str, stop: str) -> str:
    return text.split(stop)[0].strip()


def test_a_tokenizer_without_a_chat_template_is_told_at_once(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "chat")
    check_chat(tmp_path / "chat")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="has no chat template, so it cannot be asked with chat: true"):
        check_chat(tmp_path / "plain")


def test_a_tokenizer_that_adds_no_first_token_is_told_at_once(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "adds")
    check_bos(tmp_path / "adds", False)
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="bos: always, and its tokenizer adds no first token"):
        check_bos(tmp_path / "plain", False)


def test_more_tokens_than_positions_are_told(folder):
    suite = TaskSuite(("writes",), (folder,))
    _, tasks = load_tasks(suite)
    positions = {"max_position_embeddings": 64}
    check_tasks(tasks, positions)
    check_tasks(tasks, positions, generation="max_gen_toks=63")
    with pytest.raises(UserError, match="lets the model write 64 tokens, and it has 64 positions"):
        check_tasks(tasks, positions, generation="temperature=0,max_gen_toks=64")


@pytest.mark.parametrize(
    "generation, words",
    [
        ("max_gen_toks=3,long", "'long' is not NAME=VALUE"),
        ("max_gen_toks=", "'max_gen_toks=' is not NAME=VALUE"),
        ("top_kk=1", "top_kk is not known; write top_k"),
        ("max_gen_toks=many", "max_gen_toks is many, it must be a number of tokens"),
    ],
)
def test_words_for_generation_that_say_nothing_are_told(generation, words):
    with pytest.raises(UserError, match=words):
        TaskSettings(generation=generation)


@pytest.mark.parametrize("key", ["bos", "chat", "system", "generation", "think_end"])
def test_how_tasks_are_asked_is_no_setting_of_a_loss(key):
    values = {"bos": "always", "chat": True, "generation": "temperature=0"}
    with pytest.raises(UserError, match=f"suites: {key} is that of tasks, and this suite has none; leave it"):
        Suite(loss={"text": "c4"}, **{key: values.get(key, "words")})
