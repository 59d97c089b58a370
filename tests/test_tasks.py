"""lm-eval's own tasks, unmodified, on mirrors of their data: found without parsing all of its files."""

import json
import re
from pathlib import Path

import pandas
import pytest
import yaml

from deeper_layers.errors import UserError
from deeper_layers.evaluation import tasks as tasks_module
from deeper_layers.evaluation.job import TaskSuite
from deeper_layers.evaluation.tasks import answer_levels, check_tasks, load_tasks
from helpers import mirrors
from helpers.mirrors import SUBJECTS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_papers_tasks_load_from_their_own_folders(tmp_path):
    mirrors.mmlu(tmp_path, SUBJECTS)
    mirrors.boolq(tmp_path)
    mirrors.hellaswag(tmp_path)
    mirrors.gsm8k(tmp_path)
    names = ("mmlu", "boolq", "hellaswag", "gsm8k")
    manager, (mmlu, *tasks) = load_tasks(TaskSuite(names))
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
        load_tasks(TaskSuite(("hellaswagg",)))
    # A group of tasks from many folders; its data are not here.
    with pytest.raises(UserError, match="no data for task 'openllm' .*is there a network"):
        load_tasks(TaskSuite(("openllm",)))


def test_an_order_shows_the_same_examples_otherwise(tmp_path):
    mirrors.mmlu(tmp_path, SUBJECTS)

    def shown(order):
        _, (task,) = load_tasks(TaskSuite(("mmlu_anatomy",), shots=5, order=order))
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


def test_chance_and_majority_are_those_of_the_documents(tmp_path):
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
    _, tasks = load_tasks(TaskSuite(names, (own,)))
    levels = answer_levels(tasks)
    found = levels["chance"]
    assert found.pop("hellaswag") == 0.25 and found.pop("own") == (1 / 2 + 1 / 4) / 2
    assert found.pop("several") == (1 / 2 + 2 / 4) / 2
    assert len(found) == 57 and set(found.values()) == {0.25}  # the subjects of MMLU
    assert answer_levels(tasks, limit=1)["chance"]["own"] == 1 / 2
    # The letters are the same in all questions, and the documents have other choices each.
    assert levels["majority"].keys() == found.keys()
    questions = pandas.read_parquet(next((tmp_path / "cais/mmlu").rglob("*test*.parquet")))["answer"].tolist()
    most = max(map(questions.count, range(4))) / len(questions)
    assert set(levels["majority"].values()) == {most} and most > 0.25


OWN = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "own/docs.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def own(folder: Path, text: str | None = None, **changes) -> TaskSuite:
    """A suite of one task of one's own: OWN with other values, or a file of this ``text``."""
    place = folder / "own"
    place.mkdir(exist_ok=True)
    (place / "docs.jsonl").write_text('{"question": "who", "answer": "me"}\n' * 3)
    (place / "own.yaml").write_text(text if text is not None else yaml.safe_dump(OWN | changes))
    return TaskSuite(("own",), (place,))


WITHOUT_TEXT = yaml.safe_dump(OWN | {"doc_to_text": None})
FUNCTION = WITHOUT_TEXT.replace("doc_to_text: null", "doc_to_text: !function f.f")
METRIC = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
FAULTS = {
    "no data": (
        {"dataset_kwargs": {"data_files": {"test": "own/no.jsonl"}}},
        None,
        r"no data for task 'own' \(.*no.jsonl",
    ),
    "metric": (
        {"metric_list": [METRIC | {"metric": "exact_mach"}]},
        None,
        "there is no metric 'exact_mach' in lm-eval; did you mean exact_match",
    ),
    "aggregation": (
        {"metric_list": [METRIC | {"aggregation": "meen"}]},
        None,
        "no such aggregation for its metric 'exact_match'",
    ),
    "filter": (
        {"filter_list": [{"name": "x", "filter": [{"function": "tke_first"}]}]},
        None,
        "'own' cannot be loaded.*",
    ),
    "split": ({"test_split": "tets"}, None, "'own' cannot be loaded.*tets"),
    "field": ({"doc_to_text": "{{question.none.none}}"}, None, "'own' cannot be loaded"),
    "key": ({"out_put_type": "x"}, None, "'own' cannot be loaded.*out_put_type"),
    "kind": ({"output_type": "generate"}, None, "'own' cannot be loaded.*generate"),
    "no function": (FUNCTION, None, "'own' cannot be loaded.*module 'f'"),
    "syntax": (FUNCTION, "def f(doc:\n", "'own' cannot be loaded.*SyntaxError"),
    "name": (FUNCTION, "def g(doc):\n    return 1\n", "'own' cannot be loaded.*'f'"),
    "raises": (
        FUNCTION,
        "def f(doc):\n    return 1 / 0\n",
        r"'own' cannot be loaded \(.*f.py, line 2\): ZeroDivisionError",
    ),
    "package": (FUNCTION, "import no_such_package.x\n", "'own' needs the Python package no_such_package,"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_task_that_cannot_be_asked_is_one_line_with_its_name(fault, tmp_path):
    changes, code, said = FAULTS[fault]
    suite = own(tmp_path, changes) if isinstance(changes, str) else own(tmp_path, **changes)
    if code is not None:
        (tmp_path / "own/f.py").write_text(code)
    with pytest.raises(UserError, match=said) as error:
        load_tasks(suite)
    assert "own" in str(error.value) and "\n" not in str(error.value)


def test_a_package_that_only_scoring_needs_is_found_missing_before_there_are_answers(tmp_path):
    suite = own(tmp_path, yaml.safe_dump(OWN) + "process_results: !function score.score\n")
    (tmp_path / "own/score.py").write_text("def score(doc, results):\n    import no_such_package\n")
    with pytest.raises(UserError, match="task 'own' needs the Python package no_such_package"):
        load_tasks(suite)
    # What an empty answer does to a scorer says nothing about it.
    (tmp_path / "own/score.py").write_text("def score(doc, results):\n    return results[0][0]\n")
    load_tasks(suite)


def test_a_file_that_is_no_yaml_is_named_where_its_task_is_missed(tmp_path):
    """lm-eval skips it without a word. Only then are all of its own tasks searched."""
    suite = own(tmp_path, "task: own\n  x: [1\n")
    said = tasks_module._unknown("own", [], suite)
    assert re.match(r"no task 'own', and .*own.yaml cannot be read: mapping values", said)


def test_an_answer_longer_than_the_model_is_one_line_and_any_other_is_asked(tmp_path):
    _, tasks = load_tasks(own(tmp_path))
    check_tasks(tasks, {"max_position_embeddings": 9})
    with pytest.raises(UserError, match="task 'own' lets the model write 8 tokens, and it has 8 positions"):
        check_tasks(tasks, {"max_position_embeddings": 8})
    with pytest.raises(UserError, match="8 tokens, and it has 8 positions"):
        check_tasks(tasks, {"max_position_embeddings": 99, "text_config": {"n_positions": 8}})
    check_tasks(tasks, {"model_type": "mamba"})  # which says no length
    _, tasks = load_tasks(own(tmp_path, generation_kwargs={"until": ["."]}))
    with pytest.raises(UserError, match="lets the model write 256 tokens, and it has 128"):
        check_tasks(tasks, {"max_position_embeddings": 128})
    unsafe = own(tmp_path, unsafe_code=True)
    with pytest.raises(UserError, match="task 'own' runs the programs that a model writes"):
        check_tasks(load_tasks(unsafe)[1], {})
