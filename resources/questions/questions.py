"""The documents of the tasks in this folder, read by a function: lm-eval would look for `data_files` in the
working directory, and the JSONL are beside this file wherever that is."""

import json
import random
from pathlib import Path

from datasets import Dataset

HERE = Path(__file__).parent
SEED = 0


def load(file: str, **metadata) -> dict[str, Dataset]:
    """The test split of lm-eval's ``custom_dataset``: the lines of ``file`` in a shuffled order, so that the
    first ones of a ``limit`` are of all kinds. Where a line has ``wrong`` answers, the ``right`` one is put
    among them, at each position equally often (``choices``, and its position ``answer``)."""
    documents = [json.loads(line) for line in (HERE / file).read_text(encoding="utf-8").splitlines()]
    random.Random(SEED).shuffle(documents)
    for number, document in enumerate(documents):
        if "wrong" in document:
            wrong, answer = document["wrong"], number % (len(document["wrong"]) + 1)
            document["choices"] = [*wrong[:answer], document["right"], *wrong[answer:]]
            document["answer"] = answer
    return {"test": Dataset.from_list(documents)}
