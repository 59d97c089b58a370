"""Small stand-ins for the paper's data sets in the layout of the hub: C4, MMLU, BoolQ, HellaSwag, GSM8K.

``datasets`` takes a folder named like a repository, in the working directory, for the repository; so the
production lines and lm-eval's own, unmodified tasks run on them offline. The texts are drawn from a grammar
of a few words; the numbers of rows are small, the columns, splits and file names are the real ones.
"""

import gzip
import json
import random
from importlib.util import find_spec
from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml

_LM_EVAL = Path(find_spec("lm_eval").origin).parent
SUBJECTS = sorted(p.stem.removeprefix("mmlu_") for p in _LM_EVAL.glob("tasks/mmlu/default/mmlu_*.yaml"))
PEOPLE = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana"]
THINGS = ["apples", "books", "coins", "drums", "eggs", "flags", "goats", "hats"]
VERBS = ["buys", "sells", "paints", "counts", "hides", "finds"]
PLACES = ["at home", "in town", "by the sea", "on the hill", "at school", "in the garden"]


def sentence(r: random.Random) -> str:
    return f"{r.choice(PEOPLE)} {r.choice(VERBS)} {r.randint(2, 99)} {r.choice(THINGS)} {r.choice(PLACES)}."


def passage(r: random.Random, sentences: int) -> str:
    return " ".join(sentence(r) for _ in range(sentences))


def c4(root: Path, train: int = 400, validation: int = 300, shards: int = 4) -> None:
    """allenai/c4, configuration en: gzipped JSON lines of text, timestamp and url, in several shards."""
    r = random.Random(0)
    folder = root / "allenai/c4"
    for split, count in (("train", train), ("validation", validation)):
        for shard in range(shards):
            rows = [
                {
                    "text": f"{split} {shard} {row}. {passage(r, r.randint(2, 9))}",
                    "timestamp": "2019-04-25T12:57:54Z",
                    "url": f"https://{split}{shard}.example/{row}",
                }
                for row in range(count // shards)
            ]
            path = folder / f"en/c4-{split}.{shard:05}-of-{shards:05}.json.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(path, "wt") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    files = {split: f"en/c4-{split}.*.json.gz" for split in ("train", "validation")}
    readme(folder, ["en"], files)


def readme(folder: Path, configurations: list[str], files: dict[str, str]) -> None:
    """The front matter that tells which ``files`` hold which split of the configurations, of all the same."""
    files = [{"split": split, "path": path} for split, path in files.items()]
    configs = [{"config_name": name, "data_files": files} for name in configurations]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")


def parquet(folder: Path, configurations: list[str], splits: dict[str, list[dict]]) -> None:
    """Write {split: rows} as the hub does: CONFIGURATION/SPLIT-00000-of-00001.parquet, once for all
    configurations."""
    place = configurations[0]
    (folder / place).mkdir(parents=True)
    for split, rows in splits.items():
        path = folder / place / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    readme(folder, configurations, {split: f"{place}/{split}-*" for split in splits})


def mmlu(root: Path, subjects: list[str], questions: int = 4) -> None:
    """cais/mmlu: a configuration for each subject; dev has the five examples that are shown. All have the
    same questions: a README.md with the files of each is slow to read, which is done for each."""
    r = random.Random(1)

    def question() -> dict:
        first, second = r.randint(2, 40), r.randint(2, 40)
        choices = r.sample(range(2, 100), 4)
        answer = r.randrange(4)
        choices[answer] = first + second
        text = f"{r.choice(PEOPLE)} has {first} {r.choice(THINGS)} and finds {second}. How many are there?"
        return {
            "question": text,
            "subject": subjects[0],
            "choices": list(map(str, choices)),
            "answer": answer,
        }

    sizes = {"test": questions, "validation": 2, "dev": 5}
    splits = {split: [question() for _ in range(n)] for split, n in sizes.items()}
    parquet(root / "cais/mmlu", subjects, splits)


def boolq(root: Path, questions: int = 12) -> None:
    """aps/super_glue, configuration boolq."""
    r = random.Random(2)

    def row(i: int) -> dict:
        text = passage(r, 3)
        return {
            "question": f"does {r.choice(PEOPLE)} find {r.choice(THINGS)}",
            "passage": text,
            "idx": i,
            "label": r.randrange(2),
        }

    splits = {
        s: [row(i) for i in range(n)] for s, n in (("train", 6), ("validation", questions), ("test", 2))
    }
    parquet(root / "aps/super_glue", ["boolq"], splits)


def hellaswag(root: Path, questions: int = 12) -> None:
    """Rowan/hellaswag: one configuration, labels as text."""
    r = random.Random(3)

    def row(i: int) -> dict:
        begun, person = sentence(r), r.choice(PEOPLE)
        return {
            "ind": i,
            "activity_label": "Counting",
            "ctx_a": begun,
            "ctx_b": person.lower(),
            "ctx": f"{begun} {person.lower()}",
            "endings": [f"{r.choice(VERBS)} the {r.choice(THINGS)} {place}." for place in PLACES[:4]],
            "source_id": f"made~{i}",
            "split": "val",
            "split_type": "indomain",
            "label": str(r.randrange(4)),
        }

    splits = {s: [row(i) for i in range(n)] for s, n in (("train", 6), ("validation", questions))}
    parquet(root / "Rowan/hellaswag", ["default"], splits)


def gsm8k(root: Path, questions: int = 6) -> None:
    """openai/gsm8k, configuration main: the answer ends with #### and the number."""
    r = random.Random(4)

    def row() -> dict:
        person, thing, first, second = r.choice(PEOPLE), r.choice(THINGS), r.randint(2, 40), r.randint(2, 40)
        total = first + second
        return {
            "question": f"{person} has {first} {thing} and buys {second} more. How many {thing} are there?",
            "answer": f"{person} has {first}+{second}=<<{first}+{second}={total}>>{total}.\n#### {total}",
        }

    sizes = {"train": 8, "test": questions}
    parquet(root / "openai/gsm8k", ["main"], {split: [row() for _ in range(n)] for split, n in sizes.items()})
