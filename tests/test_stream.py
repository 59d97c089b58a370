"""Streamed against in memory: the same numbers to the last digit, each weight read once, two layers held."""

import json
import time
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from deeper_layers.checkpoints.adopt import adopt_checkpoint
from deeper_layers.checkpoints.folder import Checkpoint
from deeper_layers.data.tokens import write_tokens
from deeper_layers.errors import UserError
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.evaluation import Evaluation
from deeper_layers.evaluation.streamed_scorer import StreamedCutScorer
from deeper_layers.importance.angular import angular_distances, streamed_distances
from deeper_layers.models import streaming as stream
from deeper_layers.models.load import load_model
from deeper_layers.models.streaming import Store, Stream
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.runtime.files import read_json
from deeper_layers.study import options
from deeper_layers.study.token_counts import DOCUMENT_TOKENS
from deeper_layers.study.workload import Workloads
from helpers.config import checked, full_config
from helpers.programs import parser_of
from helpers.tiny import ARCHITECTURES, settled, tiny_model

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
BLOCKS = [FULL, *map(LayerSet.parse, ["drop_2-2", "drop_2-4", "drop_0-1", "drop_4-5", "drop_4-4"])]
# Layers that return tuples or lists, positions added before them, masks that differ from layer to layer,
# experts that are fused when they are loaded, no attention, a vision tower, buffers inside the layers or set
# from above. Distances are streamed for every architecture of test_architectures.py.
NAMES = [
    "llama",
    "qwen2",
    "qwen3",
    "phi",
    "gpt2",
    "openai-gpt",
    "gemma2",
    "gemma3",
    "mixtral",
    "mamba",
    "falcon_h1",
]


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 64, size) for size in (7, 3, 12, 7, 2, 5, 9, 12)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny Llama whose layers lie in more than one shard each."""
    folder = tmp_path_factory.mktemp("llama")
    tiny_model("llama").save_pretrained(folder, max_shard_size="20kB")
    assert len(list(folder.glob("*.safetensors"))) > 6
    return folder


def pairs(documents) -> list:
    return [(d[:1].tolist(), d[1:].tolist()) for d in documents]


def assert_same_distances(one, other) -> None:
    assert torch.equal(one.total, other.total) and torch.equal(one.squares, other.squares)
    assert one.samples == other.samples


@pytest.mark.parametrize("name", NAMES)
def test_streamed_equals_in_memory(name, documents, tmp_path):
    tiny_model(name, **ARCHITECTURES[name]).save_pretrained(tmp_path)
    model = settled(load_model(tmp_path))
    assert_same_distances(
        streamed_distances(Stream(tmp_path), documents, batch_tokens=24),
        angular_distances(model, documents, batch_tokens=24),
    )
    whole, streamed = CutScorer(model, BLOCKS, batch=3), StreamedCutScorer(Stream(tmp_path), BLOCKS, batch=3)
    assert whole.layer_counts()["tree"]
    expected = whole.loglikelihoods(pairs(documents), 64, "test")
    assert streamed.loglikelihoods(pairs(documents), 64, "test") == expected
    assert len({str(answers) for answers in expected.values()}) == len(BLOCKS)


def test_in_bf16_too(documents, llama):
    model = settled(load_model(llama, "bf16"))
    assert_same_distances(
        streamed_distances(Stream(llama, "bf16"), documents, batch_tokens=24),
        angular_distances(model, documents, batch_tokens=24),
    )


def test_each_tensor_is_read_once_and_two_layers_are_in_memory(documents, llama, monkeypatch):
    read = Counter()

    class Watched:
        def __init__(self, *arguments, **named):
            self.file = safe_open(*arguments, **named)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_slice(self, name):
            read[name] += 1
            return self.file.get_slice(name)

    safe_open = stream.safe_open
    monkeypatch.setattr(stream, "safe_open", Watched)
    streamed, seen = Stream(llama), []
    walk = streamed.walk

    def watched():
        for i in walk():
            seen.append(
                [
                    n
                    for n, layer in enumerate(streamed.layers)
                    if layer.mlp.up_proj.weight.device.type == "cpu"
                ]
            )
            yield i

    monkeypatch.setattr(streamed, "walk", watched)
    names = set(Checkpoint.read(llama).tensors)
    streamed_distances(streamed, documents)
    assert read == dict.fromkeys(names - {"lm_head.weight"}, 1)  # distances need no head
    assert len(seen) == 6 and all(set(held) <= {i, i + 1} for i, held in enumerate(seen))
    assert all(p.is_meta for p in streamed.layers.parameters())
    read.clear()
    StreamedCutScorer(Stream(llama), BLOCKS, batch=2).loglikelihoods(pairs(documents), 64, "test")
    assert read == dict.fromkeys(names, 1)


def test_the_next_layer_is_read_while_this_one_computes(llama):
    streamed = Stream(llama)
    for i in streamed.walk():
        assert not any(p.is_meta for p in streamed.layers[i].parameters())
        until = time.monotonic() + 60
        while i < 5 and any(p.is_meta for p in streamed.layers[i + 1].parameters()):
            assert time.monotonic() < until, "the next layer does not come"
            time.sleep(0.001)


def test_spilled_states_are_the_same_and_leave_nothing(documents, llama, tmp_path, monkeypatch):
    mapped = []
    place = Store.place
    monkeypatch.setattr(Store, "place", lambda self, size: mapped.append(size) or place(self, size))
    expected = streamed_distances(Stream(llama), documents, batch_tokens=24)
    assert not mapped
    assert_same_distances(streamed_distances(Stream(llama), documents, 24, tmp_path / "spill"), expected)
    assert mapped and list((tmp_path / "spill").iterdir()) == []
    scorers = [StreamedCutScorer(Stream(llama), BLOCKS, 3, spill) for spill in (None, tmp_path / "spill")]
    assert len({str(s.loglikelihoods(pairs(documents), 64, "test")) for s in scorers}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_store_gives_back_what_it_got_and_uses_its_places_again(dtype, tmp_path):
    store = Store(tmp_path)
    tensors = [torch.randn(3, n, 2).to(dtype) for n in (1, 5, 5)]
    kept = [store.keep(t) for t in tensors]
    assert all(torch.equal(k(), t) and k().dtype == dtype for k, t in zip(kept, tensors, strict=True))
    end = store.end
    del kept[1]
    kept.append(store.keep(-tensors[1]))
    assert store.end == end
    assert torch.equal(kept[1](), tensors[2]) and torch.equal(kept[2](), -tensors[1])


def test_layers_are_shared_by_cuts_as_in_the_tree(documents, llama):
    blocks = [*BLOCKS, LayerSet.parse("drop_3-5")]
    streamed, whole = (
        StreamedCutScorer(Stream(llama), blocks, batch=99),
        CutScorer(load_model(llama), blocks, batch=99),
    )
    for cuts in (streamed, whole):
        cuts.loglikelihoods(pairs(documents), 64, "test")
    assert streamed.layer_counts() == whole.layer_counts()


def test_a_batch_that_does_not_fit_the_gpu_goes_in_parts(documents, llama, monkeypatch):
    streamed = Stream(llama)
    expected = streamed_distances(streamed, documents).mean
    sizes = []

    def full_beyond(rows):
        def limited(layer, hidden, *others, **named):
            sizes.append(len(hidden))
            if len(hidden) > rows:
                raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
            return type(layer).forward(layer, hidden, *others, **named)

        return limited

    for layer in streamed.layers:
        layer.forward = full_beyond(3).__get__(layer)
    torch.testing.assert_close(streamed_distances(streamed, documents).mean, expected, rtol=0, atol=1e-6)
    assert max(sizes) == len(documents) and 0 < min(sizes) <= 3
    for layer in streamed.layers:
        layer.forward = full_beyond(0).__get__(layer)
    with pytest.raises(UserError, match="does not fit into memory"):
        streamed_distances(streamed, documents)


class BetweenLayers(transformers.LlamaModel):
    """Does something between its layers, which calling them one by one would miss."""

    def forward(self, input_ids=None, **_):
        hidden = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1])[None]
        for layer in self.layers:
            rotary = self.rotary_emb(hidden, position_ids=positions)
            hidden = 0.8 * layer(hidden, position_embeddings=rotary, position_ids=positions)
        return transformers.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class PassesOn(transformers.LlamaModel):
    """Gives each layer something that the one before it computed."""

    def forward(self, input_ids=None, **_):
        hidden, carried = self.embed_tokens(input_ids), None
        positions = torch.arange(input_ids.shape[1])[None]
        for layer in self.layers:
            rotary = self.rotary_emb(hidden, position_ids=positions)
            hidden, carried = layer(hidden, position_embeddings=rotary, carried=carried)
        return transformers.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


def test_layers_that_do_more_than_one_after_the_other_are_refused(documents, llama, monkeypatch):
    streamed = Stream(llama)
    streamed.model.model.__class__ = BetweenLayers
    with pytest.raises(
        UserError, match="LlamaForCausalLM cannot be streamed, it changes hidden states between"
    ):
        streamed_distances(streamed, documents)
    streamed = Stream(llama)
    streamed.model.model.__class__ = PassesOn
    for layer in streamed.layers:
        plain = type(layer).forward
        layer.forward = lambda h, carried, plain=plain, layer=layer, **how: (plain(layer, h, **how), h.mean())
    with pytest.raises(UserError, match="its layers pass on more than hidden states: set stream to false"):
        streamed_distances(streamed, documents)


def test_weights_that_do_not_fit_are_one_line(llama, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    tensors = load_file(tmp_path / "model.safetensors")
    lost = "model.layers.4.mlp.up_proj.weight"
    save_file({n: t for n, t in tensors.items() if n != lost}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="missing"):
        list(Stream(tmp_path).walk())
    save_file({**tensors, lost: tensors[lost][:8].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"of another shape.*{lost}"):
        list(Stream(tmp_path).walk())
    save_file({**tensors, "model.layers.4.extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="unexpected.*model.layers.4.extra"):
        list(Stream(tmp_path).walk())
    assert config == read_json(tmp_path / "config.json")
    with pytest.raises(UserError, match="not as nf4"):
        Stream(tmp_path, "nf4")


def test_a_streamed_loss_suite_gives_the_same_json(documents, llama, tmp_path):
    adopt_checkpoint(llama, "tiny", tmp_path / "full")
    write_tokens(tmp_path / "text.safetensors", [d.tolist() for d in documents])
    words = ["--checkpoint", tmp_path / "full", "--blocks", *BLOCKS, "--suite", "loss", "--loss"]
    words += ["--batch", 3, "--tokens", tmp_path / "text.safetensors", "--sequences", 8, "--length", 9]

    def run(*more):
        arguments = parser_of("evaluate").parse_args([*map(str, [*words, "--precision", "fp32", *more])])
        Evaluation(arguments).run()

    run("--out", tmp_path / "whole")
    run("--out", tmp_path / "streamed", "--stream", "--spill", tmp_path / "spill")
    for block in BLOCKS:
        whole, streamed = (read_json(tmp_path / how / f"{block}.json") for how in ("whole", "streamed"))
        # The whole model's weights are mapped from files, whose alignment decides the last digit.
        assert streamed["results"]["loss"] == pytest.approx(whole["results"]["loss"], rel=1e-6)
        assert streamed["deeper_layers"]["stream"] and not whole["deeper_layers"]["stream"]
        assert streamed["deeper_layers"]["key"] == whole["deeper_layers"]["key"]
    run("--out", tmp_path / "streamed")  # the numbers are the same, so the files are kept
    assert read_json(tmp_path / "streamed/index.json")["evaluated"] == []


def test_a_study_says_what_is_streamed():
    study = full_config()
    study["distances"] |= {"stream": True, "spill": "/scratch"}
    study["suites"]["loss"]["loss"]["stream"] = True
    known = checked(study)
    assert "--spill /scratch" in options.distances_tuning(known)
    assert "--stream" in options.distances_tuning(known).split()
    assert "--stream" in options.evaluate_tuning(known, "loss").split()
    for where in (study["distances"], study["suites"]["loss"]["loss"]):
        where["precision"] = "nf4"
        with pytest.raises(UserError, match="stream reads weights as they are, so precision cannot be nf4"):
            checked(study)
        where["precision"] = "bf16"


def test_a_streamed_job_asks_for_the_memory_of_two_layers(tmp_path):
    """Llama-2-70B, whose 140 GB no job must have at once."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    (tmp_path / "model.safetensors").touch()
    study = full_config()
    study["models"]["big"] = study["models"]["embedded"] | {"source": str(tmp_path), "gpus": 1}
    study["study"] |= {"models": ["big"], "suites": []}
    study["distances"] |= {"precision": "bf16", "samples": 500, "length": 128}
    whole = Workloads(checked(study)).distances("big")
    study["distances"] |= {"stream": True, "spill": None}
    streamed = Workloads(checked(study)).distances("big")
    study["distances"]["spill"] = "/scratch"
    spilled = Workloads(checked(study)).distances("big")
    assert 130_000 < whole.weights_mb < 145_000
    assert 3_500 < streamed.weights_mb == spilled.weights_mb < 5_000
    assert streamed.gpu_mem_mb() < 12_000
    # A document of the world is shorter than the length.
    states = 500 * DOCUMENT_TOKENS["generate"] * 8192 * 2 / 1e6
    assert streamed.mem_mb() - spilled.mem_mb() == pytest.approx(states, abs=2)
    assert whole.runtime() == streamed.runtime()
