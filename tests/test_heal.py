"""Healing: what the adapter learns, what it is loaded into, which rows it sees, and that a killed run
ends like a calm one."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Trainer,
    set_seed,
)

from deeper_layers.data.batches import batches_of_least_cost, padded
from deeper_layers.data.packing import Steps, pack
from deeper_layers.data.tokens import Tokens, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.healing import objective as objectives
from deeper_layers.healing import parts, training
from deeper_layers.healing.batch_plan import BatchPlan
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.objective import Objective
from deeper_layers.healing.resume import CHECKPOINT_FILES, ResumableState
from deeper_layers.healing.steps import StepTrainer
from deeper_layers.healing.training import heal
from deeper_layers.models.adapters import CpuDropout, add_adapter
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.head import HeadApart
from deeper_layers.models.load import load_model
from deeper_layers.settings.healing import Healing
from helpers.config import ROOT
from helpers.healing import RECIPE, VOCABULARY, counting, tiny_llama

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's folder: checkpoints, token file and one healed cut."""
    root = tmp_path_factory.mktemp("study")
    tiny_llama().save_pretrained(root / "checkpoints/cut")
    tiny_llama(layers=5).save_pretrained(root / "checkpoints/deeper")
    tiny_llama(layers=2).save_pretrained(root / "checkpoints/shallower")
    tiny_llama(hidden_size=64).save_pretrained(root / "checkpoints/wider")
    write_tokens(root / "train.safetensors", counting(300, seed=1))
    run_heal(root, "calm", RECIPE)
    return root


def run_heal(root: Path, name: str, recipe: Healing, **how) -> Path:
    out = root / "healed" / name
    files = HealingFiles(root / "checkpoints/cut", root / "train.safetensors", out, root / "state" / name)
    heal(files, replace(recipe, **how))
    return out


def results(out: Path) -> tuple[bytes, bytes, bytes]:
    """The files that must not depend on when or how often a run was stopped."""
    files = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "training.csv")
    return tuple((out / name).read_bytes() for name in files)


@torch.no_grad()
def mean_loss(model, documents: list[list[int]]) -> float:
    """Nats per predicted token, one document at a time, by hand."""
    nll = []
    for d in documents:
        ids = torch.tensor([d])
        log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        nll += (-log_p[range(len(d) - 1), d[1:]]).tolist()
    return float(np.mean(nll))


# What healing does


def test_healing_lowers_the_loss_on_text_it_has_not_seen(study):
    unseen = counting(60, seed=2)
    before = mean_loss(load_model(study / "checkpoints/cut"), unseen)
    after = mean_loss(load_healed(study / "checkpoints/cut", study / "healed/calm/adapter"), unseen)
    assert after < before - 1


def test_every_tensor_of_the_adapter_counts(study):
    """The healed model is the cut one with W + alpha / r * B A, from the tensors of the file alone."""
    stored = load_file(study / "healed/calm/adapter/adapter_model.safetensors")
    model = load_model(study / "checkpoints/cut")
    ffn = [f"model.layers.{i}.mlp.{m}_proj" for i in range(3) for m in ("gate", "up", "down")]
    for name in ffn:
        key = f"base_model.model.{name}.lora_{{}}.weight"
        delta = stored.pop(key.format("B")) @ stored.pop(key.format("A"))
        assert delta.abs().max() > 0
        model.get_submodule(name).weight.data += delta
    assert not stored, "tensors beyond the feed-forward layers"
    healed = load_healed(study / "checkpoints/cut", study / "healed/calm/adapter")
    ids = torch.tensor(counting(1, seed=3))
    torch.testing.assert_close(healed(input_ids=ids).logits, model(input_ids=ids).logits)


