"""The tasks of lm-eval: found without parsing all of its files, and checked as far as that needs no model.
No torch, so that what is wrong is told before a GPU is waited for.
"""

from __future__ import annotations

import difflib
import itertools
import random
import re
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import lm_eval.tasks
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from ..errors import UserError
from ..settings.suites import generation_settings
from .job import TaskSuite

# Bars of libraries would fill the log; runtime.progress is what a person sees.
datasets.disable_progress_bars()

HOME = Path(lm_eval.tasks.__file__).parent
WRITTEN = 256  # tokens that lm-eval lets a model write where a task does not say
_WRITTEN = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def load_tasks(suite: TaskSuite) -> tuple[TaskManager, list[Task | Group]]:
    """lm-eval's manager and the suite's tasks and groups, built once for all blocks.

    Its own 14,000 task files are parsed (20 s) only when that cannot be avoided. Raises UserError for a
    name that nobody knows, and for a task that cannot be loaded: its data, a package, its file, its metrics.
    """
    fault = None
    for manager in _managers(suite):
        if set(suite.tasks) <= set(manager.all_tasks):
            try:
                return manager, _load(manager, suite)
            except (LookupError, TypeError) as error:  # perhaps a group of tasks from other folders
                fault = error
    name = next((name for name in suite.tasks if name not in manager.all_tasks), None)
    if name is None:
        raise _explained(", ".join(suite.tasks), fault, suite)
    raise UserError(_unknown(name, manager.all_tasks, suite))


def check_tasks(
    tasks: Sequence[Task | Group], config: Mapping, metric: str | None = None, generation: str | None = None
) -> None:
    """Raise UserError for a task that a model whose config.json holds ``config`` cannot be asked, or whose
    answers could not be scored, by ``metric`` if given. ``generation`` is that of ``settings.suites``."""
    longest = _longest(config)
    asked = generation_settings(generation)
    for task in _each(tasks):
        name = task.config.task
        if metric and metric not in (known := task.aggregation()):
            raise UserError(f"task {name!r} has no metric {metric!r}; it has {', '.join(known)}")
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"task {name!r} runs the programs that a model writes: this workflow does not")
        if task.OUTPUT_TYPE == "generate_until" and longest is not None:
            given = asked, task.config.generation_kwargs or {}
            lengths = [said[key] for said in given for key in _WRITTEN if said.get(key) is not None]
            written = int([*lengths, WRITTEN][0])
            if written >= longest:
                raise UserError(
                    f"task {name!r} lets the model write {written} tokens, and it has {longest} positions "
                    "for prompt and answer together; give the suite generation: max_gen_toks=N, or leave the "
                    "task out"
                )


def fetched(tasks: Sequence[Task | Group]) -> dict[str, dict]:
    """Of each task, those of groups included, its data set and how many documents are asked."""
    return {
        task.config.task: {
            "dataset": str(task.config.dataset_path),
            "name": task.config.dataset_name,
            "documents": len(task.eval_docs),
        }
        for task in _each(tasks)
    }


def answer_levels(tasks: Sequence[Task | Group], limit: int | None = None) -> dict[str, dict[str, float]]:
    """What a model that has not read the question scores, from the first ``limit`` documents (None: all):
    ``{"chance": {task: accuracy}, "majority": {task: accuracy}}`` of every task, those of groups included,
    that lm-eval scores by choosing.

    Chance is the mean of the part of a document's choices that are right. Majority is the share of the most
    frequent right answer, where all documents have the same choices. Left out are tasks that score in a way
    of their own, of which nothing can be told.
    """
    levels: dict[str, dict[str, float]] = {"chance": {}, "majority": {}}
    for task in _each(tasks):
        if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
            continue
        answers = [_choices(task, doc) for doc in itertools.islice(task.eval_docs, limit)]
        if not answers or not all(choices for choices, _ in answers):
            continue
        parts = [len(right) / len(choices) for choices, right in answers]
        levels["chance"][task.task_name] = sum(parts) / len(parts)
        if len({tuple(choices) for choices, _ in answers}) == 1:
            counts = Counter(index for _, right in answers for index in right)
            levels["majority"][task.task_name] = max(counts.values()) / len(answers)
    return levels


def _choices(task: Task, doc: dict) -> tuple[list[str], set]:
    """The choices of a document, and what its task says of the right ones: their numbers, as a rule."""
    right = task.doc_to_target(doc)
    return list(task.doc_to_choice(doc) or []), set(right) if isinstance(right, list) else {right}


def _longest(config: Mapping) -> int | None:
    """What lm-eval takes for the longest sequence of a model, as far as config.json says it."""
    text = config.get("text_config")
    config = text if isinstance(text, Mapping) else config
    names = ("n_positions", "max_position_embeddings", "n_ctx")
    return next((config[name] for name in names if type(config.get(name)) is int), None)


def _each(tasks: Sequence[Task | Group]) -> Iterator[Task]:
    for task in tasks:
        if isinstance(task, Group):
            yield from task.get_all_tasks()
        else:
            yield task


