"""Checkpoints as other programs and older versions leave them: quantised, with tensors that no class has any
more, with files that are in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.checkpoints.quantised import cut_exceptions
from deeper_layers.checkpoints.vocabulary import embedding_rows
from deeper_layers.data.tokens import NoTokenizer, load_tokenizer
from deeper_layers.errors import UserError
from deeper_layers.export.merge import export
from deeper_layers.importance.angular import angular_distances, streamed_distances
from deeper_layers.models.adapters import add_adapter, save_adapter
from deeper_layers.models.load import load_model
from deeper_layers.models.streaming import Stream
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime.files import read_json, write_json
from helpers.config import ROOT
from helpers.tiny import ARCHITECTURES, IDS, identity_logits, logits, settled, tiny_model

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
BLOCK = LayerSet.parse("drop_2-3")
FP8 = torch.float8_e4m3fn


def saved(folder: Path, name: str, change=lambda tensors: tensors, **differing) -> Path:
    """A tiny model in one file, its tensors as ``change`` gives them back."""
    tiny_model(name, **differing).save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder


def edit_config(folder: Path, **changes) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)


def tokenizer(folder: Path, *words: str, added: tuple[str, ...] = ()) -> None:
    """Write a tokenizer of these words, whose ids begin at 1, into ``folder``."""
    ids = {word: i for i, word in enumerate(["[UNK]", *words])}
    backend = Tokenizer(models.WordLevel(ids, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    fast.add_tokens(list(added))
    fast.save_pretrained(folder)


def adopted(source: Path, reshard: bool = False) -> Path:
    full = source.parent / f"{source.name}-full"
    adopt_checkpoint(source, "tiny", full, reshard=reshard)
    verify_checkpoint(full)
    return full


def assert_cuts_exactly(full: Path) -> Path:
    """The cut of an adopted model is the model whose layers do nothing; its folder."""
    cut_checkpoint(full, BLOCK, full.parent / "cut")
    verify_checkpoint(full.parent / "cut", full)
    wanted = identity_logits(settled(load_model(full)), BLOCK)
    assert torch.equal(logits(settled(load_model(full.parent / "cut"))), wanted)
    return full.parent / "cut"


# Quantised


def fp8(tensors: dict) -> dict:
    """Linear weights as 8-bit floats, with one scale for the whole matrix."""
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith("proj.weight"):
            found[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        found[name] = (tensor / scale).to(FP8)
        found[f"{name}_scale_inv"] = scale.reshape(1, 1)
    return found


FP8_CONFIG = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head", "model.layers.3.mlp.gate", "model.layers.5", "model.layers.15.mlp"],
}


@pytest.fixture
def in_fp8(tmp_path):
    folder = saved(tmp_path / "fp8", "llama", fp8)
    edit_config(folder, quantization_config=FP8_CONFIG | {"modules_to_not_convert": ["lm_head"]})
    return folder


def test_weights_in_fp8_are_cut_as_they_are_and_loaded_as_numbers(in_fp8, tmp_path):
    full = adopted(in_fp8)
    cut = assert_cuts_exactly(full)
    stored = load_file(cut / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    assert stored[name].dtype == FP8
    weight = load_model(cut).get_parameter(name)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, stored[name].float() * stored[f"{name}_scale_inv"])
    assert load_model(cut, "bf16").get_parameter(name).dtype == torch.bfloat16


def test_weights_in_fp8_are_healed_and_exported_as_numbers(in_fp8, tmp_path):
    full = adopted(in_fp8)
    cut_checkpoint(full, BLOCK, tmp_path / "cut")
    model = add_adapter(load_model(tmp_path / "cut"), rank=2, alpha=2, dropout=0, targets=["up_proj"])
    model(IDS, labels=IDS).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert any(p.grad.norm() > 0 for p in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.1
    save_adapter(model, tmp_path / "adapter", tmp_path / "cut", tmp_path / "adapter")
    export(tmp_path / "cut", tmp_path / "adapter", tmp_path / "out")
    assert "quantization_config" not in read_json(tmp_path / "out/config.json")
    torch.testing.assert_close(logits(load_model(tmp_path / "out")), logits(model), rtol=1e-3, atol=1e-3)
    export(tmp_path / "cut", None, tmp_path / "unhealed")
    assert read_json(tmp_path / "unhealed/config.json")["quantization_config"]["quant_method"] == "fp8"


def test_what_weights_in_fp8_cannot_do_is_one_line(in_fp8):
    with pytest.raises(UserError, match=r"quantised already \(FP8\) and is loaded as bf16 or fp32; write"):
        load_model(in_fp8, "nf4")
    with pytest.raises(UserError, match=r"quantised already \(FP8\) .* only as a whole; set stream to false"):
        Stream(in_fp8)


def test_exceptions_from_quantising_move_with_their_layers():
    place = {old: new for new, old in enumerate(BLOCK.kept(16))}
    cut = cut_exceptions({"quantization_config": FP8_CONFIG, "x": 1}, "layers", place)
    assert cut == {
        "x": 1,
        "quantization_config": FP8_CONFIG
        | {"modules_to_not_convert": ["lm_head", "model.layers.3", "model.layers.13.mlp"]},
    }


def mxfp4(tensors: dict) -> dict:
    """The experts of GPT-OSS as the hub has them: two 4-bit floats a byte, a scale for every 32."""
    torch.manual_seed(0)
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            found[name] = tensor
            continue
        experts, width, out = tensor.shape
        found[f"{name}_blocks"] = torch.randint(0, 256, (experts, out, width // 32, 16), dtype=torch.uint8)
        found[f"{name}_scales"] = torch.full((experts, out, width // 32), 125, dtype=torch.uint8)
    return found


def test_experts_in_mxfp4_are_cut_as_they_are_and_loaded_as_numbers(tmp_path):
    folder = saved(tmp_path / "oss", "gpt_oss", mxfp4, hidden_size=64, intermediate_size=64)
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    edit_config(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": skipped})
    full = adopted(folder)
    cut = assert_cuts_exactly(full)
    assert (
        load_file(cut / "model.safetensors")["model.layers.2.mlp.experts.down_proj_blocks"].dtype
        == torch.uint8
    )
    assert read_json(cut / "config.json")["quantization_config"]["modules_to_not_convert"] == skipped
    with pytest.raises(UserError, match=r"quantised already \(MXFP4\)"):
        load_model(cut, "nf4")


@pytest.mark.parametrize(
    "said, name",
    [
        ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, "bitsandbytes, 4 bits"),
        ({"load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "newest"}, "newest"),
    ],
)
def test_a_checkpoint_that_is_quantised_otherwise_is_refused_with_what_to_give(said, name, tmp_path):
    folder = saved(tmp_path / "quantised", "llama")
    edit_config(folder, quantization_config=said)
    (folder / "README.md").write_text(
        "---\nlicense: mit\nbase_model:\n- us/whole\n---\nbase_model: no/this\n"
    )
    with pytest.raises(UserError) as error:
        adopt_checkpoint(folder, "tiny", tmp_path / "full")
    assert f"quantised already ({name})" in str(error.value)
    assert "give the model that it was made from, us/whole, and let precision: nf4" in str(error.value)
    assert not (tmp_path / "full").exists()
    with pytest.raises(UserError, match="quantised already"):
        load_model(folder)


def test_quantising_that_config_json_is_silent_about_is_found(tmp_path):
    folder = saved(tmp_path / "gptq", "llama")
    write_json(folder / "quantize_config.json", {"bits": 4})
    with pytest.raises(UserError, match=r"\(GPTQ, says quantize_config.json\)"):
        adopt_checkpoint(folder, "tiny", tmp_path / "full")
    packed = {"model.layers.0.mlp.up_proj.qweight": torch.zeros(4, 4, dtype=torch.int32)}
    folder = saved(tmp_path / "silent", "llama", lambda tensors: tensors | packed)
    with pytest.raises(UserError, match=r"\(it holds model.layers.0.mlp.up_proj.qweight\)"):
        adopt_checkpoint(folder, "tiny", tmp_path / "full")


# Leftovers of older versions

MASK = torch.ones(1, 1, 64, 64, dtype=torch.bool)
LEFTOVERS = {
    "gpt2": {
        "transformer.h.{}.attn.bias": MASK.float(),
        "transformer.h.{}.attn.masked_bias": torch.tensor(-1e4),
    },
    "gpt_neo": {"transformer.h.{}.attn.attention.bias": MASK},
    "gptj": {"transformer.h.{}.attn.bias": MASK, "transformer.h.{}.attn.masked_bias": torch.tensor(-1e9)},
    "gpt_neox": {
        "gpt_neox.layers.{}.attention.bias": MASK,
        "gpt_neox.layers.{}.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.{}.attention.rotary_emb.inv_freq": torch.ones(4),
    },
    "codegen": {
        "transformer.h.{}.attn.causal_mask": MASK,
        "transformer.h.{}.attn.scale_attn": torch.tensor(3.0),
    },
    "llama": {"model.layers.{}.self_attn.rotary_emb.inv_freq": torch.ones(4)},
    "openai-gpt": {"transformer.h.{}.attn.bias": MASK.float(), "position_ids": torch.arange(64)},
    "falcon": {"transformer.h.{}.self_attention.maybe_rotary.inv_freq": torch.ones(4)},
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_masks_and_tables_of_older_versions_are_let_through_and_left_behind(name, tmp_path):
    old = {pattern.format(i): t.clone() for pattern, t in LEFTOVERS[name].items() for i in range(6)}
    case = ARCHITECTURES[name]
    plain = saved(tmp_path / "plain", name, **case)
    folder = saved(tmp_path / "old", name, lambda tensors: tensors | old, **case)
    if name == "gpt2":  # as the hub has it
        path = folder / "model.safetensors"
        save_file(
            {k.removeprefix("transformer."): v for k, v in load_file(path).items()}, path, {"format": "pt"}
        )
    full = adopted(folder)
    sizes = [read_json(f / "manifest.json") for f in (full, adopted(plain))]
    for what in ("parameters", "bytes", "layers"):
        assert sizes[0][what] == sizes[1][what]
    assert torch.equal(logits(settled(load_model(full))), logits(settled(load_model(plain))))
    cut = assert_cuts_exactly(full)
    cut_checkpoint(plain, BLOCK, tmp_path / "plain cut")
    wanted = {k.removeprefix("transformer.") for k in load_file(tmp_path / "plain cut/model.safetensors")}
    assert {k.removeprefix("transformer.") for k in load_file(cut / "model.safetensors")} == wanted
    documents = [IDS[0, :length].numpy() for length in (5, 12)]
    streamed = streamed_distances(Stream(full), documents, batch_tokens=24).mean
    whole = angular_distances(settled(load_model(full)), documents, batch_tokens=24).mean
    torch.testing.assert_close(streamed, whole, rtol=0, atol=2e-4)
    adopt_checkpoint(folder, "tiny", tmp_path / "by layer", reshard=True)
    verify_checkpoint(tmp_path / "by layer")
    by_layer = [k for path in (tmp_path / "by layer").glob("*.safetensors") for k in load_file(path)]
    assert len(by_layer) == len(load_file(plain / "model.safetensors"))


def test_a_tensor_that_is_no_leftover_is_still_refused(tmp_path):
    for name, tensor in {
        "model.layers.1.self_attn.bias": torch.ones(32),  # a vector is no mask
        "model.layers.1.self_attn.extra.weight": torch.ones(4),
    }.items():
        folder = saved(tmp_path / name, "llama", lambda tensors, n=name, t=tensor: tensors | {n: t})
        adopt_checkpoint(folder, "tiny", tmp_path / "full")
        with pytest.raises(UserError, match=f"1 tensors are unexpected, first {name}"):
            verify_checkpoint(tmp_path / "full")
        with pytest.raises(UserError, match="unexpected keys when loading"):
            load_model(folder)


# Files


def in_shards(folder: Path) -> Path:
    tiny_model("llama").save_pretrained(folder, max_shard_size="40kB")
    return folder


@pytest.mark.parametrize("metadata", [None, "absent"])
def test_an_index_without_metadata_is_completed(metadata, tmp_path):
    path = in_shards(tmp_path / "shards") / "model.safetensors.index.json"
    index = read_json(path)
    wanted = index.pop("metadata")["total_size"]
    write_json(path, index if metadata == "absent" else index | {"metadata": None})
    full = adopted(tmp_path / "shards")
    made = read_json(full / "model.safetensors.index.json")
    assert made == index | {"metadata": {"total_size": wanted}}
    assert "metadata" not in read_json(path) or read_json(path)["metadata"] is None
    assert_cuts_exactly(full)
    adopted(tmp_path / "shards", reshard=True)


def test_an_adapter_beside_the_weights_is_left_out_and_named(tmp_path, capsys):
    folder = saved(tmp_path / "merged", "llama")
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "us/base"})
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    full = adopted(folder)
    assert "left out: adapter_config.json, adapter_model.safetensors." in capsys.readouterr().out
    assert not list(full.glob("adapter*"))
    cut = assert_cuts_exactly(full)
    assert not list(cut.glob("adapter*"))
    cut_checkpoint(folder, BLOCK, tmp_path / "straight")  # a cut needs no adopting
    assert not list((tmp_path / "straight").glob("adapter*"))


def test_whatever_else_lies_beside_the_weights_does_no_harm(tmp_path):
    folder = saved(tmp_path / "crowded", "llama")
    for name in ("consolidated.safetensors", "original/params.json", "optimizer.pt", "training_args.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    stale = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00009.safetensors"}}
    write_json(folder / "model.safetensors.index.json", stale)  # of a version in shards
    (folder / "generation_config.json").unlink()
    edit_config(folder, architectures=None)
    full = adopted(folder)
    held = {path.name for path in full.iterdir()}
    assert held == {"config.json", "model.safetensors", "manifest.json"}
    assert_cuts_exactly(full)


@pytest.mark.parametrize("stored", [True, False])
def test_a_head_that_is_the_embedding_may_be_stored_or_not(stored, tmp_path):
    def change(tensors):
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()} if stored else {}
        return {k: v for k, v in tensors.items() if k != "lm_head.weight"} | head

    folder = saved(tmp_path / "tied", "llama", change, tie_word_embeddings=True)
    full = adopted(folder)
    assert_cuts_exactly(full)
    documents = [IDS[0, :length].numpy() for length in (5, 12)]
    streamed = streamed_distances(Stream(full), documents, batch_tokens=24).mean
    whole = angular_distances(settled(load_model(full)), documents, batch_tokens=24).mean
    torch.testing.assert_close(streamed, whole, rtol=0, atol=2e-4)


def test_a_head_that_is_missing_is_named(tmp_path):
    folder = saved(
        tmp_path / "headless", "llama", lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}
    )
    adopt_checkpoint(folder, "tiny", tmp_path / "full")
    with pytest.raises(UserError, match="1 tensors are missing, first lm_head.weight"):
        verify_checkpoint(tmp_path / "full")


def test_a_checkpoint_of_links_is_adopted_and_cut(tmp_path):
    """As the hub's cache is: each file a link to one that has no suffix."""
    folder, blobs = saved(tmp_path / "plain", "llama"), tmp_path / "blobs"
    blobs.mkdir()
    (tmp_path / "snapshot").mkdir()
    for i, path in enumerate(sorted(folder.iterdir())):
        shutil.move(path, blobs / f"{i:064x}")
        (tmp_path / "snapshot" / path.name).symlink_to(blobs / f"{i:064x}")
    assert_cuts_exactly(adopted(tmp_path / "snapshot"))


