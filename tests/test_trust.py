"""A model that brings its own Python code: run in every stage once it is trusted, refused before."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.data.tokens import Tokens, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.loss import losses
from deeper_layers.healing.method import HealingFiles
from deeper_layers.healing.training import heal
from deeper_layers.importance.angular import angular_distances
from deeper_layers.models.artifacts import load_healed
from deeper_layers.models.layers import removed
from deeper_layers.models.load import load_model
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.runtime.files import read_json, write_json
from helpers.healing import RECIPE, counting, tiny_llama

CODE = {
    "configuration_own.py": """
from transformers import LlamaConfig

class OwnConfig(LlamaConfig):
    model_type = "own"
""",
    # A Llama whose logits have another sign: transformers' own class would give other numbers.
    "modeling_own.py": """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *args, **named):
        output = super().forward(*args, **named)
        output.logits = -output.logits
        return output
""",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    tiny_llama(layers=4).save_pretrained(folder)
    config = read_json(folder / "config.json")
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    write_json(folder / "config.json", config)
    for name, code in CODE.items():
        (folder / name).write_text(code)
    return folder


def test_it_is_refused_unless_it_is_trusted(own, tmp_path):
    with pytest.raises(UserError, match="asks to run code of its own .*trust_remote_code: true for"):
        adopt_checkpoint(own, "own", tmp_path / "full")
    assert not list((tmp_path / "full").glob("*"))


def test_its_code_runs_in_every_stage(own, tmp_path):
    full, cut, block = tmp_path / "full", tmp_path / "cut", LayerSet.contiguous(1, 2)
    adopt_checkpoint(own, "own", full, trust_remote_code=True)
    verify_checkpoint(full, trust_remote_code=True)
    cut_checkpoint(full, block, cut, trust_remote_code=True)
    verify_checkpoint(cut, full, trust_remote_code=True)
    assert {name for name in CODE} <= read_json(cut / "manifest.json")["files"].keys()

    texts = counting(20, seed=0)
    write_tokens(tmp_path / "train.safetensors", texts)
    documents = Tokens(tmp_path / "train.safetensors").first(20, 16)
    model = load_model(full, trust_remote_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    assert angular_distances(model, documents).samples == 20
    together = losses(CutScorer(model, [FULL, block]), documents, "test")
    alone = losses(CutScorer(load_model(cut, trust_remote_code=True), [FULL]), documents, "test")
    expected = alone[FULL]["results"]["loss"]["loss"]
    assert together[block]["results"]["loss"]["loss"] == pytest.approx(expected, abs=1e-5)

    ids = torch.tensor([texts[0][:8]])
    with removed(model, block), torch.no_grad():
        logits = model(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(cut, trust_remote_code=True)(ids).logits
        torch.testing.assert_close(logits, theirs)

    files = HealingFiles(cut, tmp_path / "train.safetensors", tmp_path / "out", tmp_path / "state")
    heal(files, replace(RECIPE, packing=False), trust_remote_code=True)
    healed = load_healed(cut, tmp_path / "out/adapter", trust_remote_code=True)
    assert type(healed).__name__ == "OwnForCausalLM"