def _managers(suite: TaskSuite) -> Iterator[TaskManager]:
    """lm-eval's manager of the suite's own folders; of these and the folders of lm-eval that define its
    tasks; of all tasks."""
    own = list(suite.include)
    yield TaskManager(include_path=own, include_defaults=False)
    yield TaskManager(include_path=[*_homes(suite.tasks), *own], include_defaults=False)
    yield TaskManager(include_path=own)


def _homes(names: Sequence[str]) -> list[Path]:
    """The folders of lm-eval with a file that defines one of these tasks or groups, found as text."""
    words = "|".join(map(re.escape, names))
    defines = re.compile(rf"^(?:task|group):\s*[\"']?(?:{words})[\"']?\s*$", re.MULTILINE)
    files = HOME.rglob("*.yaml")
    return sorted({file.parent for file in files if defines.search(file.read_text(errors="replace"))})


def _load(manager: TaskManager, suite: TaskSuite) -> list[Task | Group]:
    items = {}
    for name in suite.tasks:
        try:
            loaded = manager.load(name)
        except Exception as error:  # tasks raise whatever they like
            if isinstance(error, LookupError | TypeError) and name in manager.all_groups:
                raise
            raise _explained(name, error, suite) from None
        for task in loaded["tasks"].values():
            _check_scoring(task, suite)
            if suite.order is not None:
                _shuffle_examples(task, suite.order)
            _build_once(task)
        items |= {name: loaded["groups"][name]} if name in loaded["groups"] else loaded["tasks"]
    return list(items.values())


def _unknown(name: str, known: Sequence[str], suite: TaskSuite) -> str:
    """What to say of a task that no file defines: a file of one's own that cannot be read is skipped by
    lm-eval without a word."""
    for folder in suite.include:
        for path in sorted(Path(folder).rglob("*.yaml")):
            try:
                load_yaml(path, resolve_func=False)
            except Exception as error:
                return f"no task {name!r}, and {path} cannot be read: {_line(error)}"
    near = difflib.get_close_matches(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    own = f", nor has {', '.join(map(str, suite.include))}" if suite.include else ""
    return f"lm-eval has no task {name!r}{own}: {hint}"


def _explained(name: str, error: Exception, suite: TaskSuite) -> UserError:
    """One line about a task that cannot be loaded, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return UserError(
            f"task {name!r} needs the Python package {package}, which is not installed: "
            f"`pip install {package}`, or leave the task out"
        )
    is_code = str(getattr(error, "filename", None) or error).endswith(".py")
    if isinstance(error, ConnectionError | FileNotFoundError) and not is_code:
        return UserError(
            f"no data for task {name!r} ({_line(error)}): is there a network, or a copy in the cache?"
        )
    folders = [HOME, *(Path(folder).resolve() for folder in suite.include)]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != HOME]
    at = [f for f in frames if any(folder in Path(f.filename).parents for folder in folders)]
    where = f" ({at[-1].filename}, line {at[-1].lineno})" if at else ""
    return UserError(f"task {name!r} cannot be loaded{where}: {type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _check_scoring(task: Task, suite: TaskSuite) -> None:
    """Raise UserError for metrics and aggregations that lm-eval looked for in vain, which it finds out once
    the answers are there, and for packages that only scoring imports."""
    name, custom = task.config.task, task.config.process_results is not None
    for metric, function in getattr(task, "_metric_fn_list", {}).items():
        if function is None and not custom:
            raise UserError(f"task {name!r}: there is no metric {metric!r} in lm-eval{_did_you_mean(metric)}")
    for metric, function in getattr(task, "_aggregation_list", {}).items():
        if function is None:
            raise UserError(f"task {name!r}: lm-eval has no such aggregation for its metric {metric!r}")
    answers = {"generate_until": [""], "loglikelihood_rolling": [-1.0], "loglikelihood": [(-1.0, False)]}
    try:
        doc = task.eval_docs[0]
        choices = task.doc_to_choice(doc) if task.OUTPUT_TYPE == "multiple_choice" else []
        task.process_results(doc, answers.get(task.OUTPUT_TYPE, [(-1.0, False)] * len(choices)))
    except ImportError as error:
        raise _explained(name, error, suite) from None
    except Exception:  # an empty answer may be none that it can score
        return


def _did_you_mean(metric: str) -> str:
    from lm_eval.api.registry import metric_registry

    near = difflib.get_close_matches(metric, list(metric_registry))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _shuffle_examples(task: Task, seed: int) -> None:
    """Show the examples of ``task`` in another order: MMLU's are the first ones of its dev split."""
    if hasattr(task, "sampler"):
        examples = list(task.sampler.df)
        random.Random(seed).shuffle(examples)
        task.sampler.replace_df(examples)


def _build_once(task: Task) -> None:
    """Let ``task`` keep its requests for the next block, with the answers wiped."""
    todo = [task.build_all_requests]

    def once(**how):
        while todo:
            todo.pop()(**how)
        for instance in task.instances:
            instance.resps, instance.filtered_resps = [], {}

    task.build_all_requests = once
