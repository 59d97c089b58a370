"""Language models inside models that read pictures: cut, healed, measured and written back whole. The
architecture suite runs them with all others; here is what only they have."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.loss import losses
from deeper_layers.export.merge import export
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.layers import decoder_layers, removed
from deeper_layers.models.load import load_model
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import FULL, LayerSet
from helpers.tiny import ARCHITECTURES, IDS, LAYERS, logits, tiny_model

torch.set_num_threads(1)
OWN_CLASS = {
    "llava": "LlavaForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
CUT = LayerSet.parse("drop_1_3-4")
# How tensors are called in the checkpoints of the hub, which transformers renames when it loads them.
ON_THE_HUB = {
    "llava": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."},
    "qwen2_5_vl": {"model.language_model.": "model.", "model.visual.": "visual."},
}
ON_THE_HUB["llava"] |= {"model.vision_tower.": "vision_tower.", "model.multi_modal_": "multi_modal_"}
ON_THE_HUB["mistral3"] = ON_THE_HUB["llava"]


@pytest.fixture(params=[(name, hub) for name in OWN_CLASS for hub in (False, True)], ids=str)
def checkpoint(request, tmp_path):
    """(model type, folder) of a tiny model, its tensors called as transformers or as the hub calls them."""
    name, as_on_the_hub = request.param
    tiny_model(name, **ARCHITECTURES[name]).save_pretrained(tmp_path / "source")
    if as_on_the_hub:
        file = tmp_path / "source/model.safetensors"
        tensors = load_file(file)
        for ours, theirs in ON_THE_HUB[name].items():
            renamed = {n: theirs + n.removeprefix(ours) if n.startswith(ours) else n for n in tensors}
            tensors = {renamed[n]: tensor for n, tensor in tensors.items()}
        save_file(tensors, file, {"format": "pt"})
    adopt_checkpoint(tmp_path / "source", "tiny", tmp_path / "checkpoints/full")
    return name, tmp_path / "checkpoints/full"


def other_tensors(folder) -> dict[str, torch.Tensor]:
    """What is not of the language model."""
    found = load_file(folder / "model.safetensors")
    return {n: t for n, t in found.items() if "vision" in n or "visual" in n or "multi_modal" in n}


def test_a_cut_is_a_whole_model_of_its_own_class(checkpoint, tmp_path):
    name, full = checkpoint
    cut = full.with_name(str(CUT))
    cut_checkpoint(full, CUT, cut)
    verify_checkpoint(cut, full)
    model = getattr(transformers, OWN_CLASS[name]).from_pretrained(cut).eval()
    assert len(decoder_layers(model)) == model.config.text_config.num_hidden_layers == LAYERS - CUT.n
    uncut = load_model(full)
    with removed(uncut, CUT):
        torch.testing.assert_close(logits(model), logits(uncut))
    assert (logits(model) - logits(uncut)).abs().max() > 0.1
    before, after = other_tensors(full), other_tensors(cut)
    assert before and before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_losses_of_cuts_are_those_of_each_by_itself(checkpoint):
    _, full = checkpoint
    model, documents = load_model(full), [row.numpy() for row in IDS]
    scorer = CutScorer(model, [FULL, CUT])
    assert scorer.tree is not None
    found = losses(scorer, documents, "test")
    with removed(model, CUT):
        alone = losses(CutScorer(model, [FULL]), documents, "test")[FULL]
    expected = alone["results"]["loss"]["loss"]
    assert found[CUT]["results"]["loss"]["loss"] == pytest.approx(expected, rel=1e-5)


def test_healing_touches_the_language_model_alone(checkpoint, tmp_path):
    name, full = checkpoint
    cut = full.with_name(str(CUT))
    cut_checkpoint(full, CUT, cut)
    model = add_adapter(load_model(cut), 4, 8, 0.0, ["auto"])
    adapted = {n.split(".lora_")[0] for n, _ in model.named_parameters() if "lora_B" in n}
    assert len(adapted) == 3 * (LAYERS - CUT.n) and all("language_model" in n for n in adapted)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.2)
    save_adapter(model, tmp_path / "adapter", cut, tmp_path / "adapter")
    export(cut, tmp_path / "adapter", tmp_path / "out")
    merged = getattr(transformers, OWN_CLASS[name]).from_pretrained(tmp_path / "out").eval()
    healed = load_healed(cut, tmp_path / "adapter")
    torch.testing.assert_close(logits(merged), logits(healed), rtol=1e-4, atol=1e-4)
    assert (logits(merged) - logits(load_model(cut))).abs().max() > 0.1
    was, now = load_model(cut).state_dict(), merged.state_dict()
    others = [n for n in was if "language_model" not in n and "lm_head" not in n]
    assert others and all(torch.equal(was[n], now[n]) for n in others)


@pytest.mark.parametrize("name", OWN_CLASS)
def test_a_picture_tower_of_as_many_layers_is_not_the_decoder(name, tmp_path):
    case = dict(ARCHITECTURES[name])
    depth = "depth" if "depth" in case["vision_config"] else "num_hidden_layers"
    case["vision_config"] = case["vision_config"] | {depth: LAYERS}
    model = tiny_model(name, **case)
    layers = decoder_layers(model)
    assert "Vision" not in type(layers[0]).__name__ and "CLIP" not in type(layers[0]).__name__
    model.save_pretrained(tmp_path / "source")
    adopt_checkpoint(tmp_path / "source", "tiny", tmp_path / "checkpoints/full")
    cut_checkpoint(tmp_path / "checkpoints/full", CUT, tmp_path / "cut")
    verify_checkpoint(tmp_path / "cut", tmp_path / "checkpoints/full")
    config = json.loads((tmp_path / "cut/config.json").read_text())
    assert config["vision_config"][depth] == LAYERS
    assert config["text_config"]["num_hidden_layers"] == LAYERS - CUT.n