def test_outputs(study):
    out = study / "healed/calm"
    assert sorted(p.name for p in out.iterdir()) == ["adapter", "heal.json", "training.csv"]
    assert sorted(p.name for p in (out / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((out / "adapter/adapter_config.json").read_text())
    assert not os.path.isabs(config["base_model_name_or_path"])
    base = (out / "adapter" / config["base_model_name_or_path"]).resolve()
    assert base == (study / "checkpoints/cut").resolve()
    assert config["target_modules"] == ["down_proj", "gate_proj", "up_proj"]  # a set in peft: sorted by us
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 8, 0.05)
    assert not (study / "state/calm").exists()

    rows = list(csv.DictReader((out / "training.csv").read_text().splitlines()))
    assert [int(r["step"]) for r in rows] == list(range(1, 41))
    tokens = int(rows[-1]["tokens"])
    assert 0.8 * 40 * 8 * 32 < tokens <= 40 * 8 * 32  # packed: little padding
    for k, row in enumerate(rows):  # cosine after a linear warm-up; step 1 is at 0
        rate = k / 5 if k < 5 else 0.5 * (1 + math.cos(math.pi * (k - 5) / 35))
        assert float(row["learning_rate"]) == pytest.approx(2e-2 * rate)
    summary = json.loads((out / "heal.json").read_text())
    assert summary["tokens"] == tokens and summary["tokens_per_second"] > 0
    assert summary["final_loss"] == pytest.approx(np.mean([float(r["loss"]) for r in rows[-4:]]))
    assert summary["trainable_parameters"] == 3 * 3 * 8 * (48 + 80)
    assert summary["recipe"]["rank"] == 8 and summary["versions"]["peft"]


def test_nf4_and_a_width_that_is_no_multiple_of_64(study):
    """QLoRA, on a CPU too; AVX512-BF16 machines would repack the weights to another precision."""
    out = run_heal(study, "nf4", replace(RECIPE, precision="nf4"))
    unseen = counting(30, seed=2)
    quantised = load_healed(study / "checkpoints/cut", out / "adapter", "nf4")
    assert type(quantised.get_submodule("model.layers.0.mlp.up_proj").base_layer).__name__ == ("Linear4bit")
    full = load_healed(study / "checkpoints/cut", out / "adapter", "fp32")
    assert mean_loss(quantised, unseen) == pytest.approx(mean_loss(full, unseen), abs=0.2)
    assert mean_loss(quantised, unseen) < math.log(VOCABULARY) - 1


@pytest.mark.parametrize("checkpoint", ["deeper", "shallower", "wider"])
def test_adapter_of_another_model_is_refused(study, checkpoint):
    with pytest.raises(UserError, match="does not fit"):
        load_healed(study / "checkpoints" / checkpoint, study / "healed/calm/adapter")


def test_adapter_with_other_names_is_refused(study, tmp_path):
    """peft itself loads this one without an error and leaves the model as it was."""
    adapter = shutil.copytree(study / "healed/calm/adapter", tmp_path / "adapter")
    stored = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("layers.", "blocks."): tensor for name, tensor in stored.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_healed(study / "checkpoints/cut", adapter)
    with pytest.raises(UserError, match="adapter_config.json"):
        load_healed(study / "checkpoints/cut", tmp_path)


# Rows


def test_an_epoch_has_every_document_once(study):
    tokens = Tokens(study / "train.safetensors")
    for packing in (True, False):
        steps = Steps(tokens, steps=60, batch=8, length=12, packing=packing, seed=3)
        assert all(sum(min(len(tokens[d]), 12) for d in row) <= 12 for row in steps.rows)
        order = [d for row in steps.rows for d in row]
        assert sorted(order[:300]) == list(range(300))
        assert len(steps) == 60 and len(steps.rows) == 60 * 8
        assert steps.cumulative_tokens[-1] == sum(len(d) for k in range(60) for d in steps[k])
        assert [len(d) for d in steps[1]] == [min(len(tokens[d]), 12) for r in steps.rows[8:16] for d in r]
        assert steps.rows == Steps(tokens, 60, 8, 12, packing, seed=3).rows
        assert steps.rows != Steps(tokens, 60, 8, 12, packing, seed=4).rows


def test_packing_wastes_little():
    lengths = np.random.default_rng(0).integers(2, 60, 2000)
    rows = pack(np.arange(2000), lengths, capacity=128)
    assert sorted(d for row in rows for d in row) == list(range(2000))
    assert len(rows) <= 1.02 * lengths.sum() / 128 + 1


# Steps in parts


def test_parts_cost_the_least():
    """Against all ways to part six documents by their lengths."""
    lengths, budget, overhead = [3, 9, 4, 4, 8, 2], 16, 5

    def cost(parts: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in part) * len(part) + overhead for part in parts)

    order = sorted(range(6), key=lambda i: (-lengths[i], i))
    ways = []
    for cuts in range(2**5):
        ends = [i + 1 for i in range(5) if cuts >> i & 1]
        parts = [order[a:b] for a, b in zip([0, *ends], [*ends, 6], strict=True)]
        if all(max(lengths[i] for i in part) * len(part) <= budget for part in parts):
            ways.append(parts)
    found = batches_of_least_cost(lengths, budget, overhead)
    assert cost(found) == min(map(cost, ways)) and sorted(i for part in found for i in part) == list(range(6))
    assert batches_of_least_cost([50, 3], 16, 5) == [[0], [1]]  # too long for the budget: by itself
    assert batches_of_least_cost([5, 5, 5], 100, 5, padded=lambda n: 16) == [[0, 1, 2]]
    assert batches_of_least_cost([], 16, 5) == []


