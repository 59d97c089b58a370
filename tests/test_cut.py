"""Checkpoints on disk: cut exactly, whole or absent, and every bad input one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deeper_layers.checkpoints import decoder_config as configs
from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.cut import cut_checkpoint
from deeper_layers.errors import UserError
from deeper_layers.models.layers import check_kept, decoder_layers, ffn_modules, removed
from deeper_layers.models.load import load_model
from deeper_layers.models.verify import verify_checkpoint, verify_cuts
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.runtime.files import read_json, write_json
from helpers.config import ROOT
from helpers.tiny import identity_logits, logits, settled, tiny_config, tiny_model

transformers.logging.set_verbosity_error()
BLOCK = LayerSet.parse("drop_2-3")
LAYERS = 6


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Llama in one file, with a tokenizer and a config.json in the words of the hub."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    raw = read_json(folder / "config.json")
    raw |= {"rope_theta": 5000.0, "torch_dtype": "float32", "of_another_program": [1, 2]}
    del raw["rope_parameters"], raw["dtype"]
    write_json(folder / "config.json", raw)
    (folder / "LICENSE.txt").write_text("as you like")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture(scope="module")
def sharded(base, tmp_path_factory):
    """The same in shards of 40 kB, as save_pretrained splits it."""
    folder = tmp_path_factory.mktemp("sharded")
    shutil.copytree(base, folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    load_model(base).save_pretrained(folder, max_shard_size="40kB")
    shutil.copy(base / "config.json", folder)
    return folder


@pytest.fixture
def copy(base, tmp_path):
    """A copy of the single-file checkpoint, to be damaged."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture
def shards(sharded, tmp_path):
    """A copy of the sharded checkpoint, to be damaged."""
    return Path(shutil.copytree(sharded, tmp_path / "shards"))


def edit_json(path: Path, **changes) -> None:
    write_json(path, read_json(path) | changes)


def assert_whole(folder: Path) -> dict:
    """Every file of a checkpoint is in its manifest with its true hash, and none else is there."""
    manifest = read_json(folder / "manifest.json")
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return manifest


# Cutting


@pytest.mark.parametrize("layout", ["base", "sharded", "by layer"])
@pytest.mark.parametrize("name", ["drop_0-0", "drop_2-3", "drop_1-5", "drop_5-5", "full"])
def test_cut_equals_the_original_with_idle_layers(layout, name, base, sharded, tmp_path):
    source, block = {"base": base}.get(layout, sharded), LayerSet.parse(name)
    if layout == "by layer":
        cut_checkpoint(source, FULL, tmp_path / "by layer", reshard=True)
        source = tmp_path / "by layer"
    cut_checkpoint(source, block, tmp_path / "cut")
    verify_checkpoint(tmp_path / "cut", source)
    assert torch.equal(
        logits(settled(load_model(tmp_path / "cut"))), identity_logits(load_model(base), block)
    )
    assert_whole(tmp_path / "cut")
    weights = {k: v for p in (tmp_path / "cut").glob("*.safetensors") for k, v in load_file(p).items()}
    original = load_file(base / "model.safetensors")
    assert len(weights) == len(original) - 9 * block.n
    assert torch.equal(weights["model.norm.weight"], original["model.norm.weight"])


def test_all_but_the_layer_count_stays(base, tmp_path):
    cut_checkpoint(base, BLOCK, tmp_path / "cut")
    assert read_json(tmp_path / "cut/config.json") == read_json(base / "config.json") | {
        "num_hidden_layers": 4
    }
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE.txt"):
        assert (tmp_path / "cut" / name).read_bytes() == (base / name).read_bytes()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "cut")("b a")["input_ids"] == [2, 1]
    assert not list((tmp_path / "cut").glob("*.py")) + list((tmp_path / "cut").glob("*.bin"))


