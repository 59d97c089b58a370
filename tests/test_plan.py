"""What a study will cost: against the rules, against transformers' own models, and as `snakemake plan`."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml

from deeper_layers.checkpoints.shape import Shape
from deeper_layers.evaluation.inputs import ROW_TOKENS
from deeper_layers.pruning.choices import Choice, write_choices
from deeper_layers.pruning.layer_set import FULL, LayerSet
from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.settings.study import CARDS
from deeper_layers.study.gpu_specs import GPUS
from deeper_layers.study.jobs import jobs
from deeper_layers.study.pace import cpu_flops, paced
from deeper_layers.study.plan import plan
from deeper_layers.study.plan_page import markdown
from deeper_layers.study.study import Study
from deeper_layers.study.task_files import own_task
from deeper_layers.study.token_counts import TASKS, TaskSize, suite_tokens
from deeper_layers.study.workload import Workloads
from helpers.config import ROOT, cache, checked, full_config, merged
from helpers.small_study import run

LLAMA = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False, "torch_dtype": "float16"}
CONFIGS = {  # what the models' own config.json say of their shape
    "llama-2-7b": LLAMA
    | {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32},
    "llama-2-13b": LLAMA
    | {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40},
    "llama-2-70b": LLAMA
    | {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80}
    | {"num_key_value_heads": 8},
    "qwen-7b": {"model_type": "qwen", "vocab_size": 151936, "tie_word_embeddings": False}
    | {"hidden_size": 4096, "intermediate_size": 22016, "num_attention_heads": 32, "num_hidden_layers": 32},
    "qwen-14b": {"model_type": "qwen", "vocab_size": 152064, "tie_word_embeddings": False}
    | {"hidden_size": 5120, "intermediate_size": 27392, "num_attention_heads": 40, "num_hidden_layers": 40},
    "mistral-7b": {"model_type": "mistral", "vocab_size": 32000, "tie_word_embeddings": False}
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32}
    | {"num_key_value_heads": 8},
    "phi-2": {"model_type": "phi", "vocab_size": 51200, "tie_word_embeddings": False}
    | {"hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32, "num_hidden_layers": 32},
}
OTHERS = [
    {"model_type": "qwen3", "vocab_size": 151936, "tie_word_embeddings": True, "head_dim": 128}
    | {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16, "num_hidden_layers": 28}
    | {"num_key_value_heads": 8},
    {"model_type": "gemma3_text", "vocab_size": 262144, "head_dim": 256, "num_key_value_heads": 1}
    | {"hidden_size": 1152, "intermediate_size": 6912, "num_attention_heads": 4, "num_hidden_layers": 26},
    {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
    {"model_type": "opt", "vocab_size": 50272, "hidden_size": 2048, "ffn_dim": 8192}
    | {"num_hidden_layers": 24, "num_attention_heads": 32},
    {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336}
    | {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8}
    | {"num_experts_per_tok": 2, "tie_word_embeddings": False},
    {"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "moe_intermediate_size": 768}
    | {"num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128}
    | {"num_experts": 128, "num_experts_per_tok": 8, "intermediate_size": 6144, "tie_word_embeddings": False},
]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The paper's study, its models' configurations in the cache, in a folder of its own."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    config = merged(ROOT / "studies/paper.yaml")
    cache(tmp_path / "cache", config, CONFIGS)
    config = with_defaults(config)

    def read(**changes) -> Study:
        return checked(copy.deepcopy(config) | changes)

    return read


@pytest.mark.parametrize("config", [*CONFIGS.values(), *OTHERS], ids=lambda config: config["model_type"])
def test_sizes_are_those_of_transformers_models(config):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = Shape.from_config(config)
    if config["model_type"] == "qwen":  # which is run as Qwen2
        config = config | {"model_type": "qwen2", "intermediate_size": config["intermediate_size"] // 2}
        config["num_key_value_heads"] = config["num_attention_heads"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert shape.params == pytest.approx(model.num_parameters(), rel=0.01)
    assert shape.without(3).params < shape.params
    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    inside = sum(p.numel() for layer in model.modules() if layer is layers for p in layer.parameters())
    if "moe" not in config["model_type"] and config["model_type"] != "mixtral":
        assert shape.layer_params == pytest.approx(inside, rel=0.01)
    assert shape.active_params <= shape.params


def choose(study: Study, folder) -> None:
    """Write blocks.csv of each model as if every l*(n) began in the middle of what is possible."""
    for model in study.models:
        n_layers = study.model(model).n_layers
        choices = [Choice("similarity", FULL, 0.0)]
        choices += [
            Choice("similarity", LayerSet.contiguous((n_layers - n) // 2, n), 0.1) for n in range(1, n_layers)
        ]
        path = folder / f"results/paper/{model}/blocks.csv"
        path.parent.mkdir(parents=True)
        write_choices(path, choices)


def test_before_the_blocks_are_chosen_all_is_an_upper_bound(study, tmp_path):
    before = plan(study())
    assert before.stages["heal"].jobs == sum(study().model(m).n_layers - 1 for m in study().models) + 79
    chunks = study().config["study"]["chunks"]
    assert before.stages["evaluate_healed"].jobs == 5 * 7 * chunks and chunks > 1
    choose(study(), tmp_path)
    after = plan(study())
    assert after.total.jobs <= before.total.jobs and after.total.gpu_hours < before.total.gpu_hours
    assert after.total.bytes < before.total.bytes and after.stages["blocks"].done == 7
    for stage, cost in before.stages.items():
        assert after.stages[stage].jobs <= cost.jobs
    assert before.total.jobs == sum(cost.jobs for cost in before.stages.values())


def test_what_is_done_costs_nothing_more(study, tmp_path):
    before = plan(study()).models["phi-2"]
    for name in ("download.json", "distances.csv", "pruned/mmlu/index.json"):
        path = tmp_path / "results/paper/phi-2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    after = plan(study()).models["phi-2"]
    assert (after.jobs, after.done) == (before.jobs, 3)
    assert before.bytes - after.bytes == 2 * Workloads(study()).shape("phi-2").params  # the download
    assert after.gpu_hours < before.gpu_hours and after.tokens < before.tokens - 10_000 * 500


def test_a_70b_model_in_four_bits_fits_one_card_of_80_gb_and_16_bits_do_not(study):
    found = {(m.model, m.stage): m for m in plan(study()).memory}
    largest = found["llama-2-70b", "evaluate_pruned"]
    (in_four_bits, small), (in_sixteen, large) = largest.arithmetic
    assert (round(in_four_bits / 1e9, 2), small, round(in_sixteen / 1e9, 2), large) == (68.45, 0.52, 0.52, 2)
    assert 35 < largest.weights < 37.5
    assert all(m.fits for m in found.values())
    page = markdown(plan(study()))
    assert "68.45 G x 0.52 + 0.52 G x 2" in page and "1.1 x 36.6 + 6.0 = 46.3" in page
    assert "hours of one a100-80gb" in page and "GPU hours" in page
    distances = study().config["distances"] | {"precision": "bf16"}
    (said,) = [warning for warning in plan(study(distances=distances)).warnings if "in bf16" in warning]
    assert said == (
        "llama-2-70b, distances in bf16: 158 GB do not fit the 80 GB of a100-80gb; take precision nf4, or a "
        "larger card"
    )
    small = plan(study(card="a100-40gb"))
    assert {m.model for m in small.memory if not m.fits} == {"llama-2-70b"}
    assert "take a card with more memory" in small.warnings[0]


def test_hours_follow_the_card_and_the_layers_removed(study):
    def healing(removed=FULL, **changes):
        return Workloads(study(**changes)).healing("llama-2-70b", "healed", removed)

    whole, half, faster = healing(), healing(LayerSet.contiguous(20, 40)), healing(card="h100-80gb")
    assert 0.4 < half.seconds / whole.seconds < 0.51 and half.gpu_mem_mb() < whole.gpu_mem_mb()
    assert whole.seconds / faster.seconds == pytest.approx(0.8 * 989 / 312)
    # 5,000 steps of 16 documents of 500 tokens, 6 operations for each of 69 billion weights
    assert whole.seconds == pytest.approx(5000 * 16 * 500 * 6 * 68.7e9 / (0.37 * 312e12), rel=0.01)


def test_the_layers_before_a_cut_are_counted_once_for_what_is_scored(study):
    """One model, n = 4: the deepest block leaves one layer to run again; a text is generated by each cut."""
    paper = study(study=study().config["study"] | {"models": ["llama-2-7b"], "remove": [4]})
    paper.strategies = ["deepest"]
    works = Workloads(paper)
    one = works.healed_evaluation("llama-2-7b", "healed", "boolq", "full").tokens
    assert works.pruned_evaluation("llama-2-7b", "boolq").tokens == pytest.approx(one * 33 / 32)
    one = works.healed_evaluation("llama-2-7b", "healed", "gsm8k", "full").tokens
    assert works.pruned_evaluation("llama-2-7b", "gsm8k").tokens == pytest.approx(one * 60 / 32)


def test_questions_are_counted_by_limit_and_examples(study):
    paper = study()
    mmlu = paper.config["suites"]["mmlu"]

    def tokens(**settings):
        paper.config["suites"]["mmlu"] = mmlu | settings
        return Workloads(paper).healed_evaluation("phi-2", "healed", "mmlu", "full").tokens

    assert tokens(shots=0) == 14_042 * 110
    assert tokens() == 57 * 8 * 550 + 14_042 * 110  # 8 rows of 32 questions after the examples, at most
    assert tokens(shots=0, limit=10) == 570 * 110 and tokens(limit=10) == 57 * 550 + 570 * 110


@pytest.mark.parametrize("same_examples", [False, True])
@pytest.mark.parametrize("answer", [1, 30, 90])
@pytest.mark.parametrize("shots", [0, 1, 5, 30])
@pytest.mark.parametrize("inputs", [1, 4])
def test_what_questions_share_is_counted_as_it_is_run(inputs, shots, answer, same_examples, monkeypatch):
    """Against the rows of an evaluation of two parts of 40 questions of 110 tokens, 30 in a second."""
    import numpy as np

    from deeper_layers.evaluation.inputs import inputs_of
    from deeper_layers.evaluation.rows import rows_of

    rng = np.random.default_rng(0)

    def random(count: int) -> list[int]:
        return rng.integers(50_000, size=count).tolist()

    requests = []
    for _ in range(2):
        examples = random(shots * 110)
        for _ in range(40):
            context = (examples if same_examples else random(shots * 110)) + random(110 - answer)
            requests += [(context, [*random(answer), 0]) for _ in range(inputs)]
    rows = rows_of(inputs_of(requests, 10**6), max(ROW_TOKENS, 2 * (shots + 1) * 110))
    task = TaskSize(80, inputs, 110, parts=2, answer=answer, same_examples=same_examples)
    monkeypatch.setitem(TASKS, "quiz", task)
    counted = suite_tokens({"tasks": ["quiz"], "shots": shots}, None).scored
    assert counted == pytest.approx(sum(row.tokens for row in rows), rel=0.1)


def test_a_full_disk_is_foretold(study, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    (said,) = plan(study()).warnings
    assert "results/paper and " in said and "and 1 TB are free; shorten study.remove" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**15))
    assert plan(study()).warnings == []


def test_weights_in_the_cache_are_not_counted_again(study, tmp_path):
    before = plan(study()).models["phi-2"].bytes
    (config,) = (tmp_path / "cache/models--microsoft--phi-2").rglob("config.json")
    (config.parent / "model.safetensors").write_bytes(bytes(10**6))
    assert before - plan(study()).models["phi-2"].bytes == 10**6


def test_models_that_are_not_at_hand_are_named(study, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    known = plan(study()).stages["evaluate_pruned"]
    shutil.rmtree(tmp_path / "cache/models--microsoft--phi-2")
    shutil.rmtree(tmp_path / "cache/models--meta-llama--Llama-2-70b-hf")  # published cuts lie beyond layer 31
    planned = plan(study())
    (said,) = [line for line in markdown(planned).splitlines() if line.startswith("Taken for a Llama-2-7B")]
    assert "meta-llama/Llama-2-70b-hf, microsoft/phi-2 (`hf download ID config.json" in said
    assert 0.5 * known.tokens < planned.stages["evaluate_pruned"].tokens < known.tokens


def test_the_command_plans_and_runs_nothing_else(tmp_path):
    """The default study, in an empty folder."""
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    output = run(tmp_path, "plan", "--cores", "1")
    found = sorted(path.name for path in (tmp_path / "results").rglob("*") if path.is_file())
    assert [name for name in found if name[0] != "."] == ["plan.json", "plan.log", "plan.md"]
    page = (tmp_path / "results/plan.md").read_text()
    assert page in output and "| embedded " in page
    assert "a100" not in page and "GPU" not in page and "hours of CPU" in page  # of which it uses none
    facts = json.loads((tmp_path / "results/plan.json").read_text())
    assert facts["total"]["done"] == 0 and facts["total"]["gpu_hours"] == 0
    assert 0.1 < facts["total"]["cpu_hours"] < 0.8  # jobs of 0.35 hours, on the machine of the README
    stages = {stage: cost["jobs"] for stage, cost in facts["stages"].items()}
    assert stages["pretrain"] == stages["adopt"] == stages["distances"] == stages["table"] == 1
    study = yaml.safe_load((ROOT / "config.yaml").read_text())["study"]
    cuts = len(study["remove"]) * len(study["strategies"])  # and one control, that of the uncut model
    assert stages["cut"] == cuts and stages["heal"] == cuts + 1
    assert stages["evaluate_healed"] == len(study["suites"])
    # Told anew although its page is there, and of what is there by now.
    (tmp_path / "results/texts/world").mkdir(parents=True)
    (tmp_path / "results/texts/world/train.jsonl").write_text("")
    assert ", 1 of them done" in run(tmp_path, "plan", "--cores", "1")


def test_cards_have_the_names_of_the_settings():
    assert tuple(GPUS) == CARDS
    assert full_config()["card"] in GPUS


def test_jobs_to_come_go_at_the_pace_of_the_finished_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = checked(full_config())
    before = {job.output: job for job in jobs(study)}
    done, other, *_ = [job for job in before.values() if job.stage == "evaluate_healed"]
    Path(done.output).parent.mkdir(parents=True)
    Path(done.output).write_text(json.dumps({"seconds": 3 * done.seconds}))
    (paced_jobs, timed) = paced(jobs(study))
    after = {job.output: job for job in paced_jobs}
    assert timed == 1 and after[other.output].seconds == pytest.approx(3 * other.seconds)
    assert all(job.seconds == before[job.output].seconds for job in after.values() if not job.work)
    # Another stage goes by its own jobs once there are any.
    (pruned, *_) = [job for job in before.values() if job.stage == "evaluate_pruned"]
    assert after[pruned.output].pace == pytest.approx(3)
    Path(pruned.output).parent.mkdir(parents=True)
    Path(pruned.output).write_text(json.dumps({"seconds": pruned.seconds / 2}))
    after = {job.output: job for job in paced(jobs(study))[0]}
    assert after[pruned.output].pace == pytest.approx(0.5) and after[other.output].pace == pytest.approx(3)
    # What says nothing, or no JSON at all, is passed over.
    for text in ("", "[]", '{"seconds": null}', '{"seconds": "x"}'):
        Path(pruned.output).write_text(text)
        assert paced(jobs(study))[1] == 1
    assert "Where the finished job of the same kind took more or less" in markdown(plan(study))


def test_a_faster_thread_makes_a_shorter_plan_of_a_study_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = checked(full_config())
    slow, fast = plan(study, 20e9), plan(study, 80e9)
    assert fast.total.cpu_hours < slow.total.cpu_hours
    assert "at up to 80 G a second of a CPU thread (as measured here" in markdown(fast)
    assert 1e9 < cpu_flops(0.1) < 1e13


def test_tasks_of_ones_own_are_counted_in_their_files(tmp_path, study):
    questions = ROOT / "resources/questions"
    facts = own_task(questions, "facts")
    assert (facts["questions"], facts["inputs"]) == (431, 4) and 8 <= facts["tokens"] <= 12
    arithmetic = own_task(questions, "arithmetic")
    assert (arithmetic["questions"], arithmetic["inputs"], arithmetic["generated"]) == (180, 1, 5)
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: q.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: 'Q: {{q}}'\ndoc_to_choice: [a, b, c]\nx: !function a.b\n"
    )
    (tmp_path / "q.jsonl").write_text(2 * (json.dumps({"q": 37 * "x"}) + "\n"))
    counted = {"questions": 2, "inputs": 3, "tokens": 11, "generated": 0, "shots": 0}
    assert own_task(tmp_path, "mine") == counted | {"answer": 1, "same_examples": False}
    mine = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(mine + "num_fewshot: 5\nfewshot_config: {sampler: first_n}\n")
    own_task.cache_clear()
    assert {"shots": 5, "same_examples": True}.items() <= own_task(tmp_path, "mine").items()
    (tmp_path / "broken.yaml").write_text("task: [")
    assert own_task(tmp_path, "none") is None


def test_tasks_of_unknown_size_are_named(study):
    paper = study()
    assert plan(paper).guessed == []
    paper.config["suites"]["boolq"] |= {"tasks": ["boolq", "nobody_knows"]}
    planned = plan(paper)
    assert planned.guessed == ["nobody_knows"]
    assert "Taken for 10,000 questions of 500 tokens, because nothing is known of their size" in markdown(
        planned
    )
