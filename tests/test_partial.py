"""Healing that trains the last layers, the norm and the head in full."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.batches import padded
from deeper_layers.data.packing import Steps
from deeper_layers.data.tokens import Tokens, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.methods import healing_method
from deeper_layers.healing.steps import StepTrainer
from deeper_layers.models.artifacts import healed_artifact, load_healed
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.settings.healing import PartialHealing
from helpers.healing import counting, tiny_llama

torch.set_num_threads(1)
RECIPE = PartialHealing(
    layers=1, learning_rate=3e-3, warmup=1, steps=8, batch=4, length=32, packing=True, precision="fp32"
)
BLOCK = LayerSet.contiguous(1, 2)


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def study(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    tiny_llama(layers=5, tie_word_embeddings=request.param).save_pretrained(root / "full")
    cut_checkpoint(root / "full", BLOCK, root / "cut")
    write_tokens(root / "train.safetensors", counting(300, seed=1))
    return root


def run(root, name: str, recipe=RECIPE):
    heal = healing_method("partial").heal
    heal(
        HealingFiles(root / "cut", root / "train.safetensors", root / name, root / "state", root / "full"),
        recipe,
    )
    return root / name


def test_it_is_a_plain_training_of_these_weights(study):
    """AdamW on the last layer, the norm and the head, a step for a batch of padded documents."""
    out = run(study, "healed")
    stored = load_file(out / "replaced/replaced.safetensors")
    model = load_model(study / "cut").train()
    tied = model.config.tie_word_embeddings
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    names = {n for n, _ in model.named_parameters() if n.startswith("model.layers.2.")}
    assert stored.keys() == names | {"model.norm.weight", head}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in stored)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, weight_decay=0.0)
    steps = Steps(Tokens(study / "train.safetensors"), 8, 4, 32, True, RECIPE.seed)
    for k, row in enumerate(csv.DictReader((out / "training.csv").read_text().splitlines())):
        ids, last = padded(steps[k])
        labels = ids.masked_fill(torch.arange(ids.shape[1]) > last[:, None], -100)
        loss = model(input_ids=ids, labels=labels).loss
        assert float(row["loss"]) == pytest.approx(loss.item(), abs=1e-5)
        optimiser.param_groups[0]["lr"] = float(row["learning_rate"])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, model.get_parameter(name).detach(), rtol=1e-3, atol=1e-5)
    healed, ids = load_healed(study / "cut", out / "replaced"), padded(steps[0])[0]
    torch.testing.assert_close(healed(ids).logits, model.eval()(ids).logits, rtol=1e-3, atol=1e-3)
    assert json.loads((out / "heal.json").read_text())["method"] == "Partial training"


def test_the_teacher_keeps_its_weights(study):
    """By logits alone a cut that trains comes closer to the uncut model as it was."""
    out = run(study, "taught", replace(RECIPE, cross_entropy=0.0, logits=1.0, steps=40))
    ids = padded([np.array(d) for d in counting(9, seed=5)])[0]
    log_p = load_model(study / "full")(ids).logits.log_softmax(-1)
    before, after = (
        torch.nn.functional.kl_div(m(ids).logits.log_softmax(-1), log_p, reduction="sum", log_target=True)
        for m in (load_model(study / "cut"), load_healed(study / "cut", out / "replaced"))
    )
    assert after < 0.8 * before
    first = next(csv.DictReader((out / "training.csv").read_text().splitlines()))
    assert float(first["logits"]) > 0


def test_a_killed_training_ends_as_a_calm_one(study, monkeypatch):
    calm, step = run(study, "calm"), StepTrainer.training_step

    def fault(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepTrainer, "training_step", fault)
        run(study, "killed", replace(RECIPE, save_every=0))
    (kept,) = (study / "state").glob("checkpoint-*")
    parameters = sum(p.numel() for p in load_model(study / "cut").parameters())
    assert sum(t.numel() for t in load_file(kept / "adapter_model.safetensors").values()) < parameters
    out = run(study, "killed")
    assert json.loads((out / "heal.json").read_text())["resumed_from_step"] == 5
    files = ("replaced/replaced.safetensors", "training.csv")
    assert [(out / f).read_bytes() for f in files] == [(calm / f).read_bytes() for f in files]


def test_beside_weights_in_bf16_what_trains_is_in_fp32(study):
    out = run(study, "bf16", replace(RECIPE, precision="bf16"))
    stored = load_file(out / "replaced/replaced.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    losses = [float(r["loss"]) for r in csv.DictReader((out / "training.csv").read_text().splitlines())]
    exact = run(study, "exact")
    expected = [float(r["loss"]) for r in csv.DictReader((exact / "training.csv").read_text().splitlines())]
    assert losses == pytest.approx(expected, rel=0.02)
    assert healed_artifact(out).merge(load_model(study / "cut")).dtype == torch.float32


def test_more_layers_than_there_are_are_refused(study):
    with pytest.raises(UserError, match="layers is 4, and the cut has 3; write 3 or less"):
        run(study, "none", replace(RECIPE, layers=4))
    with pytest.raises(UserError, match="precision is nf4, it must be one of fp32, bf16"):
        replace(RECIPE, precision="nf4")