def test_manifest_of_the_full_model_gives_the_sizes_of_every_cut(sharded, tmp_path):
    adopt_checkpoint(sharded, "tiny", tmp_path / "full")
    cut_checkpoint(tmp_path / "full", BLOCK, tmp_path / "cut")
    full, cut = assert_whole(tmp_path / "full"), assert_whole(tmp_path / "cut")
    assert (full["block"], full["n_layers"], full["parent"]) == ("full", LAYERS, None)
    assert (cut["block"], cut["n_layers"], cut["model"]) == ("drop_2-3", 4, "tiny")
    assert cut["parent"] == hashlib.sha256((tmp_path / "full/manifest.json").read_bytes()).hexdigest()
    assert full["source"] == cut["source"] == {"kind": "folder", "id": str(sharded), "revision": None}
    for what in ("parameters", "bytes"):
        assert cut[what] == full[what] - sum(full["layers"][i][what] for i in (2, 3))
        assert cut["layers"] == [full["layers"][i] for i in (0, 1, 4, 5)]
    model = load_model(sharded)
    assert full["parameters"] == sum(p.numel() for p in model.parameters())
    assert full["layers"][0]["parameters"] == sum(p.numel() for p in decoder_layers(model)[0].parameters())
    assert full["bytes"] == 4 * full["parameters"]


def test_same_input_same_bytes(sharded, tmp_path):
    for name in ("a", "b"):
        cut_checkpoint(sharded, BLOCK, tmp_path / name)
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_shards_before_the_block_are_linked(base, tmp_path):
    cut_checkpoint(base, FULL, tmp_path / "full", reshard=True)
    cut_checkpoint(tmp_path / "full", BLOCK, tmp_path / "cut")
    linked = {
        path.name for path in (tmp_path / "cut").glob("*.safetensors") if path.stat().st_nlink == 2
    }  # the first file holds what is no layer, layer i is file i + 2
    assert linked == {f"model-0000{i}-of-00007.safetensors" for i in (1, 2, 3)}


def test_a_base_adopted_by_layer_is_the_same_model_and_its_cuts_link(base, sharded, tmp_path):
    for source in (base, sharded):
        adopt_checkpoint(source, "tiny", tmp_path / "linked")
        adopt_checkpoint(source, "tiny", tmp_path / "full", reshard=True)
        verify_checkpoint(tmp_path / "full")
        linked, written = assert_whole(tmp_path / "linked"), assert_whole(tmp_path / "full")
        for what in ("model", "block", "source", "parameters", "bytes", "layers"):
            assert written[what] == linked[what]
        assert torch.equal(logits(settled(load_model(tmp_path / "full"))), logits(settled(load_model(base))))
        cut_checkpoint(tmp_path / "full", BLOCK, tmp_path / "cut")
        assert_whole(tmp_path / "cut")
        shards = list((tmp_path / "cut").glob("*.safetensors"))
        assert len(shards) == 5 and sum(path.stat().st_nlink == 2 for path in shards) == 3


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system")
def test_shards_are_copied_to_another_file_system(sharded, tmp_path):
    cut_checkpoint(sharded, BLOCK, tmp_path / "here")
    there = Path("/dev/shm") / f"deeper-layers-{os.getpid()}"
    try:
        cut_checkpoint(sharded, BLOCK, there)
        assert (there / "manifest.json").read_bytes() == (tmp_path / "here/manifest.json").read_bytes()
        assert {p.stat().st_nlink for p in there.iterdir()} == {1}
        assert_whole(there)
    finally:
        shutil.rmtree(there, ignore_errors=True)


def test_an_older_checkpoint_in_the_target_goes(base, sharded, tmp_path):
    cut_checkpoint(base, BLOCK, tmp_path / "cut")
    (tmp_path / "cut/.model.safetensors.77.tmp").write_text("of a killed writer")
    cut_checkpoint(sharded, BLOCK, tmp_path / "cut")
    assert not (tmp_path / "cut/model.safetensors").exists()
    assert_whole(tmp_path / "cut")


