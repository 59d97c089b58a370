# The study behind the rules: the configuration, checked, and what several stages ask of it.
import re
import sys
from pathlib import Path

import yaml
from snakemake.utils import validate

HERE = Path(workflow.basedir)
SCRIPTS = HERE / "scripts"
sys.path.insert(0, str(SCRIPTS))

from deeper_layers.blocks import FULL
from deeper_layers.code_hash import code
from deeper_layers.errors import UserError
from deeper_layers.study import Study, check_schema, options


def read_study() -> Study:
    """The study of the configuration, defaults filled in; one clear line and no run if it makes no sense."""
    schema = HERE / "resources/config.schema.yaml"
    try:
        check_schema(config, yaml.safe_load(schema.read_text()))
        validate(config, str(schema))
        return Study(config)
    except UserError as error:
        sys.exit(f"error: {error}")


study = read_study()
OUT = study.out

if study.unseen and workflow.is_main_process:
    unseen = ", ".join(study.source(model)["id"] for model in study.unseen)
    logger.info(
        f"Not in the Hugging Face cache yet, number of layers unknown: {unseen}"
    )


def names(known):
    """A wildcard constraint: exactly these names, or nothing at all."""
    return "|".join(re.escape(name) for name in known) or "(?!)"


wildcard_constraints:
    model=names(study.models),
    recipe=names(study.recipes),
    suite=names(study.suites),
    block=r"full|drop_\d+-\d+",
    split="train|calibration|validation",


def blocks_csv(model):
    """blocks.csv of a model, once it is made: the graph grows from it."""
    return checkpoints.blocks.get(model=model).output[0]


def threads_of(wildcards):
    """Small models on a CPU are fastest with one thread; beside a GPU, some serve the data."""
    return 8 if study.gpus(wildcards.model) else 1


def gpus(wildcards):
    return study.gpus(wildcards.model)
