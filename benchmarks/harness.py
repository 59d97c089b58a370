"""Questions after the same examples, of one model and of all cuts of it, against lm-eval's own HFLM."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import common
from common import alternating, figure, median_row, ratio, report, target

# SmolLM2-135M's shape, and the layers of it that `similarity` removes, n = 1 to 12.
SHAPE = dict(layers=30, width=576, ffn=1536, heads=9, vocabulary=49152, num_key_value_heads=3)
SIMILAR = [
    *("drop_25-25", "drop_25-26", "drop_13-15", "drop_12-15", "drop_11-15", "drop_13-18"),
    *("drop_12-18", "drop_11-18", "drop_2-10", "drop_2-11", "drop_2-13", "drop_2-15"),
]
DEEPEST = [f"drop_{29 - n}-28" for n in range(1, 13)]  # contiguous, up to the last layer but one
SUBJECTS, QUESTIONS, SHOTS = 2, 50, 5
WORDS = (60, 160)  # of a question, at least and at most: MMLU's have 110 on average
BATCHES, FEW = (1, 4, 16), 4  # HFLM is given the batch that is fastest with so many questions
TOLERANCE = 1e-4


def main(place: Path) -> None:
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import LlamaForCausalLM

    from deeper_layers.evaluation.harness import CutsLM, evaluate
    from deeper_layers.evaluation.job import TaskSuite
    from deeper_layers.evaluation.tasks import load_tasks
    from deeper_layers.models.layers import removed
    from deeper_layers.pruning.layer_set import FULL, LayerSet

    common.threads()
    torch.manual_seed(0)
    model = LlamaForCausalLM(common.llama_config(**SHAPE)).eval()
    tokenizer, names = words_tokenizer(), write_tasks(place)
    suite = TaskSuite(tuple(names), (place,), shots=SHOTS, samples=True)
    computed = []
    model.model.layers[0].mlp.register_forward_hook(
        lambda _, args, output: computed.append(output.shape[:2].numel())
    )

    def ours(cuts: list[str], checks: bool = True) -> dict[LayerSet, dict[str, list[float]]]:
        manager, tasks = load_tasks(suite)
        lm = CutsLM(model, tokenizer, [FULL, *map(LayerSet.parse, cuts)], None, "harness", None)
        if not checks:
            lm.scorer.can_share = lambda inputs: True
        return {cut: answers(results) for cut, results in evaluate(lm, suite, manager, tasks)}

    def theirs(batch: int, limit: int | None = None) -> dict[LayerSet, dict[str, list[float]]]:
        manager, tasks = load_tasks(suite)
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
        how = {"num_fewshot": SHOTS, "limit": limit, "bootstrap_iters": 0, "log_samples": True}
        return {FULL: answers(simple_evaluate(model=lm, tasks=tasks, task_manager=manager, **how))}

    found = {}  # what each subject answered last, and the tokens that its first layer read

    def timed(name: str, action: Callable, *words) -> Callable[[], float]:
        def measured() -> float:
            computed.clear()
            started = time.perf_counter()
            scores = action(*words)
            seconds = time.perf_counter() - started
            found[name] = scores, sum(computed)
            return seconds

        return measured

    tried = {batch: timed("", theirs, batch, FEW)() for batch in BATCHES}
    best = min(tried, key=tried.get)
    subjects = {
        "theirs": timed("theirs", theirs, best),
        "ours": timed("ours", ours, []),
        "unchecked": timed("unchecked", ours, [], False),
        "similar": timed("similar", ours, SIMILAR),
        "deepest": timed("deepest", ours, DEEPEST),
    }
    times = alternating(subjects, repeats=1)
    expected = found["theirs"][0][FULL]
    off = max(furthest(found[name][0][FULL], expected) for name in ("ours", "similar", "deepest"))
    cut = LayerSet.parse(SIMILAR[-1])
    with removed(model, cut):
        off = max(off, furthest(found["similar"][0][cut], theirs(best, FEW)[FULL]))
    assert off <= TOLERANCE, f"log-likelihoods are off by {off} nats"

    def row(what: str, name: str) -> dict:
        return median_row(what, times[name], tokens=found[name][1])

    def sweep(name: str, what: str) -> dict:
        of_all = f"all cuts {what} / HFLM on one model, seconds"
        return target(of_all, ratio(times[name], times["theirs"]), 1.5, WHY_SWEEP)

    checked, unchecked = (ratio(times["theirs"], times[name]) for name in ("ours", "unchecked"))
    fewer = found["theirs"][1] / found["unchecked"][1]
    cuts = len(SIMILAR)
    report(
        [
            row(f"lm-eval's HFLM, one model, batches of {best}", "theirs"),
            row("ours, one model", "ours"),
            row("ours, one model, without the check before it", "unchecked"),
            row(f"ours, with {cuts} cuts by similarity", "similar"),
            row(f"ours, with {cuts} cuts of the deepest layers", "deepest"),
        ],
        [
            target("HFLM / ours, one model, with the check, seconds", checked, 4, WHY_ONE, at_least=True),
            figure("HFLM / ours, one model, check aside, seconds", unchecked),
            sweep("similar", "by similarity"),
            sweep("deepest", "of the deepest layers"),
            figure("HFLM / ours, one model, check aside, tokens computed", fewer),
            target("largest difference from a log-likelihood of HFLM, nats", off, TOLERANCE, ""),
        ],
        f"Llama of the shape of SmolLM2-135M, random weights, fp32, {torch.get_num_threads()} threads; "
        f"{SUBJECTS} subjects of {QUESTIONS} questions of four choices, {SHOTS} examples of "
        f"{sum(WORDS) // 2} tokens on average before each, through lm-eval from the task's file to its "
        f"results. HFLM's batch is the fastest of {', '.join(map(str, BATCHES))}. Ours checks first that "
        "rows of several questions are exact: a row and three questions, however many there are; MMLU has "
        "14,042. Tokens are those that the first layer reads. "
        f"Cuts by similarity are those of SmolLM2-135M: {', '.join(SIMILAR)}; deepest: {DEEPEST[0]} to "
        f"{DEEPEST[-1]}. Log-likelihoods are compared for the uncut model and for {cut}.",
    )


def words_tokenizer():
    """One token for each of the words w3, w4, ..., and three that no text has."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos = special = ("<pad>", "<s>", "</s>")
    words = {word: number for number, word in enumerate(special)}
    words |= {f"w{number}": number for number in range(len(special), SHAPE["vocabulary"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=pad))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=pad
    )


