"""What a healing writes: put on a model, merged into it, refused by another one."""

import pytest
import torch
from safetensors.torch import save_file

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.errors import UserError
from deeper_layers.export.merge import export
from deeper_layers.healing.results import begin_results
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.artifacts import (
    LoraAdapter,
    ReplacedTensors,
    healed_artifact,
    healed_cut,
    load_healed,
    open_artifact,
)
from deeper_layers.models.load import load_model
from deeper_layers.pruning.layer_set import LayerSet
from helpers.tiny import logits, tiny_model

CUT = LayerSet.contiguous(1, 2)
MATRIX = {"llama": "model.layers.0.mlp.down_proj.weight", "gpt2": "transformer.h.0.mlp.c_proj.weight"}
HEAD = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def replaced(request, tmp_path_factory):
    """A cut of a tiny model with tied embeddings, and new values for one matrix and the embeddings."""
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    tiny_model(kind, tie_word_embeddings=True).save_pretrained(folder / "full")
    adopt_checkpoint(folder / "full", "tiny", folder / "checkpoints/full")
    cut_checkpoint(folder / "checkpoints/full", CUT, folder / "cut")
    own = load_model(folder / "cut").state_dict()
    tensors = {MATRIX[kind]: own[MATRIX[kind]] * -2, HEAD[kind]: own[HEAD[kind]].flip(0)}
    ReplacedTensors.write(folder, tensors)
    export(folder / "cut", folder / "replaced", folder / "out")
    return folder, tensors


def test_replaced_tensors_are_those_of_the_model(replaced):
    folder, tensors = replaced
    healed = load_healed(folder / "cut", folder / "replaced")
    assert not healed.training
    by_hand = load_model(folder / "cut")
    by_hand.load_state_dict(tensors, strict=False)
    assert torch.equal(logits(healed), logits(by_hand))
    assert (logits(healed) - logits(load_model(folder / "cut"))).abs().max() > 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_merged_they_give_the_same_numbers(replaced, precision):
    """In 4 bits too: a replaced matrix is quantised as one that is loaded."""
    folder, _ = replaced
    healed, merged = load_healed(folder / "cut", folder / "replaced", precision), folder / "out"
    assert torch.equal(logits(healed), logits(load_model(merged, precision)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_on_the_uncut_model_they_give_the_same_numbers(replaced, tmp_path, precision):
    """As on the checkpoint of the cut, in every bit, and the model is as it was afterwards."""
    folder, _ = replaced
    adapted = add_adapter(load_model(folder / "cut"), 4, 4, 0.0, ["auto"])
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(adapted, tmp_path / "adapter", folder / "cut", tmp_path / "adapter")
    model = load_model(folder / "checkpoints/full", precision)
    before, wanted = describe(model), logits(model)
    for artifact in (folder / "replaced", tmp_path / "adapter", folder / "replaced"):
        with healed_cut(model, CUT, open_artifact(artifact)) as healed:
            assert not healed.training
            found = logits(healed)
        assert torch.equal(found, logits(load_healed(folder / "cut", artifact, precision)))
        assert describe(model) == before and torch.equal(logits(model), wanted)


def describe(model) -> list:
    """The modules of a model and the tensors that they hold."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    modules = [(name, type(module), sorted(vars(module))) for name, module in model.named_modules()]
    return [modules, [(name, id(tensor)) for name, tensor in tensors.items()]]


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda tensors: {"model.layers.9.mlp.down_proj.weight": torch.zeros(1)},
            "has no tensor model.layers.9",
        ),
        (lambda tensors: {name: tensor[:-1] for name, tensor in tensors.items()}, r"is \[\d+, \d+\], not \["),
        (lambda tensors: {}, "replaces nothing"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_tensors_of_another_model_are_refused(replaced, tmp_path, change, said, precision):
    folder, tensors = replaced
    save_file(change(tensors), tmp_path / "replaced.safetensors")
    with pytest.raises(UserError, match=said) as error:
        load_healed(folder / "cut", tmp_path, precision)
    assert "\n" not in str(error.value)


def test_what_another_method_healed_before_is_gone(replaced, tmp_path):
    _, tensors = replaced
    (tmp_path / "adapter").mkdir()
    for name in LoraAdapter.FILES:
        (tmp_path / "adapter" / name).touch()
    begin_results(tmp_path)
    ReplacedTensors.write(tmp_path, tensors)
    assert isinstance(healed_artifact(tmp_path), ReplacedTensors)


def test_an_artifact_is_known_by_its_files_and_hashed_whole(replaced, tmp_path):
    folder, tensors = replaced
    artifact = healed_artifact(folder)
    assert isinstance(artifact, ReplacedTensors) and artifact.folder == folder / "replaced"
    assert MATRIX["llama"] in artifact.describe().settings["tensors"] or "wte" in str(artifact.describe())
    ReplacedTensors.write(tmp_path, tensors)
    assert healed_artifact(tmp_path).digest() == artifact.digest()
    ReplacedTensors.write(tmp_path, {name: tensor * 2 for name, tensor in tensors.items()})
    assert healed_artifact(tmp_path).digest() != artifact.digest()
    for faulty in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="has none of adapter_config.json, replaced.safetensors"):
            open_artifact(faulty)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="has no adapter_model.safetensors"):
        open_artifact(tmp_path / "half")
