"""Samples of data sets: which documents, from which split, always the same, never in two of ours."""

import json
import os
import subprocess
import sys

import datasets
import pytest

from deeper_layers.data.hub_corpus import Corpus
from deeper_layers.data.sample import write_sample
from deeper_layers.data.tokens import read_texts
from deeper_layers.errors import UserError
from deeper_layers.study import options
from helpers import mirrors
from helpers.config import ROOT, checked, full_config

C4 = {"source": "allenai/c4", "name": "en"}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    mirrors.c4(folder)
    for name, text in {
        "list": '{"text": ["a"]}\n',
        "cut": '{"text": "a"}\n{"te',
        "empty": "",
        "none": None,
    }.items():
        (folder / "odd" / name).mkdir(parents=True)
        mirrors.readme(folder / "odd" / name, ["default"], {"train": "x.jsonl"})
        if text is not None:
            (folder / "odd" / name / "x.jsonl").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def here(mirror, monkeypatch):
    monkeypatch.chdir(mirror)


def first(count, **settings):
    documents = Corpus(**C4 | settings).documents()
    return [next(documents) for _ in range(count)]


def study(**text):
    config = full_config()
    config["texts"]["c4"] = config["texts"]["world"] | {
        "source": "allenai/c4",
        "name": "en",
        "revision": None,
        "field": "text",
        "splits": {"train": "train", "calibration": "validation", "validation": "validation"},
        "buffer": 100,
        **text,
    }
    return checked(config)


def test_the_sample_is_random_and_always_the_same():
    everything = [row["text"] for row in datasets.load_dataset("allenai/c4", "en", split="validation")]
    sample = first(100, split="validation")
    assert len(set(sample)) == 100 and set(sample) <= set(everything)
    assert sample != everything[:100] and len({text.split()[1] for text in sample}) == 4  # all the shards
    assert first(100, split="validation") == sample
    assert first(40, split="validation") == sample[:40]  # a smaller sample is the start of a larger one
    assert first(100, split="validation", seed=1) != sample


def test_parts_share_no_document_and_do_not_depend_on_each_other():
    parts = [list(Corpus(**C4, split="validation", part=p, parts=2).documents()) for p in range(2)]
    assert not set(parts[0]) & set(parts[1])
    assert len(parts[0]) + len(parts[1]) == 300 and min(map(len, parts)) > 100
    # A document that the data set repeats is in one part only, because its text alone decides.
    twice = Corpus(**C4, parts=2)
    assert all(twice.holds(text) for text in parts[0]) and not any(map(twice.holds, parts[1]))


def test_each_of_our_splits_is_drawn_from_where_the_paper_says(tmp_path):
    """The options that the rule passes, through the program: calibration and loss from validation."""
    texts = {}
    for split, count in (("train", 300), ("calibration", 90), ("validation", 80)):
        words = options.sample(study(**{split: count}), "c4", split).split()
        command = [
            sys.executable,
            str(ROOT / "scripts/sample.py"),
            *words,
            "--out",
            str(tmp_path / f"{split}.jsonl"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        texts[split] = list(read_texts(tmp_path / f"{split}.jsonl"))
        assert len(texts[split]) == count
        said = json.loads((tmp_path / f"{split}.json").read_text())
        assert said["documents"] == count and said["source"] == "allenai/c4" and said["versions"]["datasets"]
    assert all(text.startswith("train") for text in texts["train"])
    assert all(text.startswith("validation") for text in texts["calibration"] + texts["validation"])
    assert not set(texts["calibration"]) & set(texts["validation"])


def test_a_split_is_asked_for_by_what_determines_it_alone():
    def asked(split, **text):
        return options.sample(study(**text), "c4", split)

    assert asked("validation", calibration=7, train=8) == asked("validation")
    assert asked("calibration", validation=9) == asked("calibration", people=12)
    assert asked("train", train=9) != asked("train")
    shared = {"train": "train", "calibration": "train", "validation": "train"}
    parts = [asked(split, splits=shared) for split in ("train", "calibration", "validation")]
    assert [("--parts 3" in o, o.split("--part ")[1][0]) for o in parts] == [
        (True, "0"),
        (True, "1"),
        (True, "2"),
    ]


def test_empty_documents_are_left_out_and_strange_ones_are_kept(tmp_path):
    rows = [{"body": ""}, {"body": "caf\u00e9 \U0001f600\nsecond line"}, {"body": None}, {"body": "plain"}]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mirrors.readme(tmp_path / "set", ["default"], {"train": "data.jsonl"})
    corpus = Corpus(str(tmp_path / "set"), field="body")
    write_sample(corpus, 2, tmp_path / "out.jsonl")
    assert sorted(read_texts(tmp_path / "out.jsonl")) == sorted(r["body"] for r in rows if r["body"])
    with pytest.raises(UserError, match="there are only 2 documents for this text, not 3; ask for fewer"):
        write_sample(corpus, 3, tmp_path / "more.jsonl")
    assert not (tmp_path / "more.jsonl").exists()
    third = Corpus(str(tmp_path / "set"), field="body", parts=3)
    with pytest.raises(
        UserError, match=r"only [012] documents for this text \(one in 3, since 3 of our splits"
    ):
        write_sample(third, 3, tmp_path / "more.jsonl")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"name": "english"}, "allenai/c4: BuilderConfig 'english' not found"),
        (
            {"split": "test"},
            "allenai/c4: Bad split: test. Available splits: ['train', 'validation']. Say which split "
            "each of ours is drawn from, for example splits: {train: train",
        ),
        (
            {"source": "odd/list", "name": None},
            "odd/list: the field 'text' holds a list, not text; the fields are text",
        ),
        ({"source": "odd/cut", "name": None}, "odd/cut: a file of it cannot be read ("),
        ({"source": "odd/none", "name": None}, "odd/none: Unable to find"),
        ({"field": "body"}, "allenai/c4 has no field 'body'; it has text, timestamp, url"),
        (
            {"source": "us/nothing", "name": None},
            "us/nothing cannot be fetched: HF_HUB_OFFLINE is set",
        ),
    ],
)
def test_what_is_not_there_is_one_clear_line(settings, said):
    with pytest.raises(UserError) as error:
        first(1, **settings)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_hub_that_cannot_be_reached_or_lacks_the_data_set_is_told_at_once(tmp_path):
    from helpers.hub_server import Hub, Silent

    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts/sample.py"), "--source", "us/set", "--documents", "9"]

    def said(endpoint):
        variables = clean | {"HF_ENDPOINT": endpoint}
        run = subprocess.run(
            [*command, "--out", str(tmp_path / "o")], env=variables, text=True, capture_output=True
        )
        assert run.returncode == 1
        return run.stderr

    assert "us/set cannot be fetched: no answer from http://127.0.0.1:9. To work" in said(
        "http://127.0.0.1:9"
    )
    with Silent() as silent:
        assert f"us/set cannot be fetched: no answer from {silent.url}. To work" in said(silent.url)
    assert silent.calls <= 2  # HTTP's own second try; no more, with ever longer waits
    with Hub({}) as hub:
        assert f"error: there is no data set us/set at {hub.url}" in said(hub.url)