ARCHITECTURES = {
    "llama": lambda shape: LlamaConfig(**shape, num_attention_heads=2),
    "gpt2": lambda shape: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2),
    "mistral": lambda shape: MistralConfig(
        **shape, num_attention_heads=2, num_key_value_heads=1, sliding_window=6
    ),
    "gemma2": lambda shape: Gemma2Config(**shape, num_attention_heads=2, num_key_value_heads=1, head_dim=16),
    "bloom": lambda shape: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2),
    "opt": lambda shape: OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2
    ),
    "mamba": lambda shape: MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2),
}
SHAPE = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2)


def random_model(config):
    """Large weights, so that attention is far from uniform and a leak cannot hide."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1 and "embed_positions" not in name:
                p.mul_(10 if config.model_type != "mamba" else 3)  # it explodes
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("logits", [64 * 7, 2**26])
def test_documents_together_are_those_alone(architecture, logits, monkeypatch):
    """Loss and gradient of documents of any length in one part, with the head in pieces or not, against each
    document by itself through the model's own loss."""
    monkeypatch.setattr(objectives, "LOGITS", logits)
    model = random_model(ARCHITECTURES[architecture](SHAPE))
    documents = [np.array(d) for d in counting(9, seed=5)]
    objective = Objective(model, RECIPE)
    assert objective.head.is_apart
    found = objective(*padded(documents))["cross_entropy"]
    alone = [model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1) for ids in map(as_row, documents)]
    head = model.get_output_embeddings().weight
    gradients = [torch.autograd.grad(loss, head)[0] for loss in (found, sum(alone))]
    torch.testing.assert_close(found, sum(alone), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def as_row(document: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(document)[None]


def test_a_model_whose_head_is_not_apart_is_run_whole(monkeypatch):
    model = random_model(ARCHITECTURES["llama"](SHAPE))
    documents = [np.array(d) for d in counting(5, seed=5)]
    expected = Objective(model, RECIPE)(*padded(documents))["cross_entropy"]
    monkeypatch.setattr(HeadApart, "_parts_at", lambda *_: False)
    objective = Objective(model, RECIPE)
    assert not objective.head.is_apart
    torch.testing.assert_close(objective(*padded(documents))["cross_entropy"], expected)


def test_the_losses_are_those_of_the_plain_trainer(study, tmp_path):
    """The recipe without dropout, in parts, against Trainer and peft with one padded batch for a step: the
    mathematics is theirs."""
    tokens = Tokens(study / "train.safetensors")
    for packing in (False, True):
        recipe = replace(RECIPE, steps=6, dropout=0.0, packing=packing)
        out = run_heal(study, f"parts_{packing}", recipe, batch_tokens=60)
        found = np.loadtxt(out / "training.csv", delimiter=",", skiprows=1)[:, 1]
        steps = Steps(tokens, 6, recipe.batch, recipe.length, packing, recipe.seed)
        set_seed(recipe.seed)
        model = load_model(study / "checkpoints/cut")
        model = add_adapter(model, recipe.rank, recipe.rank, 0.0, ["auto"])
        plain = Trainer(
            model=model,
            args=training.training_arguments(tmp_path, recipe, cuda=False),
            train_dataset=[steps[k] for k in range(6)],
            data_collator=one_padded_batch,
        )
        plain.train()
        expected = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def one_padded_batch(items: list[list[np.ndarray]]) -> dict:
    (documents,) = items
    ids, last = padded(documents)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) > last[:, None], -100)
    return {"input_ids": ids, "labels": labels}


# Faults


