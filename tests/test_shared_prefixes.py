"""Inputs that begin alike share a row. The oracle is each input by itself, and lm-eval's own model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedTokenizerFast

from deeper_layers.errors import UserError
from deeper_layers.evaluation import capacity
from deeper_layers.evaluation.batches import Batch
from deeper_layers.evaluation.capacity import batches_of
from deeper_layers.evaluation.cut_scorer import CutScorer
from deeper_layers.evaluation.harness import CutsLM
from deeper_layers.evaluation.inputs import inputs_of
from deeper_layers.evaluation.journal import Journal
from deeper_layers.evaluation.layer_tree import LayerTree
from deeper_layers.evaluation.rows import rows_of
from deeper_layers.models import shared_prefixes
from deeper_layers.models.layers import removed
from deeper_layers.pruning.layer_set import FULL, LayerSet
from helpers.tiny import ARCHITECTURES, VOCABULARY, known, tiny_model
from helpers.wrong import WRONG_ROWS, wrong_rows

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

BLOCKS = [FULL, LayerSet.parse("drop_2-3")]
# Recurrent, or with biases that follow the place in the row: each input has a row to itself.
ALONE = {
    *(
        "bailing_hybrid",
        "bamba",
        "falcon_h1",
        "falcon_mamba",
        "granitemoehybrid",
        "lfm2",
        "lfm2_moe",
        "mamba",
    ),
    *("mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_next", "recurrent_gemma"),
    *("bloom", "gpt_neo", "mpt", "openai-gpt"),
}


def quiz(questions: int = 5, examples: int = 20) -> list[tuple[list[int], list[int]]]:
    """Questions after the same examples, each with a choice of one token, one of three, and one that begins
    with the first; and one that has nothing in common with them."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return rng.integers(2, VOCABULARY, count).tolist()

    before, requests = tokens(examples), [(tokens(9), tokens(2))]
    for _ in range(questions):
        asked, first = before + tokens(int(rng.integers(2, 6))), tokens(1)
        requests += [(asked, first), (asked, tokens(3)), (asked, first + tokens(1))]
    return requests


def assert_same(found: dict, expected: dict, tolerance: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for block, pairs in expected.items():
        assert [a for a, _ in found[block]] == pytest.approx([a for a, _ in pairs], abs=tolerance)
        assert [hit for _, hit in found[block]] == [hit for _, hit in pairs]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_shares_or_is_found_unable_to(name, caplog):
    if not known(name):
        pytest.skip(f"this transformers has no {name}")
    scorer = CutScorer(tiny_model(name, **ARCHITECTURES[name]), BLOCKS)
    expected = scorer.loglikelihoods(quiz(), 64, "test")
    assert_same(scorer.loglikelihoods(quiz(), 64, "test", share=True), expected)
    assert ("share what they begin with" in caplog.text) == (name in ALONE), caplog.text


def test_what_is_shared_is_computed_once():
    scorer, computed = CutScorer(tiny_model("llama"), BLOCKS), []
    scorer.model.model.layers[0].mlp.register_forward_hook(
        lambda module, args, output: computed.append(output.shape[:2].numel())
    )
    requests = quiz(questions=20)
    inputs = inputs_of(requests, 64)
    scorer.loglikelihoods(requests, 64, "test", share=True)
    others = len(
        {(*context, *rest)[:n] for context, rest in requests for n in range(21, len(context + rest))}
    )
    several, one = 20 + others, 9 + 1
    assert computed[-2:] == [several, one]  # after the check
    assert several + one < sum(len(entry.ids) for entry in inputs) / 3


def test_rows_hold_each_input_once_and_no_more_than_they_may():
    inputs = inputs_of(quiz(questions=30), 64)
    for most in (0, 30, 60, 1000):
        rows = rows_of(inputs, most)
        assert sorted(entry.ids for row in rows for entry in row.inputs) == sorted(e.ids for e in inputs)
        for row in rows:
            assert len(row.ids) == len(row.positions) == row.tokens
            assert row.tokens <= max(most, 0 if len(row.inputs) > 1 else 64)
            for entry, path in zip(row.inputs, row.paths, strict=True):
                assert tuple(row.ids[place] for place in path) == entry.ids
                assert [row.positions[place] for place in path] == list(range(len(entry.ids)))
        for batch in batches_of(rows, None, 128, lambda n: n):
            assert len(batch) == 1 or Batch.of(batch, torch.device("cpu")).ids.numel() <= 128
    assert len(rows_of(inputs, 0)) == len(inputs) > len(rows_of(inputs, 1000)) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_wrong_rows_are_not_used(kind, dtype, caplog):
    scorer = CutScorer(tiny_model("llama").to(dtype), BLOCKS)
    expected = scorer.loglikelihoods(quiz(), 64, "test")
    with wrong_rows(kind):
        assert scorer.loglikelihoods(quiz(), 64, "test", share=True) == expected
    assert "sequences that share what they begin with are off by" in caplog.text
    caplog.clear()
    scorer.loglikelihoods(quiz(), 64, "test", share=True)
    assert not caplog.text


def test_a_row_that_does_not_fit_into_memory_is_halved(monkeypatch):
    scorer, requests = CutScorer(tiny_model("llama"), BLOCKS), quiz(questions=20)
    expected = scorer.loglikelihoods(requests, 64, "test")
    states, tried = LayerTree.states, []

    def full_beyond(tokens):
        def limited(self, ids, *more):
            tried.append(ids.numel())
            if ids.numel() > tokens:
                raise RuntimeError("CUDA out of memory")
            return states(self, ids, *more)

        return limited

    monkeypatch.setattr(LayerTree, "states", full_beyond(90))
    assert_same(scorer.loglikelihoods(requests, 64, "test", share=True), expected)
    assert max(tried) > 90 >= max(size for size in tried if size <= 90) > 26  # 26: of one input
    monkeypatch.setattr(LayerTree, "states", full_beyond(8))
    with pytest.raises(UserError, match="one sequence of .* tokens does not fit into memory"):
        scorer.loglikelihoods(requests, 64, "test", share=True)


def lm_eval_scores(lm: HFLM, requests) -> list[tuple[float, bool]]:
    return lm._loglikelihood_tokens([(("", ""), *request) for request in requests], disable_tqdm=True)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "qwen2", "mistral", "mamba"])
