"""Texts: the invented world, or a sample of documents; and which text a stage reads."""

from __future__ import annotations

from dataclasses import dataclass

from .base import REQUIRED, Settings, section, setting
from .precision import PRECISIONS

SPLITS = ("train", "calibration", "validation")
WORLD_TASKS = ("knowledge", "reasoning", "yesno")  # that are made from a generated text


@dataclass(frozen=True, kw_only=True)
class TextUse(Settings):
    """The text that a stage reads."""

    text: str = setting(str, REQUIRED, "Name of a key under texts.")


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    """The invented world: its people, its documents of each split, the questions of each task."""

    WHAT = "world"

    seed: int = setting(int, 0, "Seed of the world or of the sample.", least=0)
    people: int = setting(int, 80, "People of the world.", least=10, most=19_200)
    train: int = setting(int, 20_000, "Documents to train and heal on.", least=1)
    calibration: int = setting(int, 500, "Documents for the distances.", least=1)
    validation: int = setting(int, 1000, "Documents for the held-out loss.", least=1)
    questions: int = setting(int, 200, "Questions of each test, at most.", least=1)


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Settings):
    """Documents drawn from local files or from a data set: where from, and in which order."""

    WHAT = "sample"

    source: str = setting(
        str,
        REQUIRED,
        "generate, for the invented world; model, for what the uncut model writes itself; python, for the "
        "English that every Python carries; a file, a folder or a pattern (texts/**/*.jsonl) of .txt, .md, "
        ".jsonl, .json or .parquet; or a data set id of the Hugging Face hub (or a folder whose README.md "
        "configures one).",
    )
    name: str | None = setting(str, None, "Configuration of the data set, such as en.")
    revision: str | None = setting(str, None, "Commit of the data set. Default is the newest.")
    field: str = setting(str, "text", "Field of the records that holds the text.")
    buffer: int = setting(int, 10_000, "Documents of a data set that are shuffled at a time.", least=1)
    seed: int = setting(int, 0, "Seed of the world or of the sample.", least=0)


@dataclass(frozen=True, kw_only=True)
class ContinuationSettings(Settings):
    """What the uncut model goes on with from the beginnings of another text."""

    WHAT = "continuation"

    prompt_tokens: int = setting(
        int, 16, "Of a text of the model, tokens that a document begins with.", least=1
    )
    new_tokens: int = setting(int, 240, "Tokens that the model goes on with, at most.", least=1)
    temperature: float = setting(
        float, 1.0, "Of the distribution that they are drawn from; 0 takes the likeliest.", least=0
    )
    seed: int = setting(int, 0, "Seed of the world or of the sample.", least=0)
    precision: str = setting(str, "bf16", "Of the model that goes on.", choices=PRECISIONS)
    batch: int | None = setting(
        int,
        None,
        "Documents that the model writes at once; halved when memory runs out. Default is a fixed number.",
        determines=False,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class Splits(Settings):
    """Which split of the source each of ours is drawn from."""

    train: str | None = setting(str, None, "For healing.")
    calibration: str | None = setting(str, None, "For the distances.")
    validation: str | None = setting(str, None, "For the held-out loss.")


@dataclass(frozen=True, kw_only=True)
class Text(ContinuationSettings, WorldSettings, SampleSettings):
    """A text of the configuration."""

    WHAT = "texts"

    prompts: str | None = setting(
        str, None, "Text of the study whose documents begin as those of a text of the model."
    )

    splits: dict = section(
        Splits,
        "Split of the data set that each of ours is drawn from. Those from the same one are disjoint. Of "
        "local files, a split that names of files or folders say, or all. Default is, of a data set, train, "
        "validation and validation; of local files those that they name, or, if they name one or none, all "
        "documents are dealt.",
        default={},
    )