@pytest.mark.parametrize(
    "config, said",
    [
        (
            {"model_type": "t5", "is_encoder_decoder": True},
            "model type 't5' has an encoder; only decoder-only",
        ),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, which is no causal"),
        ({"model_type": "bert", "architectures": None}, "says bert, which is no causal language model"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification, which is no",
        ),
    ],
)
def test_a_model_that_writes_no_text_is_refused(config, said, tmp_path):
    folder = saved(tmp_path / "other", "llama")
    edit_config(folder, **config)
    with pytest.raises(UserError) as error:
        adopt_checkpoint(folder, "tiny", tmp_path / "full")
    assert said in str(error.value) and "\n" not in str(error.value)


# Tokenizers


def test_tokens_beyond_the_embedding_are_refused_with_the_remedy(tmp_path):
    folder = saved(tmp_path / "small", "llama")  # 64 rows
    tokenizer(folder, *(f"w{i}" for i in range(63)))
    assert len(load_tokenizer(folder)) == 64
    tokenizer(folder, *(f"w{i}" for i in range(63)), added=("<pad>", "<end>"))
    with pytest.raises(UserError) as error:
        load_tokenizer(folder)
    assert (
        "ids up to 65, but the embedding has rows only for 0 to 63: there is none for '<pad>', ...;"
        in str(error.value)
    )
    assert "model.resize_token_embeddings(66)" in str(error.value)
    # More rows than config.json says are rows nonetheless, and fewer than it says are no checkpoint.
    more = {"model.embed_tokens.weight": torch.zeros(66, 32), "lm_head.weight": torch.zeros(66, 32)}
    path = folder / "model.safetensors"
    save_file(load_file(path) | more, path, {"format": "pt"})
    assert len(load_tokenizer(folder)) == 66


