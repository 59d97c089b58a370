"""Healing in real tokens a second: the recipe, packed, against a plain Trainer + peft loop with padding."""

import json
import sys
import time
from pathlib import Path

import common
from common import alternating, ratio, report, run, target

SHAPE = dict(layers=12, width=128, ffn=256, heads=4, vocabulary=320)  # the model of the default study
STEPS, BATCH, LENGTH, RANK = 20, 16, 128, 16


def ours(checkpoint: Path, tokens: Path, out: Path, packing: bool) -> float:
    """Tokens a second of our recipe, as it reports them itself."""
    from deeper_layers.healing.method import HealingFiles
    from deeper_layers.healing.training import heal
    from deeper_layers.settings.healing import Healing

    recipe = Healing(
        rank=RANK, steps=STEPS, warmup=2, batch=BATCH, length=LENGTH, packing=packing, precision="fp32"
    )
    heal(HealingFiles(checkpoint, tokens, out, out.with_suffix(".state")), recipe)
    return json.loads((out / "heal.json").read_text())["tokens_per_second"]


def plain(checkpoint: Path, tokens: Path, out: Path) -> float:
    """Tokens a second of the loop that tutorials show: documents in random order, each batch padded to its
    longest one, with an attention mask."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from deeper_layers.data.tokens import Tokens

    stored = Tokens(tokens)
    documents = [stored[d][:LENGTH] for d in range(len(stored))]
    seen = []

    def collate(rows: list) -> dict:
        seen.append(sum(map(len, rows)))
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for r, row in enumerate(rows):
            ids[r, : len(row)] = labels[r, : len(row)] = torch.from_numpy(row)
            mask[r, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            self.began = time.monotonic()

        def on_step_end(self, *_, **__):
            self.seconds = time.monotonic() - self.began

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint),
        LoraConfig(
            r=RANK, lora_alpha=RANK, lora_dropout=0.05, target_modules=["gate_proj", "up_proj", "down_proj"]
        ),
    )
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=3e-4,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
    )
    clock = Clock()
    Trainer(model, arguments, train_dataset=documents, data_collator=collate, callbacks=[clock]).train()
    return sum(seen[:STEPS]) / clock.seconds


def job(how: str, folder: str, number: str) -> None:
    """What a child does: one training run, with one thread, as jobs on small models have."""
    import torch

    torch.set_num_threads(1)
    folder = Path(folder)
    common_words = folder / "model", folder / "text.safetensors", folder / f"{how}-{number}"
    print(
        "tokens per second:", plain(*common_words) if how == "plain" else ours(*common_words, how == "packed")
    )


def main(place: Path) -> None:
    from deeper_layers.data.tokens import write_tokens

    run(sys.executable, __file__, "write", place / "model")
    documents = common.random_documents(3000, 8, LENGTH, SHAPE["vocabulary"])
    write_tokens(place / "text.safetensors", documents)
    numbers = iter(range(1000))

    def speed(how: str):
        def measured() -> tuple[float, float]:
            found = run(sys.executable, __file__, "job", how, place, next(numbers))
            return float(found.output.split()[-1]), found.peak_mb

        return measured

    runs = alternating({how: speed(how) for how in ("packed", "padded", "plain")}, repeats=3)
    speeds = {how: [tokens for tokens, _ in found] for how, found in runs.items()}

    def row(what: str, how: str) -> dict:
        import statistics

        return {
            "what": what,
            "tokens_per_second": statistics.median(speeds[how]),
            "from": min(speeds[how]),
            "to": max(speeds[how]),
            "peak_mb": statistics.median(peak for _, peak in runs[how]),
        }

    report(
        [
            row("our recipe, packed", "packed"),
            row("our recipe, a document a row (the paper's way)", "padded"),
            row("plain Trainer + peft, padded", "plain"),
        ],
        [
            target(f"{how} / plain, tokens a second", ratio(speeds[how], speeds["plain"]), 3.5, WHY, True)
            for how in ("packed", "padded")
        ],
        f"Llama, {SHAPE['layers']} layers, width {SHAPE['width']}, the shape of the default study, fp32, one "
        f"thread; LoRA of rank {RANK} on the feed-forward layers, {STEPS} steps of {BATCH} rows of up to "
        f"{LENGTH} tokens; documents of 8 to {LENGTH} tokens. Padding is not counted as tokens.",
    )


WHY = (
    "Half of a step are matrix products, at this machine's peak: adapters only behind the cut would spare "
    "the backward pass through the layers before it."
)

if __name__ == "__main__":
    common.program(main, SHAPE, job)