def test_names_without_prefix(tmp_path):
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "gpt2")
    path = tmp_path / "gpt2/model.safetensors"
    save_file({k.removeprefix("transformer."): v for k, v in load_file(path).items()}, path, {"format": "pt"})
    edit_json(tmp_path / "gpt2/config.json", n_ctx=64)
    cut_checkpoint(tmp_path / "gpt2", BLOCK, tmp_path / "cut")
    verify_checkpoint(tmp_path / "cut", tmp_path / "gpt2")
    assert "h.3.ln_1.weight" in load_file(tmp_path / "cut/model.safetensors")
    assert torch.equal(
        logits(settled(load_model(tmp_path / "cut"))),
        identity_logits(settled(load_model(tmp_path / "gpt2")), BLOCK),
    )
    raw = read_json(tmp_path / "cut/config.json")
    assert raw["n_layer"] == 4 and "num_hidden_layers" not in raw


def test_layers_for_multi_token_prediction_are_left_behind(tmp_path):
    model = tiny_model("deepseek_v3", num_key_value_heads=4, first_k_dense_replace=3)
    model.save_pretrained(tmp_path / "base")
    path = tmp_path / "base/model.safetensors"
    extra = {
        "model.layers.6.eh_proj.weight": torch.zeros(32, 64),
        "model.layers.6.enorm.weight": torch.zeros(32),
    }
    cut_checkpoint(tmp_path / "base", BLOCK, tmp_path / "without")
    save_file(load_file(path) | extra, path, {"format": "pt"})
    cut_checkpoint(tmp_path / "base", BLOCK, tmp_path / "cut")
    verify_checkpoint(tmp_path / "base")
    verify_checkpoint(tmp_path / "cut", tmp_path / "base")
    load_model(tmp_path / "base")
    assert (
        load_file(tmp_path / "cut/model.safetensors").keys()
        == load_file(tmp_path / "without/model.safetensors").keys()
    )
    adopt_checkpoint(tmp_path / "base", "base", tmp_path / "full")
    parameters = [
        read_json(tmp_path / f"{n}/manifest.json")["parameters"] for n in ("full", "cut", "without")
    ]
    assert (
        parameters[1] == parameters[2] < parameters[0] == sum(t.numel() for t in model.state_dict().values())
    )


def test_weights_for_multi_token_prediction_under_a_name_of_their_own_do_no_harm(tmp_path):
    tiny_model("qwen3_next", layer_types=["linear_attention", "full_attention"] * 3).save_pretrained(
        tmp_path / "base"
    )
    path = tmp_path / "base/model.safetensors"
    extra = {"mtp.layers.0.mlp.up_proj.weight": torch.zeros(8, 8), "mtp.fc.weight": torch.zeros(8, 16)}
    save_file(load_file(path) | extra, path, {"format": "pt"})
    cut_checkpoint(tmp_path / "base", BLOCK, tmp_path / "cut")
    for folder in ("base", "cut"):
        verify_checkpoint(tmp_path / folder)
        assert len(decoder_layers(load_model(tmp_path / folder))) == (6 if folder == "base" else 4)


def test_lists_in_the_file_keep_their_own_words(tmp_path):
    model = tiny_model("granitemoehybrid", layer_types=["mamba", "attention"] * 3, mamba_expand=2)
    model.save_pretrained(tmp_path / "base")
    edit_json(tmp_path / "base/config.json", layer_types=["mamba", "attention"] * 3)
    cut_checkpoint(tmp_path / "base", BLOCK, tmp_path / "cut")
    assert read_json(tmp_path / "cut/config.json")["layer_types"] == ["mamba", "attention"] * 2
    edit_json(tmp_path / "base/config.json", model_type="qwen2", use_sliding_window=True, max_window_layers=3)
    config = tiny_config("qwen2", use_sliding_window=True, max_window_layers=3)
    raw = {"model_type": "qwen2", "num_hidden_layers": 6, "use_sliding_window": True, "max_window_layers": 3}
    cut = configs.cut_json(raw, configs.Decoder.of(config), BLOCK)  # written out though the file has none
    assert cut["layer_types"] == ["full_attention"] * 2 + ["sliding_attention"] * 2
    assert (cut["max_window_layers"], cut["num_hidden_layers"]) == (2, 4)