def write_tasks(folder: Path) -> list[str]:
    """Tasks as MMLU's: of each subject the same examples, each question with four choices of a token."""
    names = [f"subject_{number}" for number in range(SUBJECTS)]
    rng = random.Random(0)
    for name in names:
        for split, count in (("dev", SHOTS), ("test", QUESTIONS)):
            words = [rng.choices(range(3, SHAPE["vocabulary"]), k=rng.randint(*WORDS)) for _ in range(count)]
            lines = [{"q": " ".join(f"w{number}" for number in one), "a": rng.randrange(4)} for one in words]
            (folder / f"{name}.{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = {split: str(folder / f"{name}.{split}.jsonl") for split in ("dev", "test")}
        says = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            "fewshot_split": "dev",
            "fewshot_config": {"sampler": "first_n"},
            "output_type": "multiple_choice",
            "doc_to_text": "{{q}} w9",
            "doc_to_target": "a",
            "doc_to_choice": ["w11", "w12", "w13", "w14"],
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        (folder / f"{name}.yaml").write_text(json.dumps(says))
    return names


def answers(results: dict) -> dict[str, list[float]]:
    """The log-likelihood of each choice of each question, by task."""
    return {
        name: [float(choice[0][0]) for document in documents for choice in document["resps"]]
        for name, documents in results["samples"].items()
    }


def furthest(found: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    """The largest difference of a log-likelihood of those questions that ``expected`` has."""
    assert found.keys() == expected.keys() and all(expected.values())
    return max(abs(a - b) for name in found for a, b in zip(found[name], expected[name], strict=False))


WHY_ONE = (
    "The check before it is as long as a row and three questions, however many there are: more questions "
    "close it."
)
WHY_SWEEP = (
    "Layers after the first fork run for each cut: cuts that begin early in the model share little with it."
)

if __name__ == "__main__":
    common.program(main)
