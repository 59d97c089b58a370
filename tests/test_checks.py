"""What a program would refuse, or an overlay take over unseen, is refused while Snakemake reads the study."""

import copy

import pytest
import yaml
from snakemake.utils import update_config

from deeper_layers.errors import UserError
from deeper_layers.study import figures, options
from deeper_layers.study.overlay import effective
from deeper_layers.study.schema import check_schema
from deeper_layers.study.study import Study
from helpers.config import ROOT, checked, full_config, replaced


def changed(**changes) -> dict:
    """The default configuration, defaults filled in, with other values: changed(study__remove=[3])."""
    return replaced(full_config(), changes)


def fault(**changes) -> str:
    """The one line that the changed configuration is refused with."""
    with pytest.raises(UserError) as error:
        config = changed(**changes)
        check_schema(config)
        checked(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("remove", [[], [0]])
def test_to_remove_nothing_means_no_cuts_and_not_all(remove):
    study = checked(changed(study__remove=remove, study__strategies=["deepest"]))
    assert study.removals("embedded") == [] and "--remove --strategies" in options.blocks(study, "embedded")
    choices = study.expected("embedded")
    assert [str(block) for block in study.blocks(choices)] == ["full"]
    assert figures.of_model(study) == [] and figures.of_study(study) == []
    everything = checked(changed(study__remove="all"))
    assert everything.removals("embedded") == list(range(1, 12))
    assert "--remove" not in options.blocks(everything, "embedded")


def test_an_export_names_a_block_whatever_is_removed_and_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub = {"source": "us/model", "gpus": 0}
    for remove in ("all", [], [2]):
        for model in (hub, full_config()["models"]["embedded"]):
            checked(
                changed(
                    export=["embedded/healed/drop_6-9", "embedded/pruned/0"],
                    models__embedded=model,
                    study__remove=remove,
                )
            )
    assert "the study does not remove 3 layers; it removes 0, 2" in fault(
        export=["embedded/pruned/3"], study__remove=[2]
    )
    assert "block drop_6-99 does not fit a model of 12 layers" in fault(export=["embedded/pruned/drop_6-99"])
    assert "it removes 0" in fault(export=["embedded/pruned/3"], study__remove=[0])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"texts__world__people": 8}, "texts.world.people: 8 is too small; write at least 10"),
        ({"recipes__healed__warmup": 80}, "recipes.healed: warmup is 80 of 80 steps, it must be fewer"),
        (
            {"recipes__healed__cross_entropy": 0},
            "recipes.healed: cross_entropy, logits and interface are all 0",
        ),
        (
            {
                "recipes__healed__cross_entropy": 0,
                "recipes__healed__logits": 1,
                "recipes__healed__control": True,
            },
            "recipes.healed.control: qlora without cross_entropy does nothing to the uncut model",
        ),
        (
            {"recipes__healed__models": {"embedded": {"batch_tokens": 0}}},
            "recipes.healed.models.embedded.batch_tokens: 0 is too small; write at least 1",
        ),
        ({"recipes__healed__models": {"mini": {}}}, "recipes.healed.models: 'mini' is not known"),
        (
            {"models__embedded__pretrain__heads": 5},
            "models.embedded.pretrain: width is 128, it must be an even multiple of the 5 heads, such as 130",
        ),
        (
            {"suites__quiz__include": "."},
            "suites.quiz: text takes the tasks of the generated text world, include those of a folder",
        ),
        (
            {"suites__quiz__tasks": ["arc_easy"]},
            "suites.quiz.tasks: the generated text world has no task 'arc_easy', it has knowledge, rea",
        ),
        (
            {"suites__quiz": {"tasks": ["mine"], "include": "./nowhere", "precision": "fp32"}},
            "suites.quiz.include: there is no folder nowhere",
        ),
        (
            {"suites__quiz": {"tasks": ["mine"], "include": "rules", "precision": "fp32"}},
            "suites.quiz.include: rules has no .yaml file, so it defines no task",
        ),
        ({"texts__world__source": "./nowhere"}, "texts.world: there is no file or folder ./nowhere"),
        ({"distances__precision": "nf4", "distances__stream": True}, "distances: stream reads weights as"),
        (
            {"suites__loss__loss__precision": "nf4", "suites__loss__loss__stream": True},
            "suites.loss.loss: stream reads weights as they are",
        ),
        ({"hub": "a/b"}, "hub: 'a/b' is no name of an account"),
        ({"suites__quiz__tasks": ["-x"]}, "suites.quiz.tasks: '-x' begins with -"),
    ],
)
def test_settings_that_a_program_refuses_are_refused_before_anything_runs(changes, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = changed(**changes)
    if str(changes.get("texts__world__source", "")).startswith("."):  # whoever reads it first
        config["study"] |= {"suites": ["loss"]}
        with pytest.raises(UserError, match="texts.world: there is no file or folder ./nowhere"):
            checked(config)
        return
    assert said in fault(**changes)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"study__models": "mine"}, "study.models: 'mine' is not a list; write a list, as in [mine]"),
        ({"recipes__healed__learning_rate": "3e-4"}, "'3e-4' is a text to YAML; write 3.0e-4"),
        ({"recipes__healed__learning_rate": "1e5"}, "'1e5' is a text to YAML; write 1.0e+5"),
        ({"recipes__healed__learning_rate": "fast"}, "recipes.healed.learning_rate: 'fast' is not a number"),
        ({"recipes__healed__rank": 4.0}, "recipes.healed.rank: 4.0 is not a whole number; write 4"),
        ({"recipes__healed__rank": "4"}, "recipes.healed.rank: '4' is a text; write 4, without quotes"),
        ({"recipes__healed__rank": 0}, "recipes.healed.rank: 0 is too small; write at least 1"),
        ({"recipes__healed__packing": "yes"}, "packing: 'yes' is not true or false; write true or false"),
        ({"recipes__healed__learning_rate": float("inf")}, "learning_rate: inf is not a finite number"),
        ({"recipes__healed__steps": 10**12}, "steps: 1000000000000 is too large; write at most 2147483647"),
        ({"recipes__healed__targets": []}, "recipes.healed.targets: the list is empty; name at least one"),
        ({"study__remove": [1, 1]}, "study.remove: [1, 1] names something twice"),
        ({"study__remove": [1, "2"]}, "study.remove.1: '2' is a text; write 2, without quotes"),
        ({"models": None}, "models: nothing is written here; write a mapping"),
        (
            {"models__embedded__source": 7},
            "models.embedded.source: 7 is not a text; write a text, in quotes: '7'",
        ),
        ({"suites__quiz__batch": "many"}, "suites.quiz.batch: 'many' is neither auto nor a whole number"),
        ({"card": "a100"}, "card: 'a100' is not one of l4, rtx-4090"),
        ({"recipes": {1: {"text": "world"}}}, "recipes: the key 1 is no text; put it in quotes, as in '1'"),
        ({"texts__world__field": ""}, "texts.world.field: the text is empty"),
        ({"distances": {}}, "distances: the key text is missing"),
    ],
)
def test_a_fault_of_the_file_is_said_in_words(changes, said):
    assert said in fault(**changes)