def test_the_rows_of_an_embedding_are_found_in_shards_and_in_parts_of_a_model(tmp_path):
    assert embedding_rows(in_shards(tmp_path / "shards")) == 64
    config = read_json(tmp_path / "shards/config.json") | {"vocab_size": 32}
    write_json(tmp_path / "shards/config.json", config)
    assert embedding_rows(tmp_path / "shards") == 64  # the weights are right
    for path in (tmp_path / "shards").glob("model*"):
        path.unlink()
    assert embedding_rows(tmp_path / "shards") == 32
    write_json(tmp_path / "shards/config.json", {"text_config": config})
    assert embedding_rows(tmp_path / "shards") == 32
    assert embedding_rows(tmp_path) is None


def test_programs_refuse_tokens_beyond_the_embedding(tmp_path):
    folder = saved(tmp_path / "small", "llama")
    tokenizer(folder, *(f"w{i}" for i in range(63)), added=("<pad>",))
    (tmp_path / "text.jsonl").write_text('{"text": "w1 w2"}\n')
    out = ["--out", tmp_path / "out"]
    for words in (
        ["adopt", "--source", folder, "--model", "x", *out],
        ["tokenise", "--checkpoint", folder, "--text", tmp_path / "text.jsonl", *out],
    ):
        program = ROOT / f"scripts/{words[0]}.py"
        done = subprocess.run([sys.executable, program, *words[1:]], capture_output=True, text=True)
        assert done.returncode == 1 and not (tmp_path / "out").exists()
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {folder}: the tokenizer has ids up to 64, but the embedding has rows")


def test_a_missing_tokenizer_is_one_line(tmp_path):
    folder = saved(tmp_path / "dumb", "llama")
    with pytest.raises(
        NoTokenizer, match="has no tokenizer that transformers reads .*; put the tokenizer.json"
    ):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(NoTokenizer):
        load_tokenizer(folder)