def run_cut(source: Path, target: Path, then: str) -> subprocess.CompletedProcess:
    """Run scripts/cut.py for BLOCK and, in its process, the code ``then``."""
    program = ROOT / "scripts/cut.py"
    arguments = ["cut.py", "--checkpoint", source, "--block", BLOCK, "--out", target]
    code = f"""
import runpy, sys
sys.path.insert(0, {str(program.parent)!r})
sys.argv = {[str(a) for a in arguments]}
runpy.run_path({str(program)!r}, run_name="__main__")
{then}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_program_needs_no_torch_and_little_memory(tmp_path):
    source = tmp_path / "big"
    source.mkdir()
    config = tiny_config("llama", vocab_size=400_000, tie_word_embeddings=True)
    config.save_pretrained(source)
    with torch.device("meta"):
        shapes = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    header, end = {}, 0
    for name, tensor in shapes.items():
        if name != "lm_head.weight":
            start, end = end, end + 8 * tensor.numel()
            header[name] = {"dtype": "F64", "shape": list(tensor.shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    with open(source / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    assert end > 100e6
    done = run_cut(
        source,
        tmp_path / "cut",
        'assert not sys.modules["torch"]\n'
        'print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))',
    )
    assert int(done.stdout) < 100_000  # kB
    assert done.stderr == ""
    assert_whole(tmp_path / "cut")


def test_what_a_manifest_says_of_a_config_is_enough_while_the_config_stays(base, tmp_path):
    full = tmp_path / "full"
    adopt_checkpoint(base, "tiny", full)
    run_cut(full, tmp_path / "cut", 'assert "transformers" not in sys.modules')
    verify_checkpoint(tmp_path / "cut", full)
    config = read_json(full / "config.json")
    (full / "config.json").unlink()  # a link to the one in base
    write_json(full / "config.json", config | {"num_hidden_layers": 5})
    with pytest.raises(UserError, match="config.json says 5 layers, but the weights hold 6"):
        cut_checkpoint(full, BLOCK, tmp_path / "cut")


def test_verify_refuses_a_config_that_reads_back_as_another(base, tmp_path):
    cut_checkpoint(base, BLOCK, tmp_path / "cut")
    verify_checkpoint(tmp_path / "cut", base)
    edit_json(tmp_path / "cut/config.json", rms_norm_eps=0.5)
    with pytest.raises(UserError, match="fewer layers: rms_norm_eps would come back changed"):
        verify_checkpoint(tmp_path / "cut", base)


def test_cuts_are_checked_before_any_is_written(base, tmp_path, monkeypatch):
    adopt_checkpoint(base, "tiny", tmp_path / "full")
    blocks = [LayerSet.parse(name) for name in ("full", "drop_1-2", "drop_0_3-4")]
    verify_cuts(tmp_path / "full", blocks)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    with pytest.raises(UserError, match="6 layers"):
        verify_cuts(tmp_path / "full", [LayerSet.parse("drop_5-6")])
    # A config that would come back as another one, and a layer that would become another one.
    right = configs.cut_json
    with monkeypatch.context() as patch:
        patch.setattr(configs, "cut_json", lambda *args: right(*args) | {"rms_norm_eps": 0.5})
        with pytest.raises(UserError, match="fewer layers: rms_norm_eps would come back changed"):
            verify_cuts(tmp_path / "full", blocks)
    tiny_model("gpt_neox_japanese").save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="drop_4-5 cannot be removed .*layer 3 would change .*bias"):
        verify_cuts(tmp_path / "other", [LayerSet.parse("drop_1-2"), LayerSet.parse("drop_4-5")])


# In memory


def test_removed_is_undone_when_the_body_fails(base):
    model = load_model(base)
    before, layers, config = logits(model), decoder_layers(model), model.config
    with pytest.raises(ZeroDivisionError), removed(model, BLOCK):
        assert len(decoder_layers(model)) == model.config.num_hidden_layers == 4
        assert [layer.self_attn.layer_idx for layer in decoder_layers(model)] == [0, 1, 2, 3]
        raise ZeroDivisionError
    assert decoder_layers(model) is layers and model.config is config
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(6))
    assert torch.equal(logits(model), before)


def test_meta_comparison_refuses_a_layer_that_would_change():
    config = tiny_config("gpt_neox_japanese")
    check_kept(config, LayerSet.parse("drop_1-2"))
    with pytest.raises(UserError, match="layer 3 would change .*bias"):
        check_kept(config, LayerSet.parse("drop_4-5"))  # the last layer alone has a bias


def test_hybrid_keeps_attention():
    config = tiny_config("qwen3_next", layer_types=["linear_attention"] * 3 + ["full_attention"] * 3)
    configs.cut_config(config, LayerSet.parse("drop_3-4"))
    with pytest.raises(UserError, match="every attention layer .* remove fewer"):
        configs.cut_config(config, LayerSet.parse("drop_3-5"))


def test_ffn_modules_names_what_there_is():
    assert ffn_modules(tiny_model("llama")) == ["gate_proj", "up_proj", "down_proj"]
    assert ffn_modules(tiny_model("gpt2")) == ["c_fc", "mlp.c_proj"]
    with pytest.raises(
        UserError, match="type 'mamba'; name the LoRA targets yourself, from: mixer.in_proj, "
    ):
        ffn_modules(tiny_model("mamba"))


# Adopting


def test_adopt_links_and_leaves_code_and_pickles_behind(base, tmp_path):
    adopt_checkpoint(base, "tiny", tmp_path / "full")
    manifest = assert_whole(tmp_path / "full")
    assert all((tmp_path / "full" / name).resolve() == base / name for name in manifest["files"])
    assert "modeling_evil.py" not in manifest["files"] and "pytorch_model.bin" not in manifest["files"]
    verify_checkpoint(tmp_path / "full")
    adopt_checkpoint(base, "tiny", tmp_path / "full")  # again, over itself
    assert_whole(tmp_path / "full")
    assert (base / "model.safetensors").exists()


def test_adopt_takes_the_hash_of_a_hub_blob_from_its_name(base, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, blob in (("model.safetensors", "f" * 64), ("config.json", "a" * 40)):
        shutil.copy(base / name, blobs / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    origin = {"kind": "hub", "id": "someone/tiny", "revision": "0123"}
    adopt_checkpoint(snapshot, "tiny", tmp_path / "full", origin)
    manifest = read_json(tmp_path / "full/manifest.json")
    assert manifest["source"] == origin
    assert manifest["files"]["model.safetensors"]["sha256"] == "f" * 64  # not read: it is not the true one
    assert (
        manifest["files"]["config.json"]["sha256"]
        == hashlib.sha256((base / "config.json").read_bytes()).hexdigest()
    )
    cut_checkpoint(tmp_path / "full", BLOCK, tmp_path / "cut")
    assert assert_whole(tmp_path / "cut")["source"] == origin


# Bad input: (what is done to a copy of the checkpoint, what the error says)


def damage(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_weights(folder: Path) -> None:
    only_pickle(folder)
    (folder / "pytorch_model.bin").unlink()


def first_shard(folder: Path) -> Path:
    return min(folder.glob("model-*.safetensors"))


def rename_shard(folder: Path, name: str) -> None:
    """Let the index call the first shard ``name``."""
    index = folder / "model.safetensors.index.json"
    weight_map = read_json(index)["weight_map"]
    old = first_shard(folder).name
    edit_json(index, weight_map={k: name if v == old else v for k, v in weight_map.items()})


SINGLE_FAULTS = {
    "there is no folder": shutil.rmtree,
    "config.json cannot be read: No such file": lambda f: (f / "config.json").unlink(),
    "config.json is not JSON": lambda f: (f / "config.json").write_text("{nonsense"),
    "config.json is not JSON: 'utf-8'": lambda f: (f / "config.json").write_bytes(b"\xff{}"),
    "config.json is not a JSON object": lambda f: (f / "config.json").write_text("[]"),
    "holds pytorch_model.bin but no safetensors": only_pickle,
    "it is not a checkpoint": without_weights,
    "model.safetensors is not a sound safetensors file: it is truncated": lambda f: os.truncate(
        f / "model.safetensors", 100_000
    ),
    "its header claims": lambda f: damage(f / "model.safetensors", 0, b"\xff" * 7),
    "its header is not JSON": lambda f: damage(f / "model.safetensors", 8, b"nonsense"),
    "says 5 layers, but the weights hold 6 (model.layers.*)": lambda f: edit_json(
        f / "config.json", num_hidden_layers=5
    ),
    "says 7 layers, but the weights hold 6": lambda f: edit_json(f / "config.json", num_hidden_layers=7),
    "says 65 tokens of width 32, but model.embed_tokens.weight is 64 x 32": lambda f: edit_json(
        f / "config.json", vocab_size=65
    ),
    "not accepted by transformers": lambda f: edit_json(f / "config.json", model_type="no-such-model"),
    "not accepted by transformers: Validation": lambda f: edit_json(
        f / "config.json", num_hidden_layers="many"
    ),
    "asks to run code of its own": lambda f: edit_json(
        f / "config.json", model_type="evil", auto_map={"AutoConfig": "modeling_evil.Config"}
    ),
    "'bart' has an encoder": lambda f: (f / "config.json").write_text('{"model_type": "bart"}'),
    "cannot be removed: scale_attn_by_inverse_layer_idx": lambda f: (f / "config.json").write_text(
        '{"model_type": "gpt2", "n_layer": 6, "scale_attn_by_inverse_layer_idx": true}'
    ),
}
SHARDED_FAULTS = {
    "lacks the shard model-00001": lambda f: first_shard(f).unlink(),
    "is truncated": lambda f: os.truncate(first_shard(f), first_shard(f).stat().st_size - 1),
    "names the file '../evil.safetensors', which is not": lambda f: rename_shard(f, "../evil.safetensors"),
    "names the file '/etc/evil.safetensors', which is not": lambda f: rename_shard(
        f, "/etc/evil.safetensors"
    ),
    "names the file 'a/evil.safetensors', which is not": lambda f: rename_shard(f, "a/evil.safetensors"),
    "names the file 'pytorch_model.bin', which is not": lambda f: rename_shard(f, "pytorch_model.bin"),
    "but it does not": lambda f: rename_shard(f, max(f.glob("model-*.safetensors")).name),
    "has no weight_map": lambda f: (f / "model.safetensors.index.json").write_text("{}"),
    "index.json is not JSON": lambda f: (f / "model.safetensors.index.json").write_text("{"),
}


def assert_refused(folder: Path, fault: str, out: Path) -> None:
    for action in (
        lambda: adopt_checkpoint(folder, "tiny", out),
        lambda: cut_checkpoint(folder, BLOCK, out),
    ):
        with pytest.raises(UserError) as error:
            action()
        assert fault in str(error.value)
        assert "\n" not in str(error.value)
        assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("fault", SINGLE_FAULTS)
def test_bad_checkpoint(copy, tmp_path, fault):
    SINGLE_FAULTS[fault](copy)
    assert_refused(copy, fault, tmp_path / "out")


@pytest.mark.parametrize("fault", SHARDED_FAULTS)
def test_bad_sharded_checkpoint(shards, tmp_path, fault):
    SHARDED_FAULTS[fault](shards)
    assert_refused(shards, fault, tmp_path / "out")


@pytest.mark.parametrize("name", ["drop_5-6", "drop_0-5", "drop_6-6"])
def test_block_that_does_not_fit(base, tmp_path, name):
    with pytest.raises(UserError, match=f"block {name} does not fit a model of 6 layers"):
        cut_checkpoint(base, LayerSet.parse(name), tmp_path / "cut")


def test_adopt_refuses_a_tokenizer_that_is_not_json(copy, tmp_path):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json is not JSON"):
        adopt_checkpoint(copy, "tiny", tmp_path / "full")


def test_source_is_no_target(copy):
    for action in (lambda: cut_checkpoint(copy, BLOCK, copy), lambda: adopt_checkpoint(copy, "tiny", copy)):
        with pytest.raises(UserError, match="is the source itself"):
            action()
    assert (copy / "model.safetensors").exists()


def test_auto_map_of_a_known_type_is_never_run(copy, tmp_path):
    edit_json(copy / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Model"})
    adopt_checkpoint(copy, "tiny", tmp_path / "full")
    verify_checkpoint(tmp_path / "full")  # with transformers' own class; the code would end the process


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t | {"model.stranger": torch.zeros(2)}, "1 tensors are unexpected, first model.stranger"),
        (
            lambda t: {k: v for k, v in t.items() if "norm" not in k},
            "13 tensors are missing, first model.layers.0",
        ),
        (lambda t: t | {"model.norm.weight": torch.zeros(33)}, "of another shape, first .*model.norm.weight"),
    ],
)
def test_verify_finds(copy, change, fault):
    path = copy / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    with pytest.raises(UserError, match=fault):
        verify_checkpoint(copy)


# Whole or absent


def in_child(action) -> int:
    """Run ``action`` in a forked process; its exit status, 3 for a UserError."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except UserError:
            os._exit(3)
        except BaseException:
            os._exit(4)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_failed_write_leaves_nothing(base, tmp_path):
    """A file size limit stands for a disk that fills up while the weights are written."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        cut_checkpoint(base, BLOCK, tmp_path / "cut")

    cut_checkpoint(base, LayerSet.parse("drop_0-0"), tmp_path / "cut")  # an older one must go too
    assert in_child(limited) == 3
    assert list((tmp_path / "cut").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_small_disk_is_found_out_before_writing(base, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mount is not allowed here")
    try:
        with pytest.raises(UserError, match=r"no room for .*: it needs 0.000 GB and 0.000 GB are free"):
            cut_checkpoint(base, BLOCK, disk / "cut")
        assert list((disk / "cut").iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_killed_cut_leaves_no_manifest_or_a_whole_checkpoint(sharded, tmp_path):
    target, outcomes = tmp_path / "cut", []
    cut_checkpoint(sharded, BLOCK, target)
    wanted = (target / "manifest.json").read_bytes()
    delay = 0.05
    for _ in range(30):
        shutil.rmtree(target, ignore_errors=True)
        child = os.fork()
        if child == 0:
            cut_checkpoint(sharded, BLOCK, target)
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        outcomes.append((target / "manifest.json").exists())
        if outcomes[-1]:
            assert_whole(target)
        delay *= 0.6 if outcomes[-1] else 1.5  # kills fall on both sides of the end, however fast the disk
    assert any(outcomes) and not all(outcomes)
    cut_checkpoint(sharded, BLOCK, target)
    assert_whole(target)
    assert (target / "manifest.json").read_bytes() == wanted


def test_program_says_errors_in_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/adopt.py",
            "--source",
            tmp_path,
            "--model",
            "x",
            "--out",
            tmp_path / "full",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/config.json cannot be read: No such file or directory\n"
