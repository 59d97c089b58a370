"""What config.json says that a model cannot do is one line before any work: while the Snakefile is read,
while the model is fetched, and in each program called by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from deeper_layers.checkpoints import limits
from deeper_layers.checkpoints.limits import check_lengths, positions
from deeper_layers.checkpoints.quantised import Asked
from deeper_layers.errors import UserError
from deeper_layers.study.asked import asked_by
from deeper_layers.study.checks import check
from deeper_layers.study.study import Study
from helpers.config import ROOT, changed, checked

GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_positions": 64}
LLAMA = {"model_type": "llama", "num_hidden_layers": 12, "max_position_embeddings": 64}
# The default configuration, whose lengths are all 128, with none beyond 64.
SHORT = {
    "distances__length": 64,
    "recipes__healed__length": 64,
    "suites__loss__loss__length": 64,
    "speed__prompt": 60,
    "speed__new": 4,
    "study__speed": True,
}


def warnings(folder: Path, config: dict, **changes) -> list[str]:
    """Of the default study on a model in a folder, with this config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_text("x")
    source = {"models__embedded": {"source": str(folder), "gpus": 0}}
    return check(Study(changed(**source | SHORT | changes)))


LONGER = [
    ("distances__length", 65, "distances.length: 65"),
    ("recipes__healed__length", 65, "recipes.healed.length: 65"),
    ("recipes__healed__models", {"embedded": {"length": 65}}, "recipes.healed.length: 65"),
    ("suites__loss__loss__length", 65, "suites.loss.loss.length: 65"),
    ("speed__new", 5, "speed.prompt + speed.new: 65"),
]


@pytest.mark.parametrize("key, value, said", LONGER)
def test_every_length_is_held_against_the_positions_of_the_model(key, value, said, tmp_path):
    for config in (GPT2, LLAMA):
        assert warnings(tmp_path / "m", config) == []
    with pytest.raises(UserError) as error:
        warnings(tmp_path / "m", GPT2, **{key: value})
    assert str(error.value) == (
        f"{said} tokens are more than the 64 positions of embedded, and a gpt2 model has no others; write at "
        "most 64"
    )
    (warning,) = warnings(tmp_path / "m", LLAMA, **{key: value})
    assert warning.startswith(f"{said} tokens are more than the 64 positions that embedded was made for")


def test_lengths_that_nothing_uses_are_not_held_against_the_model(tmp_path):
    unused = {"study__strategies": ["deepest"], "distances__length": 65}
    warnings(tmp_path / "m", GPT2, **unused)
    warnings(tmp_path / "m", GPT2, study__speed=False, speed__new=500)
    warnings(tmp_path / "m", GPT2, study__recipes=[], recipes__healed__length=65)


def test_a_model_that_the_study_trains_was_made_for_the_length_of_its_training():
    assert check(Study(changed())) == []
    (warning,) = check(Study(changed(recipes__healed__length=256)))
    assert "256 tokens are more than the 128 positions" in warning


@pytest.mark.parametrize(
    "config, wanted",
    [
        ({"model_type": "opt", "max_position_embeddings": 2048}, (2048, True)),
        ({"model_type": "gpt2"}, (1024, True)),  # the default of the class
        ({"model_type": "mpt", "max_seq_len": 8192}, (8192, True)),
        ({"model_type": "bloom", "seq_length": 2048}, (None, False)),
        ({"model_type": "falcon", "alibi": True, "max_position_embeddings": 2048}, (None, False)),
        ({"model_type": "falcon", "max_position_embeddings": 2048}, (2048, False)),
        ({"model_type": "mamba"}, (None, False)),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 32}}, (32, False)),
        (
            {
                "model_type": "qwen2",
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            (131072, False),
        ),
        (
            {
                "model_type": "llama",  # Llama 3.1, whose own number is the longer one
                "max_position_embeddings": 131072,
                "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192},
            },
            (131072, False),
        ),
        ({"model_type": "gemma3_text", "rope_parameters": {"full_attention": {}}}, (None, False)),
        ({"model_type": "llama", "max_position_embeddings": None, "text_config": None}, (None, False)),
    ],
)
def test_positions_are_read_from_what_families_call_them(config, wanted):
    assert positions(config) == wanted
    if wanted[0] and not wanted[1]:
        assert len(check_lengths(config, "m", {"x": wanted[0] + 1, "y": wanted[0]})) == 1


