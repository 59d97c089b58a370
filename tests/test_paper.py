"""The paper's study, end to end: its own file and rules, on models and data sets small enough for a test.

A hub on this machine serves random models of the paper's ids, config classes, depths and commits (Llama-2
gated, Qwen in its first-generation layout); the data sets are mirrors in their real layout.
"""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)

from deeper_layers.reporting.figures.registry import FIGURES
from helpers import mirrors
from helpers.config import ROOT
from helpers.hub_server import Hub
from helpers.mirrors import SUBJECTS
from helpers.qwen import CONFIG as QWEN
from helpers.qwen import tensors, write

TOKEN = "hf_ofTheTestOfThePaper"
LAYERS, N = 32, 8  # all four have 32 layers; the paper shows 8 of them removed
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
SMALL = {
    "study": {
        "models": ["llama-2-7b", "qwen-7b", "mistral-7b", "phi-2"],
        "remove": [N],
        "suites": ["mmlu", "loss"],
    },
    "models": {name: {"gpus": 0} for name in ("llama-2-7b", "qwen-7b", "mistral-7b", "phi-2")},
    "texts": {"c4": {"train": 60, "calibration": 30, "validation": 30, "buffer": 50}},
    "distances": {"samples": 30, "length": 64, "precision": "fp32"},
    "recipes": {
        "healed": {
            "steps": 3,
            "warmup": 1,
            "batch": 4,
            "precision": "fp32",
            "models": {
                **{name: {"length": 64} for name in ("llama-2-7b", "phi-2")},
                # Two are healed, one with the gated targets and one with fc1 and fc2: minutes matter.
                **{name: {"remove": [N + 1]} for name in ("qwen-7b", "mistral-7b")},
            },
        }
    },
    "suites": {
        # One job for all tasks, one question of each.
        "mmlu": {
            "tasks": ["mmlu", "boolq", "hellaswag", "gsm8k"],
            "limit": 1,
            "precision": "fp32",
            "batch": 8,
        },
        "loss": {"loss": {"sequences": 30, "length": 64, "precision": "fp32"}},
    },
}


