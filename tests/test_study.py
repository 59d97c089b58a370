"""The configuration: its schema, its defaults, and one clear line for each kind of bad input."""

import json
import sys
from dataclasses import asdict

import pytest
import yaml

from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import Choice, write_choices
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.reporting.contents import Contents
from deeper_layers.settings.json_schema import schema
from deeper_layers.study import figures, options
from deeper_layers.study.inputs import contents
from deeper_layers.study.schema import check_schema
from helpers.config import ROOT, changed, checked, full_config


def test_the_default_configuration_is_valid_and_every_key_has_a_description():
    check_schema(yaml.safe_load((ROOT / "config.yaml").read_text()))
    checked(full_config())

    def described(mapping, path=""):
        for key, value in mapping.get("properties", {}).items():
            assert value.get("description"), f"{path}.{key} has no description"
            described(value, f"{path}.{key}")
        if isinstance(mapping.get("additionalProperties"), dict):
            described(mapping["additionalProperties"], f"{path}.*")

    described(schema())


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"study__models": ["embeded"]}, "study.models: 'embeded' is not known; did you mean 'embedded'?"),
        ({"study__strategies": ["deep"]}, "study.strategies: 'deep' is not known; did you mean 'deepest'?"),
        ({"study__recipes": ["healing"]}, "study.recipes: 'healing' is not known; did you mean 'healed'?"),
        ({"study__suites": ["mmlu"]}, "study.suites: 'mmlu' is not known; known: loss, quiz"),
        (
            {"study__remove": [1, 12]},
            "n = 12 leaves nothing of embedded, which has 12 layers; write at most",
        ),
        ({"study__stratgies": ["deepest"]}, "study: there is no key 'stratgies'; did you mean 'strategies'?"),
        (
            {"recipes__healed__learnin_rate": 1},
            "recipes.healed: there is no key 'learnin_rate'; did you",
        ),
        (
            {"recipes__healed__learning_rate": "2e-4"},
            "recipes.healed.learning_rate: '2e-4' is a text to YAML; write 2.0e-4",
        ),
        (
            {"recipes__healed__text": "word"},
            "recipes.healed.text: 'word' is not known; did you mean",
        ),
        ({"models__embedded__source": "./nowhere"}, "models.embedded.source: there is no folder nowhere"),
        ({"suites__loss__tasks": ["knowledge"]}, "suites.loss: give either tasks or loss or"),
        ({"suites__loss__metric": "acc"}, "suites.loss: metric is that of tasks, and this suite has none"),
        (
            {"suites__loss__perplexity": {"text": "world"}},
            "suites.loss: give either tasks or loss or perplexity",
        ),
        (
            {"suites__loss": {"perplexity": {"text": "world", "window": 8, "stride": 9}}},
            "suites.loss.perplexity: stride 9 leaves out tokens between windows of 8; write at most 8",
        ),
        (
            {"suites__loss": {"perplexity": {"text": "world", "split": "validation", "documents": 10_000}}},
            "suites.loss.perplexity.documents: 10000 documents are more than",
        ),
        (
            {"suites__loss__loss__sequences": 1001},
            "suites.loss.loss.sequences: 1001 documents are more than the 1000 of texts.world.validation;",
        ),
        (
            {"distances__samples": 501},
            "distances.samples: 501 documents are more than the 500 of texts.world",
        ),
        (
            {"texts__world__source": "allenai/c4"},
            "suites.quiz.text: only a generated text has tasks of its own",
        ),
        ({"study__remove": "some"}, "study.remove: 'some' is neither all nor a list of whole"),
    ],
)
def test_bad_input_is_one_clear_line(changes, said):
    with pytest.raises(UserError) as error:
        config = changed(**changes)
        check_schema(config)
        checked(config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_names_that_would_collide_in_the_results_folder_are_refused():
    for kind, name in (("models", "texts"), ("models", "a/b"), ("recipes", "pruned"), ("recipes", "tokens")):
        config = changed()
        config[kind][name] = next(iter(config[kind].values()))
        config["study"][kind] = [name]
        with pytest.raises(UserError, match="not a name that can be a folder"):
            checked(config)


def folder_with(tmp_path, *names, layers=4):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in names:
        content = json.dumps({"num_hidden_layers": layers}) if name == "config.json" else "x"
        (folder / name).write_text(content)
    return str(folder)


def test_a_folder_must_be_a_checkpoint_with_safetensors(tmp_path):
    empty = folder_with(tmp_path)
    with pytest.raises(UserError, match="has no config.json"):
        checked(changed(models__embedded={"source": empty, "gpus": 0}))
    (tmp_path / "checkpoint/config.json").write_text('{"num_hidden_layers": 4}')
    (tmp_path / "checkpoint/pytorch_model.bin").write_text("x")
    with pytest.raises(UserError, match="has no .safetensors file; save it with"):
        checked(changed(models__embedded={"source": empty, "gpus": 0}))


def test_layers_of_a_folder_are_read_before_anything_runs(tmp_path):
    folder = folder_with(tmp_path, "config.json", "model.safetensors")
    with pytest.raises(UserError, match="n = 4 leaves nothing of embedded, which has 4 layers"):
        checked(changed(models__embedded={"source": folder, "gpus": 0}))


def test_a_folder_is_known_by_its_content_not_its_date(tmp_path):
    folder = folder_with(tmp_path, "config.json", "model.safetensors", layers=20)
    study = checked(changed(models__embedded={"source": folder, "gpus": 0}))
    before = study.model("embedded").fingerprint
    weights = tmp_path / "checkpoint/model.safetensors"
    weights.touch()
    assert study.model("embedded").fingerprint == before
    weights.write_text("y")
    assert study.model("embedded").fingerprint != before


def test_options_do_not_depend_on_the_order_of_keys():
    assert (
        options.command_line({"b_c": 1, "a": ["x", "y"], "off": False, "none": None, "on": True})
        == "--a x y --b-c 1 --on"
    )
    assert options.command_line({"x": 1, "y": 2}) == options.command_line({"y": 2, "x": 1})


def test_a_recipe_heals_what_it_restricts_itself_to(tmp_path):
    path = tmp_path / "blocks.csv"
    write_choices(
        path,
        [
            Choice("similarity", FULL, 0.0),
            Choice("similarity", LayerSet.contiguous(3, 2), 0.1),
            Choice("similarity", LayerSet.contiguous(2, 4), 0.2),
            Choice("deepest", LayerSet.contiguous(5, 2), 0.3),
            Choice("deepest", LayerSet.contiguous(2, 4), 0.2),
            Choice("unasked", LayerSet.contiguous(0, 1), 0.9),
        ],
    )

    def healed(**restriction):
        config = changed()
        config["recipes"]["healed"].update(restriction)
        study = checked(config)
        return [str(b) for b in study.healed("healed", "embedded", study.choices(path))]

    assert healed(control=False) == ["drop_3-4", "drop_5-6", "drop_2-5"]  # the shared block once
    assert healed() == ["full", "drop_3-4", "drop_5-6", "drop_2-5"]
    assert healed(control=False, remove=[2]) == ["drop_3-4", "drop_5-6"]
    assert healed(control=False, strategies=["similarity"]) == ["drop_3-4", "drop_2-5"]
    one = {"embedded": {"strategies": ["deepest"], "remove": [2]}}
    assert healed(control=False, strategies=["similarity"], models=one) == ["drop_5-6"]


def test_the_results_say_which_cuts_a_recipe_healed(tmp_path):
    """As the rules write study.json and the programs read it."""
    config = changed(study__models=["embedded", "other"])
    config["models"]["other"] = config["models"]["embedded"]
    config["recipes"]["healed"] |= {"remove": [2], "models": {"other": {"strategies": ["deepest"]}}}
    choices = [
        Choice("similarity", LayerSet.contiguous(3, 2), 0.1),
        Choice("deepest", LayerSet.contiguous(5, 2), 0.3),
        Choice("deepest", LayerSet.contiguous(4, 3), 1),
    ]
    written = contents(checked(config), {"embedded": choices, "other": choices})
    (tmp_path / "study.json").write_text(json.dumps(asdict(written)))
    read = Contents.read(tmp_path / "study.json")
    healed = {"embedded": ["full", "drop_3-4", "drop_5-6"], "other": ["full", "drop_5-6"]}
    assert read == written and read.healed == {"healed": healed}
    assert read.suites == ["quiz", "loss"] and read.c4 == [] and not read.speed


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_file_that_does_not_say_what_a_study_holds_is_named(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match="study.json does not say what a study holds"):
        Contents.read(tmp_path / "study.json")
    with pytest.raises(UserError, match="other.json is missing"):
        Contents.read(tmp_path / "other.json")


def test_a_model_may_have_its_own_values_of_a_recipe():
    config = changed()
    config["recipes"]["healed"]["models"] = {"embedded": {"rank": 2}}
    study = checked(config)
    assert "--rank 2 " in options.heal(study, "healed", "embedded")
    assert study.recipe("healed", "another")["rank"] == config["recipes"]["healed"]["rank"]


def test_the_configuration_is_read_without_torch_or_pandas():
    import subprocess

    program = (
        "import sys; sys.path.insert(0, 'scripts'); import deeper_layers.study.inputs;"
        "import deeper_layers.study.plan; import deeper_layers.study.checks;"
        "import deeper_layers.study.code_hash;"
        "assert not {'torch', 'pandas', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def cached_config(home, model_id, **settings):
    folder = home / f"models--{model_id.replace('/', '--')}/snapshots/abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs/main").write_text("abc")


def test_layers_of_a_hub_model_are_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached_config(tmp_path, "us/model", text_config={"num_hidden_layers": 7})
    study = checked(
        changed(models__embedded={"source": "us/model", "revision": None, "gpus": 0}, study__remove=[6])
    )
    assert study.model("embedded").n_layers == 7 and study.uncached_models == []
    with pytest.raises(UserError, match="n = 7 leaves nothing of embedded, which has 7 layers"):
        checked(changed(models__embedded={"source": "us/model", "gpus": 0}, study__remove=[7]))


def test_a_hub_model_that_is_not_at_hand_is_named_when_offline_and_awaited_when_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not where the default study's own results may lie
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config = changed(models__embedded={"source": "us/model", "gpus": 0})
    with pytest.raises(UserError) as error:  # conftest.py sets HF_HUB_OFFLINE
        checked(config)
    assert str(error.value).startswith(f"not in the cache {tmp_path}, and HF_HUB_OFFLINE is set: us/model;")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert (
        checked(config).uncached_models == ["embedded"] and checked(config).model("embedded").n_layers is None
    )
    for source in ("us//model", "müller/model"):
        with pytest.raises(UserError, match=f"'{source}' is neither pretrain, nor a folder here, nor an id"):
            checked(changed(models__embedded={"source": source, "gpus": 0}))


def test_values_of_a_recipe_for_one_model_are_checked_like_the_others():
    config = changed()
    config["recipes"]["healed"]["models"] = {"embedded": {"rnk": 2}}
    with pytest.raises(
        UserError, match="recipes.healed.models.embedded: there is no key 'rnk'; did you mean 'rank'"
    ):
        check_schema(config)
    config["recipes"]["healed"]["models"] = {"embedded": {"learning_rate": "3e-4"}}
    with pytest.raises(
        UserError,
        match="recipes.healed.models.embedded.learning_rate: '3e-4' is a text to YAML; write 3.0e-4",
    ):
        check_schema(config)


def test_a_model_may_be_written_layer_by_layer(tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 12}')
    (tmp_path / "model.safetensors").touch()
    config = full_config()
    config["models"]["embedded"]["source"] = str(tmp_path)
    assert "--reshard" not in options.adopt(checked(config), "embedded")
    config["models"]["embedded"]["reshard"] = True
    assert "--reshard" in options.adopt(checked(config), "embedded").split()
    config["models"]["embedded"]["convert"] = "qwen"
    with pytest.raises(UserError, match="reshard: a converted model"):
        checked(config)


def test_code_of_a_model_runs_in_every_stage_or_in_none():
    for trusted in (True, False):
        study = checked(changed(models__embedded__trust_remote_code=trusted))
        stages = [
            options.adopt(study, "embedded"),
            options.trust(study, "embedded"),
            options.distances(study, "embedded"),
            options.heal(study, "healed", "embedded"),
            options.evaluate(study, "quiz", "embedded"),
            options.evaluate(study, "loss", "embedded"),
        ]
        assert [("--trust-remote-code" in words) for words in stages] == [trusted] * 6


def test_published_must_be_known_of_every_model_if_it_comes_first():
    with pytest.raises(UserError, match="published has no blocks of embedded, and figures show the first"):
        checked(changed(study__strategies=["published", "similarity"]))
    study = checked(changed(study__strategies=["similarity", "published"]))
    assert "distances" in study.evidence
    deepest = checked(changed(study__strategies=["deepest"]))
    assert "distances" not in deepest.evidence and figures.of_distances(deepest) == []


def test_first_generation_qwen_must_be_converted(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached_config(tmp_path, "Qwen/Qwen-7B", model_type="qwen", num_hidden_layers=32)
    source = {"source": "Qwen/Qwen-7B", "gpus": 1, "trust_remote_code": False}
    with pytest.raises(UserError, match="models.embedded: first-generation Qwen .*; write convert: qwen"):
        checked(changed(models__embedded=source))
    study = checked(changed(models__embedded=source | {"convert": "qwen"}))
    assert study.models_to_convert("qwen") == ["embedded"] and study.native_models == []
    assert study.model("embedded").n_layers == 32