def test_scores_are_those_of_lm_eval(name):
    """In fp32 to 1e-4; in bf16 as far from those as lm-eval's own. Contexts may be longer than the model."""
    model = tiny_model(name, **ARCHITECTURES[name]).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")),
        pad_token="a",
        eos_token="b",
    )
    long = [(40 * [5] + context, rest) for context, rest in quiz()[-6:]]
    requests = quiz() + long
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        lm = CutsLM(model, tokenizer, BLOCKS, None, "test", None)
        lm._max_length = 64
        found = lm._score(requests)
        for block in BLOCKS:
            with removed(model, block):
                theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=64)
                expected = lm_eval_scores(theirs, requests)
            if dtype == torch.float32:
                assert_same({block: found[block]}, {block: expected})
                exact = np.array([a for a, _ in expected])
                errors[block] = exact
            else:
                ours, others = (
                    np.abs(np.array([a for a, _ in x]) - errors[block]).mean()
                    for x in (found[block], expected)
                )
                assert ours <= 1.5 * others + 1e-3


@pytest.mark.parametrize("share", [False, True])
def test_a_killed_evaluation_goes_on_with_other_batches(share, tmp_path, monkeypatch):
    """As after a card that was full: the first run scores two at a time, the next one four."""
    model, written = tiny_model("llama"), []
    expected = CutScorer(model, BLOCKS).loglikelihoods(quiz(), 64, "test", share=share)
    write = Journal.write

    def dies(self, *words):
        written.append(words)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, *words)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "write", dies)
        CutScorer(model, BLOCKS, batch=2).loglikelihoods(quiz(), 64, "test", tmp_path, share=share)
    found = CutScorer(model, BLOCKS, batch=4).loglikelihoods(quiz(), 64, "test", tmp_path, share=share)
    assert_same(found, expected)


class Cells(TorchFunctionMode):
    """How many pairs of tokens torch's attention computes within it."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is functional.scaled_dot_product_attention:
            self.count += len(args[0]) * args[0].shape[2] * args[1].shape[2]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [None, 1000])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "qwen2", "mistral", "phi"])
def test_a_row_attends_to_little_more_than_it_sees(name, batch, monkeypatch):
    """In one row, or in several of a batch, of which each sees something else."""
    scorer = CutScorer(tiny_model(name, **ARCHITECTURES[name]), BLOCKS)
    scorer.capacity.tokens = batch or scorer.capacity.tokens
    requests = quiz(questions=30)
    if batch:
        requests += [([9] * 9 + context, rest) for context, rest in quiz(questions=20)]
        monkeypatch.setattr(capacity, "ROW_TOKENS", 150)
    inputs = inputs_of(requests, 64)
    batches = scorer.capacity.batches(inputs, share=True)
    assert (max(map(len, batches)) > 1) == (batch is not None)
    expected = scorer.loglikelihoods(requests, 64, "test")
    counts = {}
    for piece in (1000, 16):
        monkeypatch.setattr(shared_prefixes, "PIECE", piece)
        assert_same(scorer.loglikelihoods(requests, 64, "test", share=True), expected)
        with Cells() as cells:
            assert all(scorer._score_batch(rows) for rows in batches)
        counts[piece] = cells.count
    assert 0 < counts[16] < 0.6 * counts[1000]


def test_a_piece_that_lacks_what_it_sees_is_found_out(monkeypatch, caplog):
    monkeypatch.setattr(shared_prefixes, "PIECE", 16)
    scorer = CutScorer(tiny_model("llama"), BLOCKS)
    expected = scorer.loglikelihoods(quiz(), 64, "test")
    right = shared_prefixes.SharedPrefixes._pieces.func
    lacking = property(lambda self: [[(piece, seen[8:]) for piece, seen in row] for row in right(self)])
    monkeypatch.setattr(shared_prefixes.SharedPrefixes, "_pieces", lacking)
    assert scorer.loglikelihoods(quiz(), 64, "test", share=True) == expected
    assert "sequences that share what they begin with are off by" in caplog.text


def test_rows_of_a_batch_are_at_least_half_as_long_as_the_longest():
    requests = [(list(range(2, 2 + n)), [1]) for n in (40, 39, 21, 20, 19, 11, 9, 8, 3)]
    rows = rows_of(inputs_of(requests, 64), 0)
    lengths = [[row.tokens for row in batch] for batch in batches_of(rows, None, 1000, lambda n: n)]
    assert lengths == [[40, 39, 21, 20], [19, 11], [9, 8], [3]]
    lengths = [[row.tokens for row in batch] for batch in batches_of(rows, 3, 1000, lambda n: n)]
    assert lengths == [[40, 39, 21], [20, 19, 11], [9, 8, 3]]
