"""Evaluation. The oracle is lm-eval itself, with its own model class, on checkpoints cut on disk; for the
loss a plain loop with cross_entropy."""

import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import weakref
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import lm_eval.tasks
import numpy as np
import pytest
import torch
import transformers
import yaml
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.statistics import per_token
from deeper_layers.data.tokens import write_tokens
from deeper_layers.errors import UserError
from deeper_layers.evaluation import batches
from deeper_layers.evaluation import job as evaluation_job
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.evaluation import Evaluation
from deeper_layers.evaluation.harness import CutsLM
from deeper_layers.evaluation.job import TaskSuite
from deeper_layers.evaluation.journal import Journal
from deeper_layers.evaluation.layer_tree import LayerTree
from deeper_layers.evaluation.tasks import load_tasks
from deeper_layers.evaluation.writing import Writer
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import FULL, LayerSet
from helpers.config import ROOT
from helpers.programs import parser_of

torch.set_num_threads(1)
LM_EVAL_TASKS = Path(lm_eval.tasks.__file__).parent
N_LAYERS = 6
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": N_LAYERS,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama": SIZES,
    # Tuples as layer outputs, positions added before the layers, other names for everything.
    "gpt2": {
        **{"n_embd": 32, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 256, "initializer_range": 0.3},
        **{"bos_token_id": 1, "eos_token_id": 2},
    },
    # Masks that differ from layer to layer, scaled embeddings.
    "gemma3_text": {
        **SIZES,
        "head_dim": 8,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
    },
}
WORDS = [f"w{i}" for i in range(60)] + ["Question", "Answer", ":", "?", "yes", "no", *"ABCD", ".", "about"]
BLOCKS = ["full", "drop_2-2", "drop_4-5", "drop_2-4", "drop_0-0"]
OWN_TASKS = ["choose", "write", "whole"]


def program():
    """scripts/evaluate.py as a module."""
    spec = spec_from_file_location("evaluate_program", ROOT / "scripts/evaluate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROGRAM = program()


def run(*words) -> None:
    arguments = parser_of("evaluate").parse_args([str(word) for word in words])
    PROGRAM.check(arguments)
    PROGRAM.main(arguments)


def left(*words) -> bool:
    """Whether there is anything to wait for a GPU for."""
    return PROGRAM.check(parser_of("evaluate").parse_args([str(word) for word in words]))


def read(path) -> dict:
    return json.loads(Path(path).read_text())


def write_lines(path: Path, documents: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))


def sentence(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS[:60]) for _ in range(rng.randint(low, high)))


def write_own_tasks(folder: Path) -> None:
    """Choice by log-likelihood, generation and the likelihood of whole texts."""
    rng = random.Random(0)
    questions = [
        {
            "question": sentence(rng, 3, 12),
            "choices": [sentence(rng, 1, 3) for _ in range(4)],
            "answer": rng.randrange(4),
        }
        for _ in range(12)
    ]
    write_lines(folder / "choose.jsonl", questions)
    write_lines(folder / "write.jsonl", [{"question": q["question"], "answer": "w1"} for q in questions[:5]])
    write_lines(folder / "whole.jsonl", [{"text": sentence(rng, 30, 300)} for _ in range(3)])
    acc = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
    tasks = {
        "choose": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [acc],
        },
        "write": {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["."], "do_sample": False, "max_gen_toks": 6},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
        "whole": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
    }
    for name, task in tasks.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"tasks/{name}.jsonl"}}}
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, "test_split": "test", **data, **task})
        )