def models(root):
    """{hub id: folder} of the four models, their weights random."""
    texts = [mirrors.passage(mirrors.random.Random(i), 8) for i in range(200)]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=600, special_tokens=["<s>", "</s>"])
    bpe.save(str(root / "bpe.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(root / "bpe.json"), bos_token="<s>", eos_token="</s>"
    )
    shape = SHAPE | {"vocab_size": len(tokenizer), "max_position_embeddings": 2048, "initializer_range": 0.2}
    shape |= {"bos_token_id": 0, "eos_token_id": 1}
    made = {
        "meta-llama/Llama-2-7b-hf": LlamaForCausalLM(LlamaConfig(**shape)),
        "mistralai/Mistral-7B-v0.1": MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=2)),
        "microsoft/phi-2": PhiForCausalLM(PhiConfig(**shape)),
    }
    folders = {name: root / name.split("/")[1] for name in [*made, "Qwen/Qwen-7B"]}
    for name, model in made.items():
        model.save_pretrained(folders[name], max_shard_size="300kB")
        tokenizer.save_pretrained(folders[name])
    qwen = QWEN | {"num_hidden_layers": LAYERS, "seq_length": 2048}
    write(folders["Qwen/Qwen-7B"], tensors(LAYERS), qwen, shards=3)
    return folders


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of the finished study."""
    root = tmp_path_factory.mktemp("paper")
    mirrors.c4(root, train=200, validation=200)
    mirrors.mmlu(root, SUBJECTS, questions=1)
    mirrors.boolq(root, questions=2)
    mirrors.hellaswag(root, questions=2)
    mirrors.gsm8k(root, questions=2)
    torch.manual_seed(0)
    (root / "repositories").mkdir()
    paper = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    commits = {model["source"]: model["revision"] for model in paper["models"].values()}
    (root / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    (root / "small.yaml").write_text(yaml.safe_dump(SMALL))
    gated = ("meta-llama/Llama-2-7b-hf",)
    with Hub(models(root / "repositories"), gated, TOKEN, commits) as hub:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(root / "home"), "HF_TOKEN": TOKEN}
        environment["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        command += ["--configfile", str(ROOT / "studies/paper.yaml"), "small.yaml"]
        run = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-20000:]
    assert TOKEN not in output
    return root / "results/paper"


def rows(results):
    with open(results / "table.csv") as file:
        return list(csv.DictReader(file))


def published(**where):
    with open(ROOT / "resources/published/results.csv") as file:
        found = [row for row in csv.DictReader(file) if where.items() <= row.items()]
    return min(found, key=lambda row: float(row["uncertainty"]))["value"] if found else ""


pytestmark = pytest.mark.slow
IDS = {
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "qwen-7b": "Qwen/Qwen-7B",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "phi-2": "microsoft/phi-2",
}


RANKS = {"llama-2-7b": 2, "phi-2": 64}  # of the models that are healed


def test_every_variant_has_every_metric(results):
    found = {(r["model"], r["strategy"], r["n"], r["treatment"]) for r in rows(results)}
    for model in IDS:
        for strategy in ("similarity", "deepest"):
            assert {(model, strategy, n, "pruned") for n in ("0", str(N))} <= found
        assert ((model, "similarity", str(N), "healed") in found) == (model in RANKS)
    blocks = {(r["model"], r["n"]): r["block"] for r in rows(results) if r["strategy"] == "published"}
    assert blocks == {
        ("llama-2-7b", "0"): "full",
        ("llama-2-7b", "8"): "drop_21-28",
        ("mistral-7b", "0"): "full",
        ("mistral-7b", "8"): "drop_21-28",
    }
    for row in rows(results):
        for metric in ("mmlu", "boolq", "hellaswag", "gsm8k"):
            assert 0 <= float(row[metric]) <= 1, (row["model"], metric)
        assert float(row["loss"]) > 0 and 0 < float(row["normalised_loss"]) < 10
        assert int(row["layers"]) == LAYERS - int(row["n"])


def test_healing_trained_the_papers_targets(results):
    targets = {"phi-2": {"fc1", "fc2"}}
    for model, rank in RANKS.items():
        (path,) = (results / model / "healed").glob("drop_*/adapter/adapter_config.json")
        adapter = json.loads(path.read_text())
        names = targets.get(model, {"gate_proj", "up_proj", "down_proj"})
        assert {name.split(".")[-1] for name in adapter["target_modules"]} == names
        assert adapter["r"] == adapter["lora_alpha"] == rank and adapter["lora_dropout"] == 0.05


def test_the_papers_values_stand_beside_ours(results):
    seen = 0
    for row in rows(results):
        strategy = row["strategy"].replace("published", "similarity")
        value = published(
            model=IDS[row["model"]],
            strategy=strategy,
            n_removed=row["n"],
            treatment=row["treatment"],
            metric="mmlu_5shot",
        )
        assert row["mmlu_published"] == (f"{float(value):.8g}" if value else "")
        if value:
            seen += 1
            assert float(row["mmlu_difference"]) == pytest.approx(float(row["mmlu"]) - float(value), abs=1e-7)
    assert seen >= 4 * 2 + 1
    assert "boolq_published" not in rows(results)[0]  # the paper has BoolQ of Llama-2-70B only


def test_all_figures_are_drawn(results):
    study = {path.stem for path in (results / "figures").glob("*.png")}
    assert study == {"published", "healing", "loss"}
    for model in IDS:
        drawn = {path.stem for path in (results / "figures" / model).glob("*.png")}
        # Not what compares recipes or prompts, what needs study.speed, or what is of studies without recipes.
        assert drawn | study == set(FIGURES) - {"recipes", "prompts", "speed", "pareto", "quality"}
    sizes = [path.stat().st_size for path in (results / "figures").rglob("*.svg")]
    assert min(sizes) > 5000


def test_models_came_from_the_hub_once_and_are_said_to(results):
    for model, source in IDS.items():
        manifest = json.loads((results / model / "checkpoints/full/manifest.json").read_text())
        paper = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())["models"][model]
        assert manifest["source"] == {"kind": "hub", "id": source, "revision": paper["revision"]}
        assert manifest["n_layers"] == LAYERS
    weights = list((results / "llama-2-7b/checkpoints/full").glob("*.safetensors"))
    blobs = results.parents[1] / "home/hub/models--meta-llama--Llama-2-7b-hf/blobs"
    assert len(weights) > 1 and all(path.resolve().parent == blobs for path in weights)
    config = json.loads((results / "qwen-7b/checkpoints/full/config.json").read_text())
    assert config["model_type"] == "qwen2"


def test_calibration_healing_and_loss_share_no_document(results):
    texts = {}
    for split in ("train", "calibration", "validation"):
        lines = (results / f"texts/c4/{split}.jsonl").read_text().splitlines()
        texts[split] = {json.loads(line)["text"] for line in lines}
    assert {split: len(found) for split, found in texts.items()} == {
        "train": 60,
        "calibration": 30,
        "validation": 30,
    }
    assert not texts["calibration"] & texts["validation"] and all(
        t.startswith("train") for t in texts["train"]
    )


def test_precision_and_batch_are_recorded(results):
    model = results / "phi-2"
    assert json.loads((model / "distances.json").read_text())["precision"] == "fp32"
    for path in [*model.glob("pruned/*/full.json"), *model.glob("healed/*/mmlu.json")]:
        assert json.loads(path.read_text())["deeper_layers"]["precision"] == "fp32"
    (healed,) = model.glob("healed/*/heal.json")
    assert json.loads(healed.read_text())["recipe"]["precision"] == "fp32"


def test_the_token_is_nowhere(results):
    root = results.parents[1]
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert TOKEN.encode() not in path.read_bytes(), path
