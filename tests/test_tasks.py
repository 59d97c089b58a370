"""lm-eval's own tasks, unmodified, on mirrors of their data: found without parsing all of its files."""

import json
from pathlib import Path

import lm_eval.tasks
import mirrors
import pytest

from deeper_layers import evaluate
from deeper_layers.errors import UserError
from deeper_layers.evaluation_job import TaskSuite

TASKS = Path(lm_eval.tasks.__file__).parent
SUBJECTS = sorted(p.stem.removeprefix("mmlu_") for p in TASKS.glob("mmlu/default/mmlu_*.yaml"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_papers_tasks_load_from_their_own_folders(tmp_path):
    mirrors.mmlu(tmp_path, SUBJECTS)
    mirrors.boolq(tmp_path)
    mirrors.hellaswag(tmp_path)
    mirrors.gsm8k(tmp_path)
    names = ("mmlu", "boolq", "hellaswag", "gsm8k")
    manager, (mmlu, *tasks) = evaluate.load_tasks(TaskSuite(names))
    assert len(SUBJECTS) == 57 and len(manager.all_tasks) < 100  # not lm-eval's thousands
    assert mmlu.name == "mmlu" and {name.removeprefix("mmlu_") for name in mmlu.child_names} == {
        "stem",
        "other",
        "social_sciences",
        "humanities",
    }
    assert [task.config.task for task in tasks] == ["boolq", "hellaswag", "gsm8k"]
    assert [len(task.eval_docs) for task in tasks] == [12, 12, 6]
    for task in tasks:  # what was loaded is lm-eval's own definition
        assert (
            task.config.metadata["version"]
            == {"boolq": 2.0, "hellaswag": 1.0, "gsm8k": 3.0}[task.config.task]
        )


def test_what_is_not_defined_or_not_at_hand_is_one_clear_line():
    with pytest.raises(UserError, match="lm-eval has no task 'hellaswagg': did you mean hellaswag"):
        evaluate.load_tasks(TaskSuite(("hellaswagg",)))
    # A group of tasks from many folders; its data are not here.
    with pytest.raises(UserError, match="no data for task 'openllm' .*is there a network"):
        evaluate.load_tasks(TaskSuite(("openllm",)))


def test_an_order_shows_the_same_examples_otherwise(tmp_path):
    mirrors.mmlu(tmp_path, SUBJECTS)

    def shown(order):
        _, (task,) = evaluate.load_tasks(TaskSuite(("mmlu_anatomy",), shots=5, order=order))
        task.set_config("num_fewshot", 5)
        task.build_all_requests(limit=1)
        *examples, question = task.instances[0].args[0].split("\n\n")[-6:]
        return examples, question

    (usual, question), (first, same), (second, _) = shown(None), shown(1), shown(2)
    assert len(usual) == 5 and question == same
    assert (
        sorted(first) == sorted(second) == sorted(usual) and len({str(usual), str(first), str(second)}) == 3
    )
    assert shown(1)[0] == first


def test_chance_is_that_of_the_documents(tmp_path):
    """Of fixed letters, of a field of the document, of one's own with two or four choices, of several right
    answers; none of a task that scores in its own way or that generates."""
    mirrors.mmlu(tmp_path, SUBJECTS)
    mirrors.hellaswag(tmp_path)
    mirrors.gsm8k(tmp_path)
    own, rows = tmp_path / "own", [("a", ["a", "b"], [0]), ("c", ["c", "d", "e", "f"], [0, 1])]
    own.mkdir()
    documents = [{"q": q, "options": options, "right": right} for q, options, right in rows]
    (own / "own.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    for name, target in (("own", "0"), ("several", "right"), ("custom", "0")):
        text = (
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {own}/own.jsonl}}}}\n"
            "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: options\n"
            f"doc_to_target: {target}\nmetric_list: [{{metric: acc}}]\n"
        )
        text += "process_results: !function how.score\n" if name == "custom" else ""
        (own / f"{name}.yaml").write_text(text)
    (own / "how.py").write_text("def score(doc, results):\n    return {'acc': 1.0}\n")
    names = ("mmlu", "hellaswag", "gsm8k", "own", "several", "custom")
    _, tasks = evaluate.load_tasks(TaskSuite(names, (own,)))
    found = evaluate.chances(tasks)
    assert found.pop("hellaswag") == 0.25 and found.pop("own") == (1 / 2 + 1 / 4) / 2
    assert found.pop("several") == (1 / 2 + 2 / 4) / 2
    assert len(found) == 57 and set(found.values()) == {0.25}  # the subjects of MMLU
    assert evaluate.chances(tasks, limit=1)["own"] == 1 / 2
