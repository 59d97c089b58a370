"""Answers that models write. The oracle is lm-eval's own model, one prompt at a time."""

from __future__ import annotations

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deeper_layers.errors import UserError
from deeper_layers.evaluation import writing
from deeper_layers.evaluation.harness import CutsLM
from deeper_layers.evaluation.writing import Prefix, StopSequences, Writer, groups
from deeper_layers.runtime import provenance
from helpers.answers import ASKED, BLOCK, by_lm_eval, ours
from helpers.tiny import ARCHITECTURES, VOCABULARY, known, tiny_model

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

WORDS = {"<pad>": 0, "<s>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
# Also windows shorter than prompts, recurrent layers with attention and without, biases by distance, a cache
# that generates other tokens.
SPECIAL = ["llama", "gpt2", "gemma3_text", "qwen3_next", "mamba", "bloom", "deepseek_v3", "moshi"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="<s>"
    )


@pytest.mark.parametrize("name", SPECIAL)
def test_answers_are_those_of_lm_eval(name, tokenizer, caplog):
    if not known(name):
        pytest.skip(f"this transformers has no {name}")
    model = tiny_model(name, **ARCHITECTURES[name])
    expected = by_lm_eval(model, tokenizer)
    assert len(set(expected)) > 3
    assert ours(model, tokenizer) == ours(model, tokenizer, batch=2) == expected
    assert ("repeated" in caplog.text) == (name in ("mamba", "moshi"))


def test_a_prefix_is_run_once_and_windows_allow_no_padding(tokenizer, monkeypatch):
    generate, seen = Writer._generate, []

    def watched(self, rows, prefix, *more, **how):
        seen.append((len(rows), len({len(row) for row in rows}), prefix.length))
        return generate(self, rows, prefix, *more, **how)

    monkeypatch.setattr(Writer, "_generate", watched)
    for name, batches in (("llama", [(9, 3, 20)]), ("gemma3_text", 3 * [(3, 1, 20)])):
        seen.clear()
        ours(tiny_model(name, **ARCHITECTURES[name]), tokenizer)
        assert seen[-len(batches) - 1 :] == [*batches, (3, 3, 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_prefix_is_not_used(tokenizer, monkeypatch, caplog, dtype):
    model = tiny_model("llama").to(dtype)
    ours(model, tokenizer)
    assert "generation_check" in provenance._recorded and "off by" not in caplog.text
    repeated = Prefix.repeated

    def of_the_next_layer(self, rows):
        found = repeated(self, rows)
        if found:
            layers = found["past_key_values"].layers
            layers[1].values, layers[2].values = layers[2].values, layers[1].values
        return found

    monkeypatch.setattr(Prefix, "repeated", of_the_next_layer)
    found = ours(model, tokenizer)
    assert "prompts whose beginning is repeated are off by" in caplog.text
    if dtype == torch.float32:
        assert found == by_lm_eval(model, tokenizer)


def test_text_is_decoded_only_where_it_may_end(tokenizer, monkeypatch):
    stops = StopSequences(tokenizer, ["w7 w9", "w11", ""])
    ends = {word for word, i in WORDS.items() if stops.may_end[i]}
    assert {"w9", "w11", "w19"} <= ends and not ends & {"w7", "w8", "<pad>", "w24"}
    decoded, decode = [], type(tokenizer).decode

    def watched(self, ids, **how):
        decoded.append(ids.tolist())
        return decode(self, ids, **how)

    monkeypatch.setattr(type(tokenizer), "decode", watched)
    ids = torch.tensor([[4, 5, 6, 2, 11], [4, 5, 11, 2, 7], [4, 5, 6, 7, 9], [4, 5, 7, 9, 9]])
    assert stops.after(3)(ids, None).tolist() == [True, False, True, False]
    assert decoded == [[2, 11], [7, 9], [9, 9]]


def test_rows_are_as_many_as_memory_has_room_for(tokenizer, monkeypatch):
    lm = CutsLM(tiny_model("llama"), tokenizer, [BLOCK], None, "test", None)
    each = 2 * 6 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    assert lm.writer.bytes_of_a_token == each
    monkeypatch.setattr(writing, "CPU_CACHE", 10 * each * 30)
    assert lm.writer._rows(30) == 10 and lm.writer._rows(400) == 1
    monkeypatch.setattr(writing, "CPU_CACHE", 1 << 40)
    assert lm.writer._rows(30) == 64


def test_groups():
    same = [[1] * 9 + [i, i] for i in range(2, 8)]
    found = groups([*same, [1, 1, 5], [9], [9, 9], same[0]])
    assert found == [(9, [0, 1, 2, 3, 4, 5, 9]), (0, [6, 8, 7])]
    assert groups([[3, 3, 3]] * 4) == [(2, [0, 1, 2, 3])]
    assert groups([[3]] * 5) == [(0, [0, 1, 2, 3, 4])]


def test_sampling_is_left_to_lm_eval_and_too_long_answers_are_one_line(tokenizer):
    model = tiny_model("llama")
    said = {"until": ["w11"], "max_gen_toks": 4, "do_sample": True, "temperature": 5.0}
    torch.manual_seed(0)
    found = ours(model, tokenizer, said, batch=1)
    torch.manual_seed(0)
    assert found == by_lm_eval(model, tokenizer, said) != ours(model, tokenizer, {**ASKED, "max_gen_toks": 4})
    for more in ({}, {"do_sample": True, "temperature": 1.0}):
        with pytest.raises(UserError, match="64"):
            ours(model, tokenizer, {"until": ["w11"], "max_gen_toks": 64} | more)
