"""The studies that come with the project: valid, and the paper's with the paper's settings."""

import copy
import os
import resource
import subprocess
import sys

import pytest
import yaml

from deeper_layers.checkpoints.hub_cache import cached_file
from deeper_layers.errors import UserError
from deeper_layers.pruning.choices import Choice, write_choices
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.study import figures, options
from deeper_layers.study.plan import plan
from deeper_layers.study.schema import check_schema
from deeper_layers.study.study import Study
from helpers.config import LAYERS, ROOT, cache, checked, merged

STUDIES = sorted(set((ROOT / "studies").glob("*.yaml")) - {ROOT / "studies/template.yaml"})

# Appendix A.1 of the paper: model id, layers, maximum length, learning rate, LoRA rank, LoRA targets.
LLAMA, QWEN, PHI = ["gate_proj", "up_proj", "down_proj"], ["w2", "w1", "mlp.c_proj"], ["fc1", "fc2"]
APPENDIX = {
    "llama-2-7b": ("meta-llama/Llama-2-7b-hf", 2048, 3e-4, 2, LLAMA),
    "llama-2-13b": ("meta-llama/Llama-2-13b-hf", 4096, 3e-4, 64, LLAMA),
    "llama-2-70b": ("meta-llama/Llama-2-70b-hf", 4096, 3e-5, 8, LLAMA),
    "qwen-7b": ("Qwen/Qwen-7B", 2048, 3e-4, 64, QWEN),
    "qwen-14b": ("Qwen/Qwen-14B", 4096, 3e-4, 64, QWEN),
    "mistral-7b": ("mistralai/Mistral-7B-v0.1", 2048, 3e-6, 4, LLAMA),
    "phi-2": ("microsoft/phi-2", 2048, 2e-4, 64, PHI),
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Study of a file of studies/, its models' configurations in the cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def read(name: str) -> Study:
        config = merged(ROOT / f"studies/{name}.yaml")
        cache(tmp_path, config)
        check_schema(config)
        config = with_defaults(config)
        return checked(config)

    return read


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_valid_and_pins_what_it_can(path, study):
    found = study(path.stem)
    assert found.uncached_models == [] and found.out == f"results/{path.stem}"
    own = yaml.safe_load(path.read_text())
    assert set(found.models) == set(own["models"])  # nothing of the embedded study is left in it
    for model, settings in own["models"].items():
        assert found.model(model).n_layers == LAYERS[model]
        assert settings["revision"] is None or len(settings["revision"]) == 40
        assert not found.model(model).trust["trust_remote_code"]
    stages = [found.config["distances"]["text"]]
    stages += [found.recipe(recipe, model)["text"] for recipe in found.recipes for model in found.models]
    (text,) = set(stages)
    source = own["texts"][text]
    assert source["source"] == "python" or len(source["revision"]) == 40
    assert (text == "c4") == (source["source"] == "allenai/c4")
    assert ("field" in source) == (path.stem == "instruct")  # of conversations


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_no_setting_of_the_embedded_recipe_or_suites_shows_through(path):
    """Mappings are merged deeply: what a study does not name would keep config.yaml's small values."""
    base, own = yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load(path.read_text())
    for kind in ("recipes", "suites"):
        for name in set(base[kind]) & set(own[kind]):
            assert set(base[kind][name]) <= set(own[kind][name]), (kind, name)
    assert set(base["distances"]) <= set(own["distances"])
    assert set(base["suites"]["loss"]["loss"]) <= set(own["suites"]["loss"]["loss"])


def test_the_papers_study_has_the_settings_of_its_appendix(study):
    paper = study("paper")
    assert set(paper.models) == set(APPENDIX) and paper.removals("phi-2") == list(range(1, 32))
    for model, (source, length, rate, rank, targets) in APPENDIX.items():
        recipe = paper.recipe("healed", model)
        if targets == QWEN:  # the names that these have as Qwen2
            assert paper.models_to_convert("qwen") == ["qwen-7b", "qwen-14b"]
            targets = LLAMA
        assert paper.model(model).id == source
        assert (recipe["length"], recipe["learning_rate"], recipe["rank"]) == (length, rate, rank)
        assert recipe["targets"] == targets and recipe["alpha"] is None
        assert (recipe["steps"], recipe["batch"], recipe["warmup"]) == (5000, 16, 100)
        assert (recipe["dropout"], recipe["schedule"], recipe["precision"]) == (0.05, "cosine", "nf4")
        assert not recipe["packing"] and recipe["split"] == "train"
    texts, distances = paper.config["texts"]["c4"], paper.config["distances"]
    assert (texts["source"], texts["name"]) == ("allenai/c4", "en")
    assert texts["train"] == 5000 * 16 and distances["samples"] == texts["calibration"] == 10_000
    assert distances["split"] == "calibration"
    calibration, validation = (options.sample(paper, "c4", s) for s in ("calibration", "validation"))
    assert "--split validation" in calibration and "--split validation" in validation
    assert "--part 0 --parts 2" in calibration and "--part 1 --parts 2" in validation
    suites = paper.config["suites"]
    assert suites["loss"]["loss"]["sequences"] == 60_000
    assert {name: suites[name]["shots"] for name in ("mmlu", "boolq")} == {"mmlu": 5, "boolq": 0}
    assert {"hellaswag", "gsm8k"} < set(paper.suites) and figures.of_study(paper)[0] == "published"


def test_the_ablations_change_one_thing_each(study):
    """Figures 7, 8 and 9 on the paper's models, with what its appendix says of each."""
    found, ranks = study("ablations"), study("ranks")
    assert found.models == ["llama-2-13b"]
    assert ranks.models == ["mistral-7b", "llama-2-7b", "llama-2-70b"] and ranks.suites == ["mmlu", "loss"]
    for studied in (found, ranks):
        for model in studied.models:
            base = studied.recipe(studied.recipes[0], model)
            assert base["learning_rate"] == APPENDIX[model][2] and base["length"] == APPENDIX[model][1]
            for name in studied.recipes[1:]:
                recipe = studied.recipe(name, model)
                changes = {key for key in recipe if recipe[key] != base[key]}
                assert changes == {name.split("_")[0]} and recipe[changes.pop()] == int(name.split("_")[1])
    assert found.recipe("healed", "llama-2-13b")["rank"] == APPENDIX["llama-2-13b"][3]
    assert "recipes" in figures.of_model(ranks)
    healed = {c.strategy for c in ranks.expected("llama-2-70b")}
    assert healed == {"similarity", "deepest"}
    assert ranks.recipe("rank_8", "llama-2-70b")["strategies"] == ["similarity"]
    assert {"recipes", "prompts"} <= set(figures.of_model(found))
    asked = options.figure(found, "prompts").split()
    assert asked[:3] == ["--metrics", "mmlu_mmlu", "mmlu_1_shot_mmlu"] and len(asked) == 8
    for suite in found.suites[1:-1]:
        settings = found.config["suites"][suite]
        assert settings["tasks"] == ["mmlu"]
        number = int(next(part for part in suite.split("_") if part.isdigit()))
        assert (settings["shots"] if "shot" in suite else settings["order"]) == number


def dry_run(folder, name, *arguments, **variables):
    """(status, output, seconds on one core) of a dry run of a study in ``folder``."""
    (folder / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--dry-run", "--configfile", str(ROOT / f"studies/{name}.yaml"), *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | variables
    run = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run.returncode, run.stdout + run.stderr, seconds


def test_the_papers_graph_is_built_offline_from_cached_configurations(tmp_path):
    config = merged(ROOT / "studies/paper.yaml")
    cache(tmp_path / "cache", config)
    status, output, seconds = dry_run(tmp_path, "paper", HF_HUB_CACHE=str(tmp_path / "cache"))
    assert status == 0, output
    assert seconds < 30
    expected = {"download": 7, "adopt": 5, "convert_qwen": 2, "sample": 1, "tokenise": 7, "distances": 7}
    assert expected.items() <= counts(output).items() and counts(output)["blocks"] == 7
    assert not (tmp_path / "results").exists()


def counts(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from the last statistics that Snakemake printed."""
    lines = output.split("-------\n")[-1].split("\n\n")[0].splitlines()
    return {rule: int(count) for rule, count in (line.split() for line in lines if len(line.split()) == 2)}


def test_the_papers_whole_graph_is_built_once_the_blocks_are_chosen(tmp_path, monkeypatch):
    """As if all distances had been measured: every model's l*(n) is n apart from the deepest block's."""
    config = merged(ROOT / "studies/paper.yaml")
    cache(tmp_path / "cache", config)
    healed = 0
    for model in config["study"]["models"]:
        n_layers, folder = LAYERS[model], tmp_path / "results/paper" / model
        done = ["download.json", "checkpoints/full/manifest.json", "distances.csv", "distances.json"]
        done += ["../texts/c4/calibration.jsonl", "tokens/c4-calibration.json"]
        for name in done:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("here")
            os.utime(folder / name, (1e9, 1e9))
        choices = [Choice(strategy, FULL, 0.0) for strategy in ("similarity", "deepest")]
        for n in range(1, n_layers):
            deepest = n_layers - 1 - n
            choices += [Choice("similarity", LayerSet.contiguous(max(0, deepest - 5), n), 0.1)]
            choices += [Choice("deepest", LayerSet.contiguous(deepest, n), 0.2)]
            # Both strategies of Llama-2-70B are healed, a block that they share once.
            healed += 2 if model == "llama-2-70b" and deepest > 0 else 1
        write_choices(folder / "blocks.csv", choices)
    config["study"]["speed"] = True
    (tmp_path / "speed.yaml").write_text("study: {speed: true}")
    arguments = "speed.yaml", "--rerun-triggers", "mtime"
    status, output, seconds = dry_run(tmp_path, "paper", *arguments, HF_HUB_CACHE=str(tmp_path / "cache"))
    assert status == 0, output
    found = counts(output)
    assert found["heal"] == healed and found["cut"] == healed
    assert found["evaluate_healed"] == 5 * 7 * config["study"]["chunks"]
    assert found["evaluate_pruned"] == 7 * 5 and found["total"] > 1500 and seconds < 30
    # What `snakemake plan` says is to be done is what Snakemake does.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    config = with_defaults(config)
    costs = plan(checked(config)).stages.items()
    planned = {stage: cost.jobs - cost.done for stage, cost in costs if cost.jobs > cost.done}
    assert planned | {"all": 1, "total": found["total"]} == found


def test_what_is_not_in_the_cache_is_said_in_one_line(tmp_path):
    config = merged(ROOT / "studies/paper.yaml")
    del config["models"]["phi-2"]
    cache(tmp_path / "cache", config)
    status, output, _ = dry_run(tmp_path, "paper", HF_HUB_CACHE=str(tmp_path / "cache"))
    (said,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert status != 0 and "HF_HUB_OFFLINE is set: microsoft/phi-2; unset it, or run `hf download ID`" in said
    status, output, _ = dry_run(tmp_path, "paper", HF_HUB_CACHE=str(tmp_path / "cache"), HF_HUB_OFFLINE="0")
    assert (
        status == 0
        and "Not in the Hugging Face cache yet, number of layers unknown: microsoft/phi-2" in output
    )


def test_a_study_that_asks_for_too_many_layers_is_told_so(study):
    modern = study("modern")
    config = copy.deepcopy(modern.config)
    config["study"]["remove"] = [15, 16]
    with pytest.raises(UserError, match="n = 16 leaves nothing of llama-3.2-1b, which has 16 layers"):
        checked(config)
    assert cached_file("meta-llama/Llama-3.2-1B", None, "config.json")
