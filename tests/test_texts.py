"""Texts of local files: which are read, what is refused and in which words, how the documents are dealt."""

import codecs
import copy
import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeper_layers.data import python_english
from deeper_layers.data.local_corpus import LocalCorpus
from deeper_layers.data.local_source import kind, split_of
from deeper_layers.data.sample import write_sample
from deeper_layers.data.texts import text_fingerprint
from deeper_layers.data.tokens import read_texts
from deeper_layers.errors import UserError
from deeper_layers.study import options
from deeper_layers.study.study import Study
from helpers.config import ROOT, checked, full_config

DEFAULT = full_config()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def numbered(count: int, begin: int = 0, **others) -> str:
    return lines(*({"text": f"Document {i} tells of rivers."} | others for i in range(begin, begin + count)))


def write(files: dict[str, str | bytes], folder: str = "c") -> str:
    """Write files into a folder; one that ends in .gz is packed."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def parquet(path: str, **columns) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def sample(count: int, source: str = "c", **given) -> list[str]:
    return LocalCorpus(source, **given).sample(count)


def refused(source: str = "c", count: int = 1, **given) -> str:
    with pytest.raises(UserError) as error:
        sample(count, source, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def study(source: str = "c", **text) -> Study:
    """The default study with its distances and losses on a local text, 40 + 20 documents."""
    config = copy.deepcopy(DEFAULT)
    config["texts"]["mine"] = (
        config["texts"]["world"] | {"calibration": 40, "validation": 20} | {"source": source}
    )
    config["texts"]["mine"] |= text
    config["distances"] |= {"text": "mine", "samples": 30}
    config["suites"]["loss"]["loss"] |= {"text": "mine", "sequences": 20}
    return checked(config)


def refused_study(source: str = "c", **text) -> str:
    with pytest.raises(UserError) as error:
        study(source, **text)
    assert str(error.value).startswith("texts.mine: ") and "\n" not in str(error.value)
    return str(error.value)


# What is read


def test_a_text_file_is_one_document_whatever_ends_its_lines():
    bodies = {f"b{i}.txt": f"Chapter {i}\r\n\r\nA long night.\r\n" for i in range(4)}
    write(bodies | {"notes.md": codecs.BOM_UTF8 + b"# Notes\n", "packed.txt.gz": "Packed\rlines"})
    texts = sample(6)
    assert "Chapter 2\n\nA long night.\n" in texts and "# Notes\n" in texts and "Packed\nlines" in texts
    said = refused(count=7)
    assert "c has 6 different documents, but 7 (train) are asked for; write at most" in said
    assert "a text file is one document, so split a book into several files" in said


def test_records_of_every_format_are_read_by_their_text_alone():
    """Other fields may differ, be missing or be of mixed types from record to record and file to file."""
    records = [{"text": "one", "id": 1}, {"id": "two", "text": "two"}, {"url": None, "text": "three"}]
    for name in ("a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.json.gz", "A.JSONL"):
        write({name: lines(*records).replace("\n", "\r\n") + "\n \n"}, name + ".folder")
        assert sorted(sample(3, name + ".folder")) == ["one", "three", "two"], name
        assert sorted(sample(3, f"{name}.folder/{name}")) == ["one", "three", "two"], name
    write({"list.json": codecs.BOM_UTF8 + b"\n" + json.dumps(records, indent=2).encode()}, "list")
    assert sorted(sample(3, "list")) == ["one", "three", "two"]
    parquet("p/x.parquet", text=["one", "two"], id=[1, 2])
    parquet("p/y.parquet", url=["u"], text=pyarrow.array(["three"], pyarrow.large_string()))
    parquet("p/z.parquet", text=pyarrow.array(["one", "four"]).dictionary_encode())
    assert sorted(sample(4, "p")) == ["four", "one", "three", "two"]
    write(
        {"x.jsonl": numbered(3), "y.jsonl": lines({"text": "other", "meta": [1]}, {"text": "ü", "meta": "s"})}
    )
    assert len(sample(5)) == 5


def test_what_was_read_and_left_out_is_in_the_json_and_said(tmp_path):
    write(
        {
            "train-0.jsonl": numbered(9, id=1) + lines({"text": " \n"}),
            "train-1.jsonl": numbered(3, 8, url="u"),
        }
    )
    write({"test/x.jsonl": numbered(2, 90), "README.md": "About", "plot.png": b"\x89PNG", ".hidden": "x"})
    corpus = LocalCorpus("c")
    write_sample(corpus, 5, tmp_path / "out.jsonl")
    facts = json.loads((tmp_path / "out.json").read_text())
    assert facts["files"] == {"train-0.jsonl": 10, "train-1.jsonl": 3}
    assert facts["left_out"] == {
        "empty": 1,
        "repeated": 1,
        "fields": ["id", "url"],
        "other splits": ["test/x.jsonl"],
        "files": ["README.md", "plot.png"],
    }
    assert (facts["documents"], facts["split"], facts["part"]) == (5, "train", "train")
    assert facts["format"] == "JSON records" and facts["sha256"] and facts["versions"]["python"]
    assert "c: train has 5 of the 11 documents of split train (JSON records) in train-0.jsonl" in str(corpus)
    for part in (
        "left out: 1 empty, 1 repeated, fields id",
        "fields id, url",
        "other splits test/x",
        "README.md, plot",
    ):
        assert part in str(corpus)
    assert list(read_texts(tmp_path / "out.jsonl")) == sample(5)


def test_spaces_home_folders_and_other_alphabets_are_paths(monkeypatch, tmp_path):
    write({"größe 1.jsonl": numbered(3)}, "my $text; 'é'")
    assert len(sample(3, "my $text; 'é'")) == len(sample(3, "my $text; 'é'/größe 1.jsonl")) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(sample(3, "~/my $text; 'é'")) == 3
    write({"[x]/a.jsonl": numbered(2), "b/deep/b.jsonl": numbered(2, 7), "b/c.txt": "a book"}, "glob")
    assert len(sample(2, "glob/[x]")) == 2  # a folder of that very name
    assert len(sample(4, "glob/**/*.jsonl")) == 4 and sample(1, "glob/b/*.txt") == ["a book"]
    os.symlink("deep", "glob/b/again")
    os.symlink("..", "glob/b/deep/loop")
    assert len(sample(2, "glob/**/b.jsonl")) == 2
    for pattern in ("glob/?/c.txt", "glob/[a-c]/c.*", "glob/[!a]/c.txt", "glob/**/*c*.txt"):
        assert sample(1, pattern) == ["a book"], pattern
    assert len(sample(4, "glob/**/**/*.jsonl")) == 4 and len(sample(2, "glob/b/d*/**")) == 2
    assert "several formats" not in refused("glob/?.txt") and "no file matches" in refused("glob/*.jsonl")


# What is refused


@pytest.mark.parametrize(
    "files, said",
    [
        (
            {"a/one.jsonl": "{}", "b/two.txt": "x", "three.csv": "x"},
            "three.csv, a/one.jsonl, b/two.txt; name th",
        ),
        (
            {"one.jsonl": "{}", "two.jsonl.zst": "x"},
            "several formats: one.jsonl, two.jsonl.zst; name those to",
        ),
        ({"one.txt": "x", "two.PDF": "x"}, "such as source: c/**/*.txt"),
        ({"x.parquet": "", "x.json.gz": "{}"}, "such as source: c/**/*.json.gz"),
        (
            {"x.csv": "text"},
            "c has no file to read, which are .txt, .md, .jsonl, .json (each also with .gz) and",
        ),
        ({"x.arrow": "x", "dataset_info": "{}"}, "it has dataset_info, x.arrow"),
        ({"train.jsonl": ""}, "c holds no text: train.jsonl has no document that is not empty"),
        ({"a.txt": " \n", "b.txt": ""}, "c holds no text: a.txt, b.txt has no document that is not empty"),
        ({"x.jsonl": lines({"text": ""})}, "c holds no text"),
        (
            {"x.txt": "a\nSchön".encode("latin1")},
            "c/x.txt, byte 5: not UTF-8 (0xf6); convert it, as with iconv",
        ),
        ({"x.jsonl": numbered(1) + '{"text": "Ö"}'}, None),
        ({"x.jsonl": numbered(2).encode() + b'{"text": "\xd6"}'}, "c/x.jsonl, byte 90: not UTF-8 (0xd6)"),
        (
            {"x.txt": "Schön".encode("utf-16")},
            "c/x.txt is no UTF-8 text but UTF-16: convert it, as with iconv -f",
        ),
        (
            {"x.jsonl": numbered(3).encode("utf-16-le")},
            "c/x.jsonl, byte 1: a NUL, so this is UTF-16 or no text",
        ),
        ({"x.txt": "Schön".encode("utf-32")}, "no UTF-8 text but UTF-32"),
        (
            {"x.txt": gzip.compress(b"x")},
            "c/x.txt is no UTF-8 text but packed by gzip: rename it to end in .gz",
        ),
        ({"x.jsonl": b"PK\x03\x04"}, "c/x.jsonl is no UTF-8 text but a zip archive: unpack it"),
        (
            {"x.jsonl": numbered(2) + '{"text": "Doc'},
            "c/x.jsonl, line 3: not JSON (Unterminated string starting",
        ),
        ({"x.jsonl": numbered(2) + '{"text": "Doc'}, "column 10); the file ends there, so it may be cut off"),
        (
            {"x.jsonl": '{"text": "a"} {"text": "b"}\n' + numbered(1)},
            "c/x.jsonl, line 1: not JSON (Extra data",
        ),
        ({"x.json": "[" + lines({"text": "a"})}, "c/x.json: not JSON (Expecting ',' delimiter"),
        ({"x.jsonl": "[" * 100_000}, "c/x.jsonl: no JSON that can be read (maximum recursion depth"),
        ({"x.jsonl": lines("a text")}, "c/x.jsonl, line 1: a text, not an object with a field 'text'"),
        ({"x.json": json.dumps([{"text": "a"}, 7])}, "c/x.json, record 2: a number, not an object"),
        (
            {"x.jsonl": lines({"text": "a"}, {"body": 1, "id": 2})},
            "line 2: no field 'text'; the fields are body, id",
        ),
        (
            {"x.jsonl": lines({"text": ["a"], "id": 1})},
            "line 1: the field 'text' is a list, not text; give the one",
        ),
        ({"x.jsonl": lines({"text": "a"}, {"text": 5})}, "line 2: the field 'text' is a number, not text"),
        (
            {"x.jsonl": lines({"text": "a"}, {"text": None})},
            "'text' is null, not text; leave such records out",
        ),
        (
            {"x.jsonl": lines({"text": [{"role": "user", "content": None}]})},
            "is a list, not text; each message needs a role and a content, both text",
        ),
        ({"x.jsonl": '{"text": "\\ud83d"}\n'}, "c/x.jsonl, line 1: the text has half of a character"),
        ({"x.parquet": "PAR1 and no more"}, "c/x.parquet is no sound Parquet file (after row 0: "),
        ({"x.parquet": ""}, "c/x.parquet is no sound Parquet file"),
    ],
)
def test_bad_files_are_one_line_with_the_name_the_place_and_what_to_do(files, said):
    write(files)
    if said is None:  # what looks bad and is not
        assert len(sample(2)) == 2
    else:
        assert said in refused()


def test_broken_packages_and_columns_are_one_line():
    write({"cut.jsonl.gz": b"", "no.jsonl.gz": b""}, "packed")
    Path("packed/cut.jsonl.gz").write_bytes(gzip.compress(os.urandom(999).hex().encode())[:500])
    assert "packed/cut.jsonl.gz is no sound gzip file (Compressed file ended" in refused(
        "packed/cut.jsonl.gz"
    )
    Path("packed/no.jsonl.gz").write_text(numbered(1))
    assert "packed/no.jsonl.gz is no sound gzip file (Not a gzipped file" in refused("packed/no.jsonl.gz")
    parquet("p.parquet", text=["a", None, "b"], id=[1, 2, 3], chat=[["x"]] * 3)
    assert "p.parquet, row 2: the field 'text' is null, not text" in refused("p.parquet")
    assert "p.parquet: no field 'body'; the fields are text, id, chat" in refused("p.parquet", field="body")
    assert "the field 'id' is of type int64, not text (fields: text, id, chat)" in refused(
        "p.parquet", field="id"
    )
    assert "'chat' is of type list<" in refused("p.parquet", field="chat")
    parquet("long.parquet", text=[str(i) * 50 for i in range(9999)])
    data = bytearray(Path("long.parquet").read_bytes())
    data[200:900] = bytes(700)
    Path("long.parquet").write_bytes(data)
    assert "long.parquet is no sound Parquet file (after row" in refused("long.parquet")


def test_what_is_not_there_is_told_with_what_is_near(tmp_path):
    write({"corpus.jsonl": numbered(3)}, "data")
    assert refused("data/corpsu.jsonl") == (
        "there is no file or folder data/corpsu.jsonl; did you mean data/corpus.jsonl?"
    )
    assert refused("./nowhere") == "there is no file or folder ./nowhere"
    assert refused("data/*.txt") == "no file matches data/*.txt"
    Path("empty").mkdir()
    assert refused("empty").endswith("it is empty")
    write({"x.csv": "text\n"})
    assert "c/x.csv: x.csv cannot be read; the formats are .txt" in refused("c/x.csv")
    os.symlink("nowhere.jsonl", "data/link.jsonl")
    assert "data/link.jsonl cannot be read: permission denied, or a link to nothing" in refused("data")
    os.mkfifo("pipe.jsonl")
    assert refused("./pipe.jsonl") == "./pipe.jsonl is neither a file nor a folder"


# Splits


@pytest.mark.parametrize(
    "name, split",
    [
        ("train.jsonl", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("c4-train.00001-of-01024.json.gz", "train"),
        ("wiki.valid.txt", "validation"),
        ("dev/a.txt", "validation"),
        ("data/Validation-2/a.txt", "validation"),
        ("test/train-like.txt", "test"),
        ("x_eval.md", "test"),
        ("calibration.jsonl", "calibration"),
        ("corpus.train", None),  # the ending is none of the name
        ("testament.txt", None),
        ("development.txt", None),
        ("trains.txt", None),
        ("a/b.txt", None),
    ],
)
def test_the_split_is_a_word_of_a_folders_or_files_name(name, split):
    assert split_of(name) == split


def test_files_that_name_splits_are_used_as_such():
    write({"train/a.jsonl": numbered(30), "valid-0.jsonl": numbered(10, 100), "test.jsonl": numbered(7, 900)})
    number = {
        ours: {int(t.split()[1]) for t in sample(5, ours=ours, beside={"validation": 5, "calibration": 5})}
        for ours in ("train", "calibration", "validation")
    }
    assert max(number["train"]) < 30
    assert all(100 <= n < 110 for n in number["calibration"] | number["validation"])
    assert not number["calibration"] & number["validation"]
    asked = {"train": 30, "validation": 10}
    assert len(sample(10, ours="validation", beside={"train": 30})) == 10  # each has its own files
    assert "c has 10 different documents, but 5 (calibration) + 6 (validation)" in refused(
        count=6, ours="validation", beside={"calibration": 5}
    )
    theirs = {"calibration": "test"}
    assert all(int(t.split()[1]) >= 900 for t in sample(7, ours="calibration", splits=theirs, beside=asked))
    write({"calibration.jsonl": numbered(3, 500)})  # ours by its own name
    assert {t.split()[1] for t in sample(3, ours="calibration")} == {"500", "501", "502"}


def test_splits_that_are_not_there_or_not_of_all_files_are_refused():
    write({"train.jsonl": numbered(9), "test.jsonl": numbered(9, 50)})
    assert refused(ours="validation") == (
        "c: no file is named validation; files name test, train; choose, for example splits: "
        "{train: train, calibration: test, validation: test}"
    )
    assert "no file is named 'dev2' (for train); files name test, train" in refused(splits={"train": "dev2"})
    assert len(sample(9, ours="validation", splits={"validation": "test"})) == 9
    write({"more.jsonl": numbered(2, 70)})
    said = refused()
    assert "c: test.jsonl is of the split test, but more.jsonl of none; rename it, name the files" in said
    every = dict.fromkeys(("train", "calibration", "validation"), "all")
    assert len(sample(20, splits=every)) == 20
    assert len(sample(9, "c/train*")) == 9
    assert "a document of a named split is also one of all" in refused(splits=every | {"train": "train"})
    write({"a.jsonl": numbered(5)}, "plain")
    assert (
        "plain: no file is named 'validation' (for validation); no file names a split, so leave out"
        in refused("plain", splits={"validation": "validation"})
    )
    assert len(sample(5, "plain", splits=dict.fromkeys(every, "train"))) == 5  # as `datasets` calls all


def test_one_named_split_is_dealt_into_all_of_ours():
    write({"train-0.jsonl": numbered(20), "train-1.jsonl": numbered(10, 20)})
    parts = {"train": 20, "calibration": 4, "validation": 6}
    texts = [sample(parts[ours], ours=ours, beside=parts) for ours in parts]
    assert sorted(sum(texts, [])) == sorted(json.loads(line)["text"] for line in numbered(30).splitlines())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=3, max_size=60),
    st.integers(0, 99),
    st.randoms(use_true_random=False),
)
def test_documents_are_dealt_disjointly_completely_and_always_alike(texts, seed, chance):
    """Of any documents, repeated and empty ones among them, whatever the files and the numbers asked for."""
    distinct = {text for text in texts if text.strip()}
    if len(distinct) < 3:
        return
    first, second = sorted(chance.sample(range(1, len(distinct)), 2))
    parts = {"train": first, "calibration": second - first, "validation": len(distinct) - second}
    with tempfile.TemporaryDirectory() as folder:
        half = chance.randrange(len(texts))
        write({"a.jsonl": lines(*({"text": t} for t in texts[:half]))}, folder)
        write({"b.jsonl": lines(*({"text": t} for t in texts[half:]))}, folder)

        def part(ours, count=None, **beside):
            return sample(count or parts[ours], folder, ours=ours, beside=parts | beside, seed=seed)

        dealt = {ours: part(ours) for ours in parts}
        assert sorted(sum(dealt.values(), [])) == sorted(distinct)
        # The order of files does not matter, nor where a document lies.
        Path(folder, "a.jsonl").rename(Path(folder, "z.jsonl"))
        assert {ours: part(ours) for ours in parts} == dealt
        # Training and validation depend on no number but their own.
        assert part("train", validation=0, calibration=0) == dealt["train"]
        assert part("validation", train=0) == dealt["validation"]
        assert part("calibration", train=0) == dealt["calibration"]
        # A smaller part is the beginning of a larger one.
        assert part("train", 1) == dealt["train"][:1]
        with pytest.raises(UserError, match=f"has {len(distinct)} different documents, but"):
            part("validation", parts["validation"] + 1)


def test_too_few_documents_are_told_with_numbers_that_fit():
    write({"a.jsonl": numbered(179)})
    said = refused(count=400, beside={"calibration": 100, "validation": 100})
    assert said == (
        "c has 179 different documents, but 400 (train) + 100 (calibration) + 100 (validation) are asked "
        "for; write at most, for example, train: 119, calibration: 29, validation: 29"
    )
    parts = {"train": 119, "calibration": 29, "validation": 29}
    assert all(sample(parts[ours], ours=ours, beside=parts) for ours in parts)
    write({"a.jsonl": numbered(3)}, "few")
    said = refused("few", count=99, beside={"calibration": 1, "validation": 1})
    assert "train: 1, calibration: 1, validation: 1" in said
    said = refused("few/a.jsonl", count=99, beside={"calibration": 99, "validation": 99})
    assert "train: 1, calibration: 1, validation: 1" in said
    write({"book.txt": "It was night."}, "book")
    assert (
        "has 1 document, but 2 (train) + 1 (validation) are asked for; each of them needs its own; a text"
        in (refused("book", count=2, beside={"validation": 1}))
    )


# The English of Python


def test_the_english_of_python_is_thousands_of_distinct_pieces_always_the_same(tmp_path):
    corpus = LocalCorpus("python", ours="validation", beside={"train": 2500})
    texts = corpus.sample(500)
    assert sum(corpus.read.values()) - corpus.repeated >= 3000
    assert len(set(texts)) == 500 and all(len(text) >= 100 for text in texts)
    assert LocalCorpus("python", ours="validation").sample(500) == texts
    train = LocalCorpus("python", beside={"validation": 500}).sample(2500)
    assert not set(train) & set(texts)
    version = ".".join(map(str, sys.version_info[:3]))
    facts = corpus.facts()
    assert facts["format"] == f"help topics and docstrings of Python {version}"
    assert any("argparse" in text or "Return" in text for text in texts)
    with pytest.raises(UserError, match="python has .* different documents, but 99999"):
        LocalCorpus("python").sample(99_999)


def test_english_is_read_from_source_code_that_is_never_run(tmp_path):
    long = "Words of a function that is documented at such a length that one can read it as English. " * 2
    paragraphs = "\n\n".join(f"Paragraph {i}. " + "It is long. " * 50 for i in range(20))
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data/topics.py").write_text(f"topics = { ({'b': paragraphs, 'a': long})!r}\n")
    (tmp_path / "x.py").write_text(
        f'"""Short."""\nopen("ran", "w")\ndef f():\n    """{long}"""\nraise SystemExit'
    )
    (tmp_path / "broken.py").write_text("print 'of another Python'")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test_x.py").write_text(f'"""{long}"""')
    found = list(python_english.documents(tmp_path))
    assert found[0] == long.strip() and found[-1] == long.strip() and len(found) > 4
    assert "\n\n".join(found[1:-1]) == paragraphs.strip()
    assert all(len(text) <= python_english.LONGEST + 2 for text in found) and not (tmp_path / "ran").exists()
    empty = tmp_path / "none"
    empty.mkdir()
    with pytest.raises(UserError, match="this Python has no sources of its library"):
        list(python_english.documents(empty))


# In a study


def test_what_a_source_is_follows_from_what_is_there(tmp_path):
    from helpers import mirrors

    mirrors.c4(tmp_path, train=8, validation=8)
    write({"a.txt": "x"})
    for source in (
        "c",
        "c/a.txt",
        "./c",
        "./nowhere",
        "/nowhere",
        "~/x",
        "a b",
        "x/y/z",
        "new.jsonl",
        "c/*.txt",
        "",
    ):
        assert kind(source) == "files", source
    for source in ("allenai/c4", "us/nothing", "wikitext", "./allenai/c4"):
        assert kind(source) == "datasets", source
    assert (kind("python"), kind("generate"), kind("./python")) == ("python", "generate", "files")


def test_bad_texts_are_refused_while_the_study_is_read():
    assert "there is no file or folder corpus.jsonl" in refused_study("corpus.jsonl")
    assert "there is no file or folder ~/nowhere" in refused_study("~/nowhere")
    write({"a.jsonl": numbered(100), "b.csv": "x"})
    assert "several formats: a.jsonl, b.csv" in refused_study()
    assert "there is no c/d here, but a folder c; for a data set of the hub give a revision" in refused_study(
        "c/d"
    )
    study("c/d", revision="abc")
    assert "c/a.jsonl, line 1: no field 'body'; the fields are text" in refused_study(
        "c/a.jsonl", field="body"
    )
    assert "c/a.jsonl has 100 different documents, but 400 (calibration) + 20 (validation)" in refused_study(
        "c/a.jsonl", calibration=400
    )
    assert "field '-f' begins with -, which no name here does" in refused_study("c/a.jsonl", field="-f")
    assert "source '-c' begins with -, which no name here does; a file may be ./-x" in refused_study("-c")
    assert "only a data set has a name, not c/a.jsonl" in refused_study("c/a.jsonl", name="en")
    assert "python has no splits, its documents are dealt" in refused_study(
        "python", splits={"train": "train"}
    )
    assert "no file is named 'dev' (for validation)" in refused_study(
        "c/a.jsonl", splits={"validation": "dev"}
    )
    write({f"{i}.txt": "book" for i in range(9)}, "books")
    assert "books has 9 different documents" in refused_study("books")
    parquet("p.parquet", text=["a"])
    study("p.parquet")  # rows are not counted here
    Path("p.parquet").write_text("not Parquet")
    assert "p.parquet is not a Parquet file, or is cut off" in refused_study("p.parquet")
    write({"x.jsonl.gz": numbered(3)}, "z")
    Path("z/x.jsonl.gz").write_text("not packed")
    assert "z/x.jsonl.gz is no sound gzip file" in refused_study("z")
    write({"x.jsonl": numbered(99).encode("utf-16")}, "wide")
    assert "UTF-16" in refused_study("wide")


def test_only_texts_that_the_study_reads_are_looked_at_and_only_their_splits_count(monkeypatch):
    config = copy.deepcopy(DEFAULT)
    config["texts"]["unread"] = config["texts"]["world"] | {"source": "./nowhere"}
    checked(config)
    write({"a.jsonl": numbered(60)})
    found = study()  # 40 + 20; the 20000 of train are nobody's
    assert found.documents("mine") == {"calibration": 40, "validation": 20}
    assert options.sample(found, "mine", "calibration") == (
        "--beside validation=20 --documents 40 --field text --ours calibration --seed 0 --source c"
    )
    assert options.sample(study(splits={"train": None, "calibration": "train"}), "mine", "validation") == (
        "--beside calibration=40 --documents 20 --field text --ours validation --seed 0 --source c "
        "--splits calibration=train"
    )


def fingerprint_of(study: Study) -> str:
    return text_fingerprint(study.config["texts"]["mine"]["source"])


def test_files_that_change_are_sampled_again_and_may_go_when_they_were_sampled():
    write({"a.jsonl": numbered(60)})
    before = fingerprint_of(study())
    assert before == fingerprint_of(study()) != ""
    write({"a.jsonl": numbered(61)})
    assert fingerprint_of(study()) != before
    Path("c/a.jsonl").unlink()
    assert "c has no file to read" in refused_study()
    for split in ("calibration", "validation"):
        write({f"{split}.json": json.dumps({"source": "c"})}, "results/texts/mine")
    study()
    assert "no file or folder ./d" in refused_study("./d")
    assert fingerprint_of(study("python")) and not fingerprint_of(study("us/set", revision="a"))


def test_the_program_deals_what_the_study_asks_for(tmp_path):
    """Through the rule's own options, with a path that a shell would take apart."""
    write({"a.jsonl": numbered(60)}, "my text; 'x'")
    found, texts = study("my text; 'x'"), []
    for split in ("calibration", "validation"):
        asked = options.sample(found, "mine", split)
        command = (
            f"{sys.executable} {shlex.quote(str(ROOT / 'scripts/sample.py'))} {asked} --out {split}.jsonl"
        )
        run = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
        assert f"{split} has {found.config['texts']['mine'][split]} of the 60 documents" in run.stderr
        texts += read_texts(f"{split}.jsonl")
    assert len(texts) == len(set(texts)) == 60


def test_what_is_not_taken_takes_no_memory():
    with open("big.jsonl", "w") as file:
        file.writelines(json.dumps({"text": f"{i} " + "word " * 1000}) + "\n" for i in range(2000))
    tracemalloc.start()
    assert len(sample(50, "big.jsonl")) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6 < 10e6 < os.path.getsize("big.jsonl")