def write_stand_ins(folder: Path) -> None:
    """Data sets of a few lines with the layout of the hub's MMLU, BoolQ and HellaSwag."""
    rng = random.Random(1)

    def data_set(name: str, configs: dict[str, dict[str, list[dict]]]) -> None:
        entries = []
        for config, splits in configs.items():
            for split, documents in splits.items():
                write_lines(folder / name / config / f"{split}.jsonl", documents)
            files = [{"split": split, "path": f"{config}/{split}.jsonl"} for split in splits]
            entries.append({"config_name": config, "data_files": files})
        (folder / name / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': entries})}---\n")

    def mmlu(count: int) -> list[dict]:
        return [
            {
                "question": sentence(rng, 4, 9),
                "choices": [sentence(rng, 1, 3) for _ in range(4)],
                "answer": rng.randrange(4),
            }
            for _ in range(count)
        ]

    def boolq(count: int) -> list[dict]:
        return [
            {"passage": sentence(rng, 9, 30), "question": sentence(rng, 3, 6), "label": rng.randrange(2)}
            for _ in range(count)
        ]

    def hellaswag(count: int) -> list[dict]:
        return [
            {
                "activity_label": sentence(rng, 1, 2),
                "ctx_a": sentence(rng, 5, 9),
                "ctx_b": sentence(rng, 1, 4),
                "endings": [sentence(rng, 2, 9) + " [title] w1" for _ in range(4)],
                "label": str(rng.randrange(4)),
            }
            for _ in range(count)
        ]

    subjects = ("anatomy", "astronomy")
    data_set("cais/mmlu", {s: {"test": mmlu(5), "dev": mmlu(5), "validation": mmlu(1)} for s in subjects})
    data_set("aps/super_glue", {"boolq": {"train": boolq(3), "validation": boolq(6)}})
    data_set("Rowan/hellaswag", {"default": {"train": hellaswag(3), "validation": hellaswag(6)}})
    group = {
        "group": "mmlu_two",
        "task": [f"mmlu_{subject}" for subject in subjects],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    (folder / "group").mkdir()
    (folder / "group/mmlu_two.yaml").write_text(yaml.safe_dump(group))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with tasks, stand-ins of the hub's data sets, and checkpoints of each architecture,
    whole and cut."""
    folder = tmp_path_factory.mktemp("place")
    write_own_tasks(folder / "tasks")
    write_stand_ins(folder)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {word: 4 + i for i, word in enumerate(dict.fromkeys(WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    for seed, (name, settings) in enumerate(ARCHITECTURES.items()):
        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(name, vocab_size=len(vocabulary), **settings)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name / "source")
        tokenizer.save_pretrained(folder / name / "source")
        adopt_checkpoint(folder / name / "source", name, folder / name / "full")
        for block in BLOCKS[1:]:
            cut_checkpoint(folder / name / "full", LayerSet.parse(block), folder / name / block)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def by_lm_eval(model, include: list, **how) -> dict:
    """What lm-eval says of a model by itself, with nothing of ours in between."""
    tokenizer = AutoTokenizer.from_pretrained("llama/full")
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3),
        task_manager=TaskManager(include_path=include, include_defaults=False),
        log_samples=True,
        bootstrap_iters=1000,
        **how,
    )
    return json.loads(json.dumps(results, default=str))


def assert_same(ours, theirs) -> None:
    """Equal in every key and text; numbers to 1e-5 (log-likelihoods are sums, in another order)."""
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    else:
        assert ours == theirs


def assert_is_lm_evals(ours: dict, theirs: dict) -> None:
    ours, theirs = dict(ours), dict(theirs)
    del ours["deeper_layers"], ours["chance"], ours["majority"], ours["date"], theirs["date"]
    ours["config"], theirs["config"] = dict(ours["config"]), dict(theirs["config"])
    for config in (ours["config"], theirs["config"]):
        del config["model"]  # the folder that it was loaded from
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_family_is_what_lm_eval_says_of_each_cut_checkpoint(place, name):
    out = Path(name, "quiz")
    suite = [
        "--suite",
        "quiz",
        "--tasks",
        *OWN_TASKS,
        "--include",
        "tasks",
        "--samples",
        "--precision",
        "fp32",
    ]
    run("--checkpoint", f"{name}/full", "--blocks", *BLOCKS, *suite, "--batch", 5, "--out", out)
    assert read(out / "index.json")["layers"]["tree"]
    likelihoods = {}
    for block in BLOCKS:
        ours = read(out / f"{block}.json")
        model = AutoModelForCausalLM.from_pretrained(f"{name}/{block}")
        assert_is_lm_evals(ours, by_lm_eval(model, ["tasks"], tasks=OWN_TASKS))
        assert ours["deeper_layers"]["block"] == block
        assert 0 < ours["results"]["choose"]["acc_stderr,none"] < 0.2
        likelihoods[block] = str(ours["samples"]["choose"][0]["resps"])
    assert len(set(likelihoods.values())) == len(BLOCKS)


def test_mmlu_boolq_and_hellaswag_by_their_true_definitions(place):
    folders = [LM_EVAL_TASKS / f for f in ("mmlu/default", "super_glue/boolq", "hellaswag")] + [
        place / "group"
    ]
    names = ["mmlu_two", "boolq", "hellaswag"]
    run(
        *["--checkpoint", "llama/full", "--blocks", "full", "drop_2-4", "--suite", "true", "--tasks", *names],
        *["--include", *folders, "--shots", 2, "--limit", 4, "--samples", "--precision", "fp32"],
        *["--out", "llama/true"],
    )
    for block in ("full", "drop_2-4"):
        model = AutoModelForCausalLM.from_pretrained(f"llama/{block}")
        theirs = by_lm_eval(model, list(map(str, folders)), tasks=names, num_fewshot=2, limit=4)
        ours = read(f"llama/true/{block}.json")
        assert_is_lm_evals(ours, theirs)
        assert set(ours["results"]) == {"mmlu_two", "mmlu_anatomy", "mmlu_astronomy", "boolq", "hellaswag"}
        assert ours["n-samples"]["boolq"] == {"original": 6, "effective": 4}
        assert ours["deeper_layers"]["prefix_check"]["relative_difference"] < 1e-4


def test_healed_checkpoint_with_its_adapter(place):
    torch.manual_seed(5)
    model = add_adapter(load_model("llama/drop_2-4"), 4, 4, 0.0, ["auto"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    Path("llama/healed").mkdir()
    save_adapter(model, Path("llama/healed/adapter"), Path("llama/drop_2-4"), Path("llama/healed/adapter"))
    suite = ["--suite", "quiz", "--tasks", "choose", "write", "--include", "tasks", "--samples"]
    one = ["--checkpoint", "llama/drop_2-4", *suite, "--precision", "fp32"]
    run(*one, "--adapter", "llama/healed/adapter", "--out", "llama/healed/quiz.json")
    healed = load_healed("llama/drop_2-4", "llama/healed/adapter")
    ours, theirs = read("llama/healed/quiz.json"), by_lm_eval(healed, ["tasks"], tasks=["choose", "write"])
    for answers in (ours, theirs):
        del answers["config"]["model_num_parameters"]  # peft counts its own parameters twice
    assert_is_lm_evals(ours, theirs)
    assert ours["deeper_layers"]["block"] == "drop_2-4"
    assert ours["deeper_layers"]["treatment"] == "healed"
    run(*one, "--out", "llama/healed/without.json")
    assert read("llama/healed/without.json")["samples"]["choose"] != ours["samples"]["choose"]


def test_healed_cuts_in_one_job_are_as_each_by_itself(place):
    """In every bit; and what is there stays."""
    written_tokens("healed.safetensors", 7, [9, 20, 3, 14])
    Path("several/checkpoints").mkdir(parents=True)
    blocks = ["full", "drop_2-4", "drop_4-5"]
    for seed, block in enumerate(blocks):
        shutil.copytree(f"llama/{block}", f"several/checkpoints/{block}")
        torch.manual_seed(seed)
        model = add_adapter(load_model(f"llama/{block}"), 4, 4, 0.0, ["auto"])
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
        adapter = Path(f"several/healed/{block}/adapter")
        adapter.parent.mkdir(parents=True)
        save_adapter(model, adapter, Path(f"several/checkpoints/{block}"), adapter)
    quiz = [
        "--suite",
        "quiz",
        "--tasks",
        *OWN_TASKS,
        "--include",
        "tasks",
        "--samples",
        "--precision",
        "fp32",
    ]
    loss = [*LOSS, "--tokens", "healed.safetensors", "--sequences", 4]
    for suite, words in {"quiz": quiz, "loss": loss, "streamed": [*loss, "--stream"]}.items():
        words[words.index("--suite") + 1] = suite
        job = ["--checkpoint", "several/checkpoints/full", "--healed", "several/healed", *words]
        index = Path(f"several/healed/evaluated/{suite}-1of1.json")
        run(*job, "--blocks", *blocks[:2], "--out", index)
        first = {block: read(f"several/healed/{block}/{suite}.json") for block in blocks[:2]}
        run(*job, "--blocks", *blocks, "--out", index)
        assert read(index)["evaluated"] == blocks[2:] and list(read(index)["blocks"]) == blocks
        assert not left(*job, "--blocks", *blocks, "--out", "another.json")
        for block in blocks:
            ours = read(f"several/healed/{block}/{suite}.json")
            assert ours == first.get(block, ours)
            one = ["--checkpoint", f"llama/{block}", "--adapter", f"several/healed/{block}/adapter"]
            run(*one, *words, "--out", "one.json")
            theirs = read("one.json")
            for key in ("results", "samples"):
                assert ours.get(key) == theirs.get(key), (block, suite)
            assert ours["deeper_layers"]["block"] == block
            assert ours["deeper_layers"]["adapter"] == theirs["deeper_layers"]["adapter"]
    # Another healing of one cut: only that is evaluated again.
    shutil.copytree("several/healed/drop_4-5/adapter", "several/healed/full/adapter", dirs_exist_ok=True)
    with pytest.raises(UserError, match="does not fit"):
        run(*job, "--blocks", *blocks, "--out", index)
    assert read("several/healed/drop_2-4/streamed.json") == first["drop_2-4"]


def written_tokens(path: str, seed: int, lengths) -> list[list[int]]:
    rng = random.Random(seed)
    documents = [[rng.randrange(4, 60) for _ in range(length)] for length in lengths]
    write_tokens(path, documents)
    return documents


LOSS = ["--suite", "loss", "--loss", "--length", 20, "--precision", "fp32"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_is_that_of_a_plain_loop(place, name):
    lengths = [1, 2, 7, 20, 33, 5, 12, 12, 30, 3]
    documents = written_tokens("loss.safetensors", 3, lengths)
    run(
        *["--checkpoint", f"{name}/full", "--blocks", *BLOCKS, *LOSS, "--tokens", "loss.safetensors"],
        *["--sequences", 9, "--batch", 2, "--out", f"{name}/loss"],
    )
    for block in BLOCKS:
        model = AutoModelForCausalLM.from_pretrained(f"{name}/{block}")
        nats = []
        for document in documents[:9]:
            ids = torch.tensor([document[:20]])
            logits = model(ids).logits[0, :-1]
            nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
        ours = read(f"{name}/loss/{block}.json")["results"]["loss"]
        assert ours["loss"] == pytest.approx(statistics.mean(nats), rel=1e-5)
        assert ours["normalised_loss"] == pytest.approx(ours["loss"] / math.log(model.config.vocab_size))
        assert ours["tokens"] == len(nats) == sum(min(length, 20) - 1 for length in lengths[:9])
        assert ours["sequences"] == 8  # one token says nothing


@pytest.mark.parametrize("stride", [None, 8])
def test_perplexity_is_that_of_a_plain_loop(place, stride):
    """The loop is that of the transformers documentation, its labels masked by -100."""
    documents = written_tokens("perplexity.safetensors", 5, [1, 30, 17, 9, 40])
    run(
        *["--checkpoint", "llama/full", "--blocks", *BLOCKS, "--suite", "perplexity", "--perplexity"],
        *["--precision", "fp32", "--tokens", "perplexity.safetensors", "--documents", 4, "--window", 20],
        *[*(["--stride", stride] if stride else []), "--out", f"perplexity-{stride}"],
    )
    ids = torch.tensor([sum(documents[:4], [])])
    for block in BLOCKS:
        model = AutoModelForCausalLM.from_pretrained(f"llama/{block}")
        nats, counts, done = [], [], 0
        for begin in range(0, ids.shape[1], stride or 20):
            end = min(begin + 20, ids.shape[1])
            labels = ids[:, begin:end].clone()
            labels[:, : -(end - done)] = -100
            counts.append(int((labels[:, 1:] != -100).sum()))
            nats.append(model(ids[:, begin:end], labels=labels).loss.item() * counts[-1])
            done = end
            if end == ids.shape[1]:
                break
        ours = read(f"perplexity-{stride}/{block}.json")["results"]["perplexity"]
        assert ours["perplexity"] == pytest.approx(math.exp(sum(nats) / sum(counts)), rel=1e-5)
        assert ours["tokens"] == sum(counts) == (56 if stride else 54)
        assert ours["windows"] == len(counts) == (6 if stride else 3)
        mean, error = per_token(np.array(nats), np.array(counts))
        assert ours["perplexity_stderr"] == pytest.approx(math.exp(mean) * error, rel=1e-4)


def test_standard_error_of_the_loss():
    rng = np.random.default_rng(0)
    nats = rng.gamma(3, 10, size=50)
    mean, error = per_token(nats, np.full(50, 10))
    assert mean == pytest.approx(statistics.mean(nats / 10))
    assert error == pytest.approx(statistics.stdev(nats / 10) / math.sqrt(50))

    # Sequences of many lengths whose tokens share a level: the spread of the mean over many samples.
    def sample():
        tokens = rng.integers(2, 60, size=200)
        return per_token(tokens * rng.gamma(4, 0.5, size=200), tokens)

    means, errors = zip(*(sample() for _ in range(2000)), strict=True)
    assert statistics.mean(errors) == pytest.approx(statistics.stdev(means), rel=0.05)
    assert math.isnan(per_token(np.array([3.0]), np.array([2]))[1])


def some_pairs(seed: int, count: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(seed)

    def tokens(low, high):
        return [rng.randrange(4, 60) for _ in range(rng.randint(low, high))]

    return [(tokens(1, 20), tokens(1, 5)) for _ in range(count)]


def test_trunk_runs_once_and_one_state_of_it_is_kept(place):
    model = load_model("llama/full")
    blocks = [LayerSet.parse(b) for b in ("full", "drop_1-1", "drop_2-3", "drop_2-4", "drop_3-3", "drop_4-4")]
    pairs = some_pairs(0, 8)
    cuts = CutScorer(model, blocks, batch=len(pairs))
    calls, alive, most = 0, [], 0

    def count(*_):
        nonlocal calls
        calls += 1

    def watch(layer, arguments, output):
        nonlocal most
        if output.shape[1] > 1:  # not a place on its way to the head
            alive.append(weakref.ref(output))
        most = max(most, len({id(state()) for state in alive if state() is not None}))

    hooks = [layer.register_forward_hook(watch) for layer in model.model.layers]
    hooks += [layer.mlp.register_forward_hook(count) for layer in model.model.layers]
    answers = cuts.loglikelihoods(pairs, 64, "test")
    for hook in hooks:
        hook.remove()
    # The trunk's 6 layers, then those after each cut: 4, 2, 1, 2, 1.
    assert calls == cuts.layer_counts()["run"] == 6 + 4 + 2 + 1 + 2 + 1
    assert cuts.layer_counts()["separate"] == 6 + 5 + 4 + 3 + 5 + 5
    assert most <= 3  # of the trunk, of a branch, and the next one of that branch
    apart = CutScorer(model, blocks, batch=1, tree=False)
    separate = apart.loglikelihoods(pairs, 64, "test")
    for block in blocks:
        assert [a for a, _ in answers[block]] == pytest.approx([a for a, _ in separate[block]], abs=1e-5)
        assert [hit for _, hit in answers[block]] == [hit for _, hit in separate[block]]
    assert apart.layer_counts()["run"] == apart.layer_counts()["separate"] > cuts.layer_counts()["separate"]


def test_logits_come_in_pieces(place, monkeypatch):
    model = load_model("llama/full")
    whole = CutScorer(model, [FULL]).loglikelihoods(some_pairs(1, 9), 64, "test")
    monkeypatch.setattr(batches, "LOGIT_BYTES", 4 * model.config.vocab_size * 3)
    sizes = []
    head = LayerTree.head
    monkeypatch.setattr(LayerTree, "head", lambda self, h: sizes.append(len(h)) or head(self, h))
    pieces = CutScorer(model, [FULL]).loglikelihoods(some_pairs(1, 9), 64, "test")
    assert max(sizes) == 3
    assert [a for a, _ in pieces[FULL]] == pytest.approx([a for a, _ in whole[FULL]], abs=1e-5)


class BetweenLayers(transformers.LlamaModel):
    """Does something between its layers, which calling them one by one would miss."""

    def forward(self, input_ids=None, **_):
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1])[None]
        for layer in self.layers:
            rotary = self.rotary_emb(hidden, position_ids=positions)
            hidden = 0.8 * layer(hidden, position_embeddings=rotary, position_ids=positions)
        return transformers.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


def test_a_model_that_is_more_than_its_layers_runs_each_cut_by_itself(place, caplog):
    model = load_model("llama/full")
    model.model.__class__ = BetweenLayers
    blocks = [FULL, LayerSet.contiguous(2, 2)]
    cuts = CutScorer(model, blocks)
    assert not cuts.layer_counts()["tree"]
    assert "calling its layers one by one is off" in caplog.text
    pairs = some_pairs(2, 4)
    answers = cuts.loglikelihoods(pairs, 64, "test")
    del model.model.layers[2:4]
    for (context, continuation), (found, _) in zip(pairs, answers[LayerSet.contiguous(2, 2)], strict=True):
        log_p = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(context) + len(continuation) - 1)
        expected = sum(log_p[p, t].item() for p, t in zip(places, continuation, strict=True))
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch", [None, 8])
def test_batches_shrink_when_the_gpu_is_full(place, monkeypatch, batch):
    pairs = some_pairs(4, 20)
    cuts = CutScorer(load_model("llama/full"), [FULL, LayerSet.contiguous(1, 2)], batch)
    expected = cuts.loglikelihoods(pairs, 64, "test")
    states = LayerTree.states

    def full_beyond(rows):
        def limited(self, ids, *more):
            for number, item in enumerate(states(self, ids, *more)):
                if number == 1 and len(ids) > rows:
                    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
                yield item

        return limited

    monkeypatch.setattr(LayerTree, "states", full_beyond(3))
    found = cuts.loglikelihoods(pairs, 64, "test")
    for block in cuts.blocks:
        assert [a for a, _ in found[block]] == pytest.approx([a for a, _ in expected[block]], abs=1e-5)
    monkeypatch.setattr(LayerTree, "states", full_beyond(0))
    with pytest.raises(UserError, match="does not fit into memory"):
        cuts.loglikelihoods(pairs, 64, "test")


def test_generation_shrinks_its_batches_too(place, monkeypatch):
    """A GPU that holds two sequences, then none."""
    model, tokenizer = load_model("llama/full"), AutoTokenizer.from_pretrained("llama/full")
    lm = CutsLM(model, tokenizer, [LayerSet.contiguous(1, 2)], 8, "test", None)
    texts = [" ".join(WORDS[i : i + 4]) for i in range(7)]
    wanted = {"until": ["\n"], "max_gen_toks": 5}
    requests = [Instance("generate_until", {}, (text, dict(wanted)), i) for i, text in enumerate(texts)]
    expected = lm.generate_until(requests)
    generate, tried = Writer._generate, []

    def full_beyond(rows):
        def limited(self, prompts, *args, **how):
            tried.append(len(prompts))
            if len(prompts) > rows:
                raise RuntimeError("CUDA driver error: out of memory")
            return generate(self, prompts, *args, **how)

        return limited

    monkeypatch.setattr(Writer, "_generate", full_beyond(2))
    assert lm.generate_until(requests) == expected and len(set(expected)) > 1
    assert tried == [7, 4, 2, 2, 2, 1]
    monkeypatch.setattr(Writer, "_generate", full_beyond(0))
    with pytest.raises(UserError, match="one sequence does not fit into memory"):
        lm.generate_until(requests)


def test_packages_are_those_that_pip_lists():
    """lm-eval's JSON names packages as torch does, which asks pip."""
    words = "import torch.utils.collect_env as c; print(c.get_pip_packages(c.run)[1])"
    listed = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    known = torch.utils.collect_env
    assert known.get_pip_packages(known.run) == ("pip3", listed.strip())
    assert "torch==" in listed


QUIZ = ["--suite", "quiz", "--include", "tasks", "--precision", "fp32"]


def test_finished_blocks_are_kept_and_new_ones_added(place):
    out = Path("llama/kept")
    common = ["--checkpoint", "llama/full", *QUIZ, "--tasks", "choose", "write", "--out", out, "--blocks"]
    run(*common, "full", "drop_2-2", "drop_4-5")
    before = {path.name: path.read_bytes() for path in out.glob("*.json")}
    run(*common, "drop_2-2", "full", "drop_2-4")
    assert not left(*common, "drop_2-2", "full") and left(*common, "full", "drop_0-0")
    index = read(out / "index.json")
    assert index["evaluated"] == ["drop_2-4"]
    assert set(index["blocks"]) == {"full", "drop_2-2", "drop_2-4"}
    for name in ("full.json", "drop_2-2.json", "drop_4-5.json"):  # the last is no longer asked for
        assert (out / name).read_bytes() == before[name]
    for block, key in index["blocks"].items():
        assert read(out / f"{block}.json")["deeper_layers"]["key"] == key
    (out / "full.json").write_text('{"results": {')  # a file that is not whole counts for nothing
    run(*common, "drop_2-2", "full", "drop_2-4")
    assert read(out / "index.json")["evaluated"] == ["full"]
    assert read(out / "full.json")["results"] == json.loads(before["full.json"])["results"]


class Killed(BaseException):
    pass


def without_what_changes(path: Path) -> dict:
    result = read(path)
    del result["date"]
    for key in ("seconds", "peak_memory_bytes"):
        del result["deeper_layers"][key]
    return result


def test_a_killed_evaluation_goes_on_where_it_died(place, monkeypatch):
    blocks = ["full", "drop_2-2", "drop_4-5", "drop_2-4"]
    common = ["--checkpoint", "llama/full", "--blocks", *blocks, *QUIZ, "--tasks", "choose", "write"]
    common += ["--batch", 2, "--out"]
    run(*common, "llama/calm")

    # In the middle of the log-likelihoods: the batches that were scored are not scored again.
    write = Journal.write
    written = []

    def dies_at_7(self, done, found):
        write(self, done, found)
        written.append(done)
        if len(written) == 7:
            with open(self.path, "a") as file:
                file.write('[99, {"full": [[0, -1.5')  # as SIGKILL leaves it
            raise Killed

    monkeypatch.setattr(Journal, "write", dies_at_7)
    with pytest.raises(Killed):
        run(*common, "llama/killed")
    assert not list(Path("llama/killed").glob("*.json"))

    # Then after the second block: only the others are left.
    write_json = evaluation_job.write_json

    def dies_at_third(path, value):
        if path.name == "drop_4-5.json":
            raise Killed
        write_json(path, value)

    monkeypatch.setattr(Journal, "write", lambda *a: written.append(a[1]) or write(*a))
    monkeypatch.setattr(evaluation_job, "write_json", dies_at_third)
    with pytest.raises(Killed):
        run(*common, "llama/killed")
    assert written == sorted(set(written))
    assert {p.name for p in Path("llama/killed").glob("*.json")} == {"full.json", "drop_2-2.json"}

    monkeypatch.setattr(evaluation_job, "write_json", write_json)
    stale = Path("llama/killed/.answers/killed-0123456789abcdef")  # of other settings
    stale.mkdir()
    scored = len(written)
    run(*common, "llama/killed")
    assert len(written) == scored
    assert read("llama/killed/index.json")["evaluated"] == blocks[2:]
    assert not Path("llama/killed/.answers").exists()
    for block in blocks:
        assert without_what_changes(Path(f"llama/killed/{block}.json")) == without_what_changes(
            Path(f"llama/calm/{block}.json")
        )


def test_key_is_of_all_that_determines_the_numbers_and_nothing_else(place):
    def keys(*more, tasks="tasks", checkpoint="llama/full", names=("choose",)):
        words = ["--checkpoint", checkpoint, "--suite", "quiz", "--tasks", *names, "--include", tasks]
        arguments = parser_of("evaluate").parse_args(
            list(map(str, [*words, "--blocks", "full", "drop_1-1", "--out", "nowhere", *more]))
        )
        job = Evaluation(arguments).job
        return [job.key(block) for block in job.blocks]

    base = keys()
    assert base[0] != base[1]
    assert keys("--batch", 7, "--threads", 2, "--out", "elsewhere", "--treatment", "other") == base
    changed = [
        keys("--shots", 1),
        keys("--limit", 3),
        keys("--precision", "fp32"),
        keys("--code", "other"),
        keys("--samples"),
        keys(names=("write",)),
        keys(checkpoint="gpt2/full"),
    ]
    copy = Path("copy")
    write_own_tasks(copy)
    assert keys(tasks=copy) == base
    (copy / "choose.yaml").write_text("include: ../base.yaml\n" + (copy / "choose.yaml").read_text())
    Path("base.yaml").write_text("num_fewshot: 0\n")
    changed.append(keys(tasks=copy))
    Path("base.yaml").write_text("num_fewshot: 1\n")
    changed.append(keys(tasks=copy))
    (copy / "choose.jsonl").write_text((copy / "choose.jsonl").read_text().replace("w1", "w2", 1))
    changed.append(keys(tasks=copy))
    assert len({tuple(k) for k in [base, *changed]}) == len(changed) + 1
    assert all(k[0] != base[0] and k[1] != base[1] for k in changed)


def test_task_folders_are_read_once_and_data_once(place, monkeypatch):
    managers, loads = [], []
    start, download = TaskManager.__init__, lm_eval.api.task.ConfigurableTask.download
    monkeypatch.setattr(
        TaskManager, "__init__", lambda self, **how: managers.append(how) or start(self, **how)
    )
    monkeypatch.setattr(
        lm_eval.api.task.ConfigurableTask, "download", lambda self, *a: loads.append(1) or download(self, *a)
    )
    run("--checkpoint", "llama/full", "--blocks", *BLOCKS, *QUIZ, "--tasks", "choose", "--out", "llama/once")
    assert [how["include_defaults"] for how in managers] == [False]
    assert len(loads) == 1


def test_tasks_keep_their_order_and_groups_stay_whole(place):
    folders = (LM_EVAL_TASKS / "mmlu/default", place / "tasks", place / "group")
    _, items = load_tasks(TaskSuite(("write", "mmlu_two", "choose"), folders))
    assert [getattr(item, "task_name", None) or item.name for item in items] == [
        "write",
        "mmlu_two",
        "choose",
    ]


def test_a_task_without_its_data_is_one_line(place):
    for name, data in (("boolq", LM_EVAL_TASKS / "super_glue/boolq"), ("lost", place / "lost_task")):
        if name == "lost":
            data.mkdir()
            text = (place / "tasks/choose.yaml").read_text().replace("choose", "lost")
            (data / "lost.yaml").write_text(text)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(UserError, match="no data for task") as error,
        ):
            patch.chdir(place / "group")  # where nothing stands in for the hub
            load_tasks(TaskSuite((name,), (data,)))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--checkpoint", "llama/source", *QUIZ, "--tasks", "choose"], "adopt.py"),
        (["--checkpoint", "llama/full", *QUIZ], "--tasks"),
        (["--checkpoint", "llama/full", *QUIZ, "--loss"], "--tokens"),
        (["--checkpoint", "llama/full", *QUIZ, "--perplexity"], "--tokens"),
        (
            ["--checkpoint", "llama/full", *QUIZ, "--tasks", "choose", "--metric", "acc_nrm"],
            "no metric 'acc_nrm'; it has acc",
        ),
        (
            [
                *["--checkpoint", "llama/full", *QUIZ, "--perplexity", "--tokens", "loss.safetensors"],
                *["--stride", 9, "--window", 8],
            ],
            "at most 8",
        ),
        (
            ["--checkpoint", "llama/full", *QUIZ, "--tasks", "choose", "--blocks", "drop_3-6"],
            "drop_3-6 does not",
        ),
        (["--checkpoint", "llama/full", *QUIZ, "--tasks", "choose", "--blocks", "drop_4"], "'drop_4' is not"),
        (["--checkpoint", "llama/drop_2-2", *QUIZ, "--tasks", "choose", "--blocks", "full"], "uncut"),
        (["--checkpoint", "llama/full", *QUIZ, "--tasks", "choose", "--adapter", "tasks"], "adapter_config"),
        (
            ["--checkpoint", "llama/full", *QUIZ, "--include", "lost", "--tasks", "choose"],
            "lost does not exist",
        ),
        (["--checkpoint", "llama/full", *LOSS, "--tokens", "lost", "--sequences", 3], "lost does not exist"),
    ],
)
def test_bad_input_is_one_line_before_any_work(place, words, says):
    with pytest.raises(UserError, match=says) as error:
        run(*words, "--out", "llama/bad")
    assert "\n" not in str(error.value)
    assert not Path("llama/bad").exists()
