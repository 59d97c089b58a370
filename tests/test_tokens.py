"""Token files: read back by the safetensors library, and written without being held in memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from deeper_layers.data import tokens as tokens_module
from deeper_layers.data.tokens import Tokens, load_tokenizer, read_texts, tokenise, write_tokens
from deeper_layers.errors import UserError
from deeper_layers.runtime.files import sha256
from helpers.config import ROOT


def test_a_token_file_is_a_safetensors_file_and_reads_as_it_was_written(tmp_path):
    random = np.random.default_rng(0)
    documents = [random.integers(0, 2**31 - 1, size).tolist() for size in (3, 0, 1, 700, 5)]  # odd in all
    write_tokens(tmp_path / "t.json", iter(documents))
    columns = load_file(tmp_path / "t.safetensors")
    kept = [d for d in documents if d]
    assert columns["ids"].dtype == np.int32 and columns["offsets"].dtype == np.int64
    assert columns["ids"].tolist() == sum(kept, [])
    assert columns["offsets"].tolist() == np.cumsum([0, *map(len, kept)]).tolist()
    tokens = Tokens(tmp_path / "t.json")
    assert len(tokens) == 4 and tokens.lengths.tolist() == [3, 1, 700, 5]
    assert [tokens[d].tolist() for d in range(4)] == kept and tokens[2].dtype == np.int64
    assert [d.tolist() for d in tokens.first(3, 2)] == [d[:2] for d in kept[:3]]
    with pytest.raises(UserError, match="holds 4 documents, not 5"):
        tokens.first(5, 2)
    assert json.loads((tmp_path / "t.json").read_text()) == {
        "documents": 4,
        "tokens": 709,
        "sha256": sha256(tmp_path / "t.safetensors"),
    }


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    def broken():
        yield [1, 2]
        raise RuntimeError("the tokenizer died")

    with pytest.raises(RuntimeError):
        write_tokens(tmp_path / "t.json", broken())
    with pytest.raises(UserError, match="every document is empty"):
        write_tokens(tmp_path / "t.json", [[], []])
    assert list(tmp_path.iterdir()) == []


def test_writing_takes_memory_for_the_lengths_only(tmp_path):
    """160 MB of ids, by a process that may not have 100 MB more than it has with its imports done."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
import numpy as np
from deeper_layers.data.tokens import write_tokens
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
document = np.arange(2000, dtype=np.int32)
write_tokens("large.json", (document for _ in range(20_000)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True)
    assert int(run.stdout) < 20_000, run.stderr  # kB
    assert (tmp_path / "large.safetensors").stat().st_size > 160_000_000


def test_a_text_is_tokenised_as_the_tokenizer_alone_does_it(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<s>": 0, "<unk>": 1, "cat": 2, "sat": 3}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>").save_pretrained(tmp_path / "model")
    (tmp_path / "t.jsonl").write_text('{"text": "cat sat"}\n{"text": "sat on cat", "url": "x"}\n')
    command = [
        sys.executable,
        str(ROOT / "scripts/tokenise.py"),
        "--checkpoint",
        "model",
        "--text",
        "t.jsonl",
    ]
    subprocess.run([*command, "--out", "out/t.json"], cwd=tmp_path, check=True, capture_output=True)
    tokens = Tokens(tmp_path / "out/t.json")
    assert [tokens[d].tolist() for d in range(2)] == [[0, 2, 3], [0, 3, 1, 2]]
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.pad_token == "<s>"
    texts = ["cat"] * 5
    assert list(tokenise(tokenizer, iter(texts), batch=2)) == [[0, 2]] * 5


def test_a_line_that_is_no_document_is_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(UserError, match="t.jsonl, line 2: not a JSON object"):
        list(read_texts(tmp_path / "t.jsonl"))


@pytest.mark.parametrize("has_learned", [False, True])
@pytest.mark.parametrize("tokens", [1, 10**6, 10**9, 10**13])
def test_the_header_has_room_for_the_largest_file(tokens, has_learned):
    """It is written last, before what is there already."""
    header = tokens_module._header(tokens, tokens, has_learned)
    assert len(header) == tokens_module.HEADER
    columns = json.loads(header[8:])
    assert (
        columns["offsets"]["data_offsets"] == [4 * tokens, 12 * tokens]
        and ("learned" in columns) == has_learned
    )