def start(study: Path, name: str, save_every: float) -> subprocess.Popen:
    """scripts/heal.py with RECIPE on the study's cut."""
    words = ["rank", "learning_rate", "warmup", "steps", "batch", "length", "precision"]
    options = [w for name in words for w in (f"--{name.replace('_', '-')}", str(getattr(RECIPE, name)))]
    where = {
        "checkpoint": study / "checkpoints/cut",
        "tokens": study / "train.safetensors",
        "out": study / "healed" / name,
        "state": study / "state" / name,
        "save-every": save_every,
    }
    options += [str(word) for key, value in where.items() for word in (f"--{key}", value)]
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts/heal.py", *options, "--packing", "--threads", "1"]
    )


def wait_for(step: int, state: Path, process: subprocess.Popen) -> None:
    while not any(int(f.name.split("-")[1]) >= step for f in state.glob("checkpoint-*")):
        assert process.poll() is None, "ended before it could be stopped"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def stopped(study):
    """State of a run that was killed with SIGKILL, went on and was ended with SIGTERM."""
    state = study / "state/stopped"
    first = start(study, "stopped", save_every=0)
    wait_for(3, state, first)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    killed_at = max(int(f.name.split("-")[1]) for f in state.glob("checkpoint-*"))
    second = start(study, "stopped", save_every=0)
    wait_for(killed_at + 3, state, second)
    second.terminate()
    assert second.wait() == 128 + signal.SIGTERM
    assert not (study / "healed/stopped").exists()
    return state


def test_killed_and_resumed_equals_uninterrupted(study, stopped):
    shutil.copytree(stopped, study / "state/resumed")
    out = run_heal(study, "resumed", RECIPE)
    assert json.loads((out / "heal.json").read_text())["resumed_from_step"] > 5
    assert results(out) == results(study / "healed/calm")
    assert not (study / "state/resumed").exists()


@pytest.mark.parametrize("stopped_in, kept", [(5, 5), (0, None)])
def test_asked_to_end_within_a_step_it_keeps_the_whole_steps_before(study, monkeypatch, stopped_in, kept):
    """A step in many parts: SIGTERM comes in the second one, after dropout has drawn."""
    calm, state = run_heal(study, "calm_parts", RECIPE, batch_tokens=60), study / "state/parts"
    call, parts = Objective.__call__, []

    def warned(self, *words):
        parts.append(counted.trainer.state.global_step)
        if parts.count(stopped_in) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, *words)

    class counted(StepTrainer):
        def __init__(self, **words):
            super().__init__(**words)
            counted.trainer = self

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(training, "StepTrainer", counted)
        patch.setattr(Objective, "__call__", warned)
        run_heal(study, "parts", RECIPE, batch_tokens=60)
    assert ended.value.code == 128 + signal.SIGTERM and parts.count(stopped_in) == 2
    saved = [folder.name for folder in state.glob("checkpoint-*")]
    assert saved == ([f"checkpoint-{kept}"] if kept else [])
    out = run_heal(study, "parts", RECIPE, batch_tokens=60)
    assert json.loads((out / "heal.json").read_text())["resumed_from_step"] == (kept or 0)
    assert results(out) == results(calm)