# Overlays

OWN = {
    "outdir": "results/mine",
    "study": {"models": ["mine"], "remove": [1], "strategies": ["deepest"], "suites": ["loss"]},
    "models": {"mine": {"source": "us/model"}},
    "texts": {"c4": {"source": "allenai/c4", "name": "en"}},
    "suites": {"loss": {"loss": {"text": "c4", "sequences": 100}}},
}


def overlaid(own: dict, **changes) -> Study:
    """The study that the Snakefile makes of the default study and a file laid over it."""
    own = copy.deepcopy(own)
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = own
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            del place[key]
        else:
            place[key] = value
    merged = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(merged, own)
    return checked(effective(merged, own, "mine"))


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A hub that could be asked, nothing of it here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_a_study_of_a_model_of_its_own_takes_nothing_from_the_default_study(online):
    study = overlaid(OWN)
    assert set(study.config["models"]) == {"mine"} and set(study.config["texts"]) == {"c4"}
    assert study.recipes == [] and study.config["speed"]["prompt"] == 512
    # A suite of the same name is the file's alone: neither the length nor the text of the default one.
    assert study.config["suites"]["loss"]["loss"]["length"] == 2048
    quiz = overlaid(OWN, study__suites=["quiz"], suites__quiz={"tasks": ["arc_easy"]})
    assert "--include" not in options.evaluate(quiz, "quiz", "mine")
    assert not quiz.recipes


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"study__recipes": ["healed"]}, "study.recipes: 'healed' is not known"),
        ({"study__suites": ["quiz"]}, "study.suites: 'quiz' is not known"),
        ({"study__strategies": ["similarity"]}, "distances: the strategy similarity needs them"),
        ({"suites__loss__loss__text": "world"}, "suites.loss.loss.text: 'world' is not known"),
        ({"study__models": ["mine", "embedded"]}, "study.models: 'embedded' is not known"),
        ({"suites": None}, "the key suites is missing (a study of models of its own takes nothing from"),
        ({"outdir": None}, "outdir: this study of models of its own names none, and results is the default"),
    ],
)
def test_what_it_forgets_is_refused_and_not_taken_from_the_invented_world(online, changes, said):
    with pytest.raises(UserError) as error:
        overlaid(OWN, **changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_study_says_so_itself_if_a_real_model_is_to_be_measured_on_the_invented_world(online):
    world = yaml.safe_load((ROOT / "config.yaml").read_text())["texts"]["world"]
    study = overlaid(OWN, texts__world=world, suites__loss__loss__text="world")
    loss = study.suite("loss")["loss"]
    assert study.tokens("mine", loss) == "results/mine/mine/tokens/world-validation.json"


def test_a_variation_of_the_default_study_is_still_merged_with_it():
    study = overlaid({"study": {"remove": [1]}, "recipes": {"healed": {"rank": 4}}})
    assert study.out == "results" and study.recipe("healed", "embedded")["steps"] == 80
    small = {"study": {"models": ["small"]}, "models": {"small": {"source": "pretrain", "gpus": 0}}}
    small["models"]["small"]["pretrain"] = {"text": "world", "layers": 12}
    assert overlaid(small).suites == ["quiz", "loss"]
