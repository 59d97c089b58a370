"""A study as small as one can be, of a random Llama in a local folder, and Snakemake runs of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from helpers.config import ROOT, replaced

STUDY = {
    "outdir": "results",
    "study": {
        "models": ["tiny"],
        "remove": [1, 2],
        "strategies": ["similarity"],
        "recipes": ["healed"],
        "suites": ["loss"],
    },
    "models": {"tiny": {"source": "./tiny", "gpus": 0}},
    "texts": {
        "world": {
            "source": "generate",
            "people": 10,
            "train": 300,
            "calibration": 40,
            "validation": 30,
            "questions": 12,
        }
    },
    "distances": {"text": "world", "samples": 40, "length": 64, "precision": "fp32"},
    "recipes": {
        "healed": {
            "text": "world",
            "rank": 4,
            "steps": 6,
            "warmup": 1,
            "batch": 4,
            "length": 64,
            "learning_rate": 0.01,
            "precision": "fp32",
        }
    },
    "suites": {"loss": {"loss": {"text": "world", "sequences": 30, "length": 64, "precision": "fp32"}}},
}


def changed(**changes) -> dict:
    """STUDY with other values: ``changed(study__remove=[1])``."""
    return replaced(STUDY, changes)


def prepare(folder: Path, study: dict = STUDY) -> Path:
    """Write config.yaml and, into ``tiny``, a checkpoint with five layers; returns ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from deeper_layers.data.tokens import read_texts
    from deeper_layers.data.world import World, write_world
    from deeper_layers.pretraining.pretrain import word_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    write_world(folder / "text", World(0, 10), 5, train=300, calibration=40, validation=30)
    tokenizer = word_tokenizer(read_texts(folder / "text/train.jsonl"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    (folder / "config.yaml").write_text(yaml.safe_dump(study))
    return folder


def start(folder: Path, *arguments: str, output=subprocess.PIPE, **environment: str) -> subprocess.Popen:
    """The documented command in ``folder``, with more arguments; all that it says goes to ``output``."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | environment,
        text=True,
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """All that a run prints. Fails if it does."""
    process = start(folder, *arguments, **environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output