def test_asked_to_end_while_it_writes_it_writes_all_and_keeps_its_state(study, monkeypatch):
    write = training.write_results

    def asked(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_results", asked)
        out = run_heal(study, "late", RECIPE, save_every=0)
    assert results(out) == results(study / "healed/calm")
    shutil.rmtree(out)  # as Snakemake does with what a failed job has made
    out = run_heal(study, "late", RECIPE)
    assert json.loads((out / "heal.json").read_text())["resumed_from_step"] == RECIPE.steps - 1
    assert results(out) == results(study / "healed/calm")
    assert not (study / "state/late").exists()


def test_nf4_resumes_to_the_same_bytes(study, monkeypatch):
    recipe = replace(RECIPE, precision="nf4", steps=10)
    calm = run_heal(study, "nf4_calm", recipe)
    step = StepTrainer.training_step

    def fault(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepTrainer, "training_step", fault)
        run_heal(study, "nf4_resumed", recipe, save_every=0)
    out = run_heal(study, "nf4_resumed", recipe)
    assert json.loads((out / "heal.json").read_text())["resumed_from_step"] == 6
    assert results(out) == results(calm)


def test_half_written_checkpoints_are_dropped(study, stopped, tmp_path):
    def latest(folder: Path, recipe: Healing = RECIPE) -> Path | None:
        inputs = study / "checkpoints/cut", study / "train.safetensors"
        return ResumableState(folder, recipe, *inputs).latest()

    whole = shutil.copytree(stopped, tmp_path / "whole")
    last = latest(whole)
    assert last.name.startswith("checkpoint-") and {*CHECKPOINT_FILES} <= {f.name for f in last.iterdir()}
    later = last.with_name("checkpoint-39")  # killed while writing the next one
    for name in CHECKPOINT_FILES:
        for fault in (lambda file: file.unlink(), lambda file: os.truncate(file, 0)):
            fault(shutil.copytree(last, later) / name)
            assert latest(whole) == last and not later.exists()
    shutil.copytree(last, later)
    os.truncate(later / "trainer_state.json", (later / "trainer_state.json").stat().st_size // 2)
    assert latest(whole) == last and not later.exists()
    assert latest(whole, replace(RECIPE, seed=1)) is None, "resumed another recipe"
    assert not last.exists()
    someone_elses = tmp_path / "thesis"
    someone_elses.mkdir()
    (someone_elses / "chapter1.tex").write_text("...")
    with pytest.raises(UserError, match="does not exist"):
        latest(someone_elses)
    assert (someone_elses / "chapter1.tex").exists()


def test_divergence_stops_with_a_clear_error(study):
    for schedule in ("constant", "cosine"):
        with pytest.raises(UserError, match=r"step \d+ .*lower the learning rate from 1e\+06"):
            run_heal(study, "diverged", replace(RECIPE, learning_rate=1e6, schedule=schedule, clip=1e9))
    assert not (study / "healed/diverged").exists()


def test_not_a_number_stops_before_it_is_saved(study, monkeypatch):
    """A NaN in the fourth step: that step is named, and no checkpoint holds it."""
    step, calls = StepTrainer.training_step, []

    def faulty(self, *words):
        calls.append(len(calls) + 1)
        return step(self, *words) * (float("nan") if calls[-1] == 4 else 1)

    monkeypatch.setattr(StepTrainer, "training_step", faulty)
    with pytest.raises(UserError, match=r"step 4 \(loss nan.*lower the learning rate"):
        run_heal(study, "nan", RECIPE, save_every=0)
    assert [f.name for f in (study / "state/nan").glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.parametrize("full_from", [1, 4])
def test_out_of_memory_keeps_the_step(study, monkeypatch, capfd, full_from):
    """In some step memory runs out: the step is done again in smaller parts, with the masks of dropout drawn
    as if it had begun so, and the model is loaded once."""
    full, loaded = [], []

    def small_card(*words):
        model = add_adapter(*words)
        loaded.append(model)

        def limit(layer, inputs, named):
            hidden = inputs[0] if inputs else named["hidden_states"]
            if layer.training and counted.step == full_from and not full:
                full.append(hidden.shape[0] * hidden.shape[1])
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
                )

        layer = model.get_submodule("base_model.model.model.layers.2")  # dropout has drawn by then
        layer.register_forward_pre_hook(limit, with_kwargs=True)
        return model

    step = StepTrainer.training_step

    def counted(self, *words):
        counted.step = self.state.global_step + 1
        return step(self, *words)

    short = replace(RECIPE, steps=8)
    plain = run_heal(study, "plain", short)
    monkeypatch.setattr(StepTrainer, "training_step", counted)
    monkeypatch.setattr(parts, "add_adapter", small_card)
    out = run_heal(study, "small", short, save_every=0)
    assert len(loaded) == 1
    summary = json.loads((out / "heal.json").read_text())
    assert summary["batch_tokens"] == full[0] // 2 and not summary["gradient_checkpointing"]
    assert f"out of memory with {full[0]} tokens at once" in capfd.readouterr().out
    losses = [np.loadtxt(o / "training.csv", delimiter=",", skiprows=1)[:, 1] for o in (plain, out)]
    if full_from == 1:
        again = run_heal(study, "again", short, batch_tokens=summary["batch_tokens"])
        assert results(out) == results(again)
    else:
        np.testing.assert_array_equal(losses[0][:3], losses[1][:3])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.2)  # other masks


def test_what_is_tried_when_memory_runs_out():
    plans, plan = [], BatchPlan(2048, False)
    while plan:
        plans.append((plan.batch_tokens, plan.gradient_checkpointing))
        plan = plan.smaller(max(plan.batch_tokens, 300), 300, "auto")
    assert plans == [(2048, False), (1024, False), (512, False), (300, False), (300, True)]
    assert BatchPlan(2048, False).smaller(600, 300, "auto") == BatchPlan(300, False)
    assert BatchPlan(300, False).smaller(300, 300, "off") is None


def test_a_killed_run_goes_on_with_fewer_tokens_at_once_where_that_is_asked_for(tmp_path):
    state = ResumableState(tmp_path / "state", Healing(), tmp_path, tmp_path / "tokens")
    assert state.plan(BatchPlan(800, False)) == BatchPlan(800, False)
    assert state.plan(BatchPlan(1600, False)) == BatchPlan(800, False)  # it fitted
    assert state.plan(BatchPlan(200, False)) == state.plan(BatchPlan(1600, False)) == BatchPlan(200, False)
    state.replace_plan(BatchPlan(100, True))
    assert state.plan(BatchPlan(100, False)) == BatchPlan(100, True)


def test_gradient_checkpointing_changes_nothing_but_the_work(study, monkeypatch):
    passes = []

    def counted(*args):
        model = add_adapter(*args)
        attention = model.get_submodule("base_model.model.model.layers.1.self_attn")
        attention.register_forward_hook(lambda module, *_: passes.append(1) if module.training else None)
        return model

    monkeypatch.setattr(parts, "add_adapter", counted)
    short, stored = replace(RECIPE, steps=8, dropout=0.0), []
    for how in ("off", "on"):
        passes.clear()
        out = run_heal(study, how, short, checkpointing=how)
        stored.append((len(passes), load_file(out / "adapter/adapter_model.safetensors")))
    assert stored[1][0] == 2 * stored[0][0]
    torch.testing.assert_close(stored[0][1], stored[1][1], rtol=1e-4, atol=1e-6)


def test_what_the_card_or_the_model_cannot_do_is_one_line(study, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
        with pytest.raises(UserError, match="LlamaForCausalLM has no gradient checkpointing"):
            run_heal(study, "no_checkpointing", RECIPE, checkpointing="on")
    monkeypatch.setattr(training, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(training, "is_torch_bf16_gpu_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Quadro P4000")
    with pytest.raises(
        UserError, match="Quadro P4000 has no bf16, in which nf4 computes: take precision fp32"
    ):
        run_heal(study, "no_bf16", replace(RECIPE, precision="nf4"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rank": 0}, "rank is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"warmup": 40}, "warmup is 40 of 40 steps"),
        ({"length": 1}, "length is 1"),
        ({"schedule": "cosin"}, "schedule is cosin, it must be one of cosine"),
        ({"targets": ["mlp.up"]}, "'mlp.up'.*mlp.up_proj"),
        ({"precision": "int8"}, "precision is int8, it must be one of"),
        ({"batch_tokens": -2}, "batch_tokens is -2, it must be at least 1"),
        ({"cross_entropy": 0}, "cross_entropy, logits and interface are all 0"),
        ({"logits": -1}, "logits is -1, it must be at least 0"),
    ],
)
def test_bad_settings_get_one_clear_line(study, change, message):
    with pytest.raises(UserError, match=message) as error:
        run_heal(study, "bad", RECIPE, **change)
    assert "\n" not in str(error.value)


def test_text_without_a_second_token_is_refused(study, tmp_path):
    write_tokens(tmp_path / "short.safetensors", [[1], [2]])
    with pytest.raises(UserError, match="no document of two tokens"):
        files = study / "checkpoints/cut", tmp_path / "short.safetensors", tmp_path / "o", tmp_path / "s"
        heal(HealingFiles(*files), RECIPE)


def test_cpu_dropout_is_dropout():
    torch.manual_seed(0)
    dropout, x = CpuDropout(0.05), torch.ones(1000, 1001, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y)  # the same mask backward
    y = y.detach()
    kept = y != 0
    assert 1 - kept.double().mean().item() == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / x.numel()))
    assert y.double().mean().item() == pytest.approx(1, abs=0.002)
    assert len(y[kept].unique()) == 1
    assert (kept.double().mean(0).std() / math.sqrt(0.05 * 0.95 / 1000)).item() == pytest.approx(1, abs=0.1)
    assert not torch.equal(y, dropout(x)), "the same mask twice"
    assert torch.equal(dropout.eval()(x), x)