@pytest.mark.parametrize(
    "said, changes, line",
    [
        ({"quant_method": "gptq"}, {}, "embedded: the checkpoint is quantised already (GPTQ)"),
        ({"load_in_4bit": True}, {}, "embedded: the checkpoint is quantised already (bitsandbytes, 4 bits)"),
        (
            {"quant_method": "fp8"},
            {"recipes__healed__precision": "nf4"},
            "recipes.healed.precision: nf4: embedded: the checkpoint is quantised already (FP8)",
        ),
        (
            {"quant_method": "mxfp4"},
            {"distances__precision": "nf4"},
            "distances.precision: nf4: embedded: the checkpoint is quantised already (MXFP4)",
        ),
        (
            {"quant_method": "fp8"},
            {"suites__quiz__precision": "nf4"},
            "suites.quiz.precision: nf4: embedded: the checkpoint is quantised already (FP8)",
        ),
        (
            {"quant_method": "fp8"},
            {"suites__loss__loss__stream": True},
            "suites.loss.loss.stream: embedded: the checkpoint is quantised already (FP8)",
        ),
    ],
)
def test_a_quantised_checkpoint_is_refused_for_what_it_cannot_do(said, changes, line, tmp_path):
    fp32 = {"recipes__healed__precision": "fp32"}
    with pytest.raises(UserError) as error:
        warnings(tmp_path / "m", LLAMA | {"quantization_config": said}, **fp32 | changes)
    assert str(error.value).startswith(line) and "give the model that it was made from" in str(error.value)
    fp8 = {"quantization_config": {"quant_method": "fp8"}}
    assert warnings(tmp_path / "m", LLAMA | fp8, **fp32) == []


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "t5", "is_encoder_decoder": True, "num_layers": 12},
        {"model_type": "roberta", "num_hidden_layers": 12, "architectures": ["RobertaModel"]},
        {"model_type": "qwen2", "num_hidden_layers": 12, "architectures": ["Qwen2ForRewardModel"]},
    ],
)
def test_a_model_that_writes_no_text_is_refused(config, tmp_path):
    with pytest.raises(UserError, match="^embedded: .*(has an encoder|no causal language model)"):
        warnings(tmp_path / "m", config)


def run(program: str, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / f"scripts/{program}.py", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


PROGRAMS = {
    "distances": ["--tokens", "t", "--out", "d.csv", "--length", 65],
    "heal": ["--tokens", "t", "--out", "o", "--state", "s", "--length", 65, "--precision", "fp32"],
    "measure_speed": ["--blocks", "full", "--out", "s.csv", "--prompt", 60, "--new", 5],
    "evaluate": ["--suite", "l", "--out", "o", "--loss", "--tokens", "t", "--sequences", 9, "--length", 65],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_called_by_hand_checks_too_and_without_torch(program, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    done = run(program, "--checkpoint", tmp_path, "--log", tmp_path / "log", *PROGRAMS[program])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()  # so no GPU was looked for
    assert "65 tokens are more than the 64 positions of" in line
    (tmp_path / "config.json").write_text(
        json.dumps(LLAMA | {"quantization_config": {"quant_method": "fp8"}})
    )
    options = ["--precision", "nf4"]
    done = run(program, "--checkpoint", tmp_path, "--log", tmp_path / "log", *PROGRAMS[program], *options)
    assert done.stderr.startswith("error: --precision: nf4:") and "(FP8)" in done.stderr


def test_a_program_warns_in_its_log(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    arguments = Namespace(checkpoint=tmp_path, precision="bf16", stream=True)
    limits.check_arguments(arguments, {"--length": 65})
    assert capsys.readouterr().out.startswith("warning: --length: 65 tokens are more than the 64 positions")


def test_what_is_asked_reaches_the_program_that_fetches_a_model():
    study = checked(changed(study__speed=True, distances__stream=True))
    asked = asked_by(study, "embedded")
    assert asked.lengths["recipes.healed.length"] == 128 and asked.streamed == ["distances.stream"]
    again = Asked(**json.loads(json.dumps(asdict(asked))))
    assert limits.check(LLAMA, "m", again) and not limits.check(LLAMA, "m", Asked())
