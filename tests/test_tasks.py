"""lm-eval's own tasks, unmodified, on mirrors of their data: found without parsing all of its files."""

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
