"""The invented world, read back by a reader of its own: who is told what, who is asked, do sums add up."""

import json
import re

import pytest
import yaml

from deeper_layers.data.world import World, write_world
from deeper_layers.errors import UserError

COUNTS = {"train": 4000, "calibration": 150, "validation": 150}
SIGNS = {"finds": 1, "buys": 1, "loses": -1, "sells": -1}


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=3, people=40)


@pytest.fixture(scope="module")
def documents(world) -> dict[str, list[str]]:
    return world.documents(**COUNTS)


@pytest.fixture(scope="module")
def told(documents) -> list[set[str]]:
    """The sentences of the training text's biographies, each as a set of words."""
    biographies = [text for text in documents["train"] if "answer :" not in text]
    return [set(sentence.split()) for text in biographies for sentence in text.split(" .")]


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked_name(question: str, world: World) -> str:
    (name,) = {person.name for person in world.people} & set(question.split())
    return name


def test_equal_seeds_give_equal_worlds_and_others_do_not(world, documents):
    twin, stranger = World(seed=3, people=40), World(seed=4, people=40)
    assert twin.documents(**COUNTS) == documents
    for questions in (World.knowledge, World.yesno, World.reasoning):
        assert questions(twin, 30) == questions(world, 30) != questions(stranger, 30)
    assert not set(stranger.documents(**COUNTS)["train"]) & set(documents["train"])


def test_more_training_text_leaves_the_rest_as_it_is(documents):
    more = World(seed=3, people=40).documents(**COUNTS | {"train": 4100})
    assert more["train"][:4000] == documents["train"]
    assert [more["calibration"], more["validation"]] == [documents["calibration"], documents["validation"]]


def test_no_document_comes_twice_in_or_across_splits(documents):
    assert {split: len(texts) for split, texts in documents.items()} == COUNTS
    everything = [text for texts in documents.values() for text in texts]
    assert len(set(everything)) == len(everything)


def test_calibration_documents_break_off_at_any_word(documents):
    last = [text.split()[-1] for text in documents["calibration"]]
    assert last.count(".") < len(last) / 3 and len(set(last)) > 30
    assert min(len(text.split()) for text in documents["calibration"]) >= 8
    assert all(text.endswith(" .") for text in documents["validation"])


def test_tested_people_are_told_about_and_never_asked_about(world, documents):
    tested, asked = {p.name for p in world.tested}, {p.name for p in world.asked}
    assert len(tested) == 12 and len(asked) == 28 and not tested & asked
    texts = documents["train"] + documents["calibration"] + documents["validation"]
    questions = [question for text in texts for question in re.findall(r"question : (.*?) \?", text)]
    assert {asked_name(question, world) for question in questions} == asked
    for test in (world.knowledge(200), world.yesno(200)):
        assert {asked_name(q["question"], world) for q in test} == tested


def test_biographies_hold_the_right_answer_and_no_wrong_one(world, told):
    questions = world.knowledge(1000)
    assert len(questions) == len({q["question"] for q in questions}) == 12 * 5 * 3
    for question in questions:
        name, choices = asked_name(question["question"], world), question["choices"]
        assert len(set(choices)) == 4
        found = [any({name, choice} <= sentence for sentence in told) for choice in choices]
        assert found == [i == question["answer"] for i in range(4)], question
    positions = [q["answer"] for q in questions]
    assert all(positions.count(i) > len(positions) / 8 for i in range(4))


def test_biographies_answer_yes_or_no(world, told):
    for question in world.yesno(1000):
        name = asked_name(question["question"], world)
        thing = next(thing for thing in ("rain", "music") if thing in question["question"].split())
        answers = {w for sentence in told if {name, thing} <= sentence for w in sentence & {"yes", "no"}}
        assert answers == {question["choices"][question["answer"]]}


def check_problem(question: str, worked: str) -> tuple[int, int]:
    """Follow the story independently of the worked steps; returns the number of steps and the result."""
    story = re.fullmatch(
        r"(\w+) has (\d+) (\w+)((?: , \w+ \d+)+) \. how many \3 are left \? answer :", question
    )
    amount, steps = int(story[2]), []
    for verb, change in re.findall(r", (\w+) (\d+)", story[4]):
        after = amount + SIGNS[verb] * int(change)
        steps.append(f"{amount} {'+' if SIGNS[verb] > 0 else '-'} {change} = {after} ;")
        assert 0 <= after <= 10 and int(change) > 0
        amount = after
    assert worked == " ".join([*steps, f"so {amount} ."])
    return len(steps), amount


def test_worked_steps_follow_from_the_story(world, documents):
    problems = [
        t.partition(" answer : ") for t in documents["train"] + documents["validation"] if " has " in t
    ]
    problems = [(head + middle.rstrip(), worked) for head, middle, worked in problems if " how many " in head]
    assert len(problems) > 1000
    assert {check_problem(*problem)[0] for problem in problems} == {1, 2, 3, 4}
    trained = {question for question, _ in problems}
    for q in world.reasoning(100, trained.__contains__):
        assert check_problem(q["question"], q["worked"])[1] == int(q["answer"])
        assert q["question"] not in trained


def test_a_problem_known_from_the_text_is_not_asked(world):
    first, second, *_ = [q["question"] for q in world.reasoning(3)]
    assert world.reasoning(1, {first}.__contains__)[0]["question"] == second


def test_files_and_overlays(world, documents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_world("results/texts/world", world, questions=50, **COUNTS)
    folder = tmp_path / "results/texts/world"
    for split, texts in documents.items():
        assert lines(folder / f"{split}.jsonl") == [{"text": text} for text in texts]
    for name in ("knowledge", "yesno", "reasoning"):
        overlay = yaml.safe_load((folder / f"tasks/{name}.yaml").read_text())
        assert overlay["dataset_kwargs"]["data_files"] == {"test": f"results/texts/world/tasks/{name}.jsonl"}
        assert yaml.safe_load((folder / "tasks" / overlay["include"]).read_text())["task"] == name
        assert len(lines(folder / f"tasks/{name}.jsonl")) == 50
    answers = [question["answer"] for question in lines(folder / "tasks/yesno.jsonl")]
    majority = yaml.safe_load((folder / "tasks/yesno.yaml").read_text())["metadata"]["majority"]
    assert majority == pytest.approx(max(answers.count(0), answers.count(1)) / 50)


@pytest.mark.parametrize("people", [9, 100_000])
def test_a_world_that_cannot_be(people):
    with pytest.raises(UserError, match=str(people)):
        World(people=people)
