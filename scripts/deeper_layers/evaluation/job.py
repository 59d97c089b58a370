"""The files of an evaluation: which are wanted, which are there already, and what each was made from.

Every JSON carries a key, a hash of all that determines its numbers. A file with the right key is kept, so
that a job which died goes on where it was, and a longer list of blocks costs only the new ones.
No torch: a job with nothing left to do ends before any heavy import.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from ..checkpoints.folder import MANIFEST
from ..errors import UserError
from ..models.artifacts import Artifact, healed_artifact, open_artifact
from ..pruning.layer_set import FULL, LayerSet
from ..runtime.files import read_json, sha256, write_json
from ..runtime.provenance import provenance


@dataclass(frozen=True)
class TaskSuite:
    """Questions for lm-eval: names of tasks, groups or tags; the folders with tasks of our own; examples
    before each question (None: what each task says); the first ``limit`` documents of each task (None:
    all); whether the answer to every document is kept; a seed that shuffles the examples, for tasks that
    show the first ones (None: the order of the task); and how a model is asked, as ``settings.suites`` says.
    """

    tasks: tuple[str, ...]
    include: tuple[Path, ...] = ()
    shots: int | None = None
    limit: int | None = None
    samples: bool = False
    order: int | None = None
    bos: str | None = None
    chat: bool = False
    system: str | None = None
    generation: str | None = None
    think_end: str | None = None

    def facts(self) -> dict:
        """What determines the questions: our own task folders by content."""
        for folder in self.include:
            if not folder.is_dir():
                raise UserError(f"the task folder {folder} does not exist")
        return {**asdict(self), "include": [_folder(f) for f in self.include], "lm-eval": version("lm-eval")}


@dataclass(frozen=True)
class LossSuite:
    """Held-out text: the first ``sequences`` documents of a token file, cut to ``length`` tokens."""

    tokens: Path
    sequences: int
    length: int

    def facts(self) -> dict:
        """What determines the text: the token file by content."""
        if not self.tokens.is_file():
            raise UserError(f"token file {self.tokens} does not exist")
        return {**asdict(self), "tokens": sha256(self.tokens)}


@dataclass(frozen=True)
class PerplexitySuite:
    """Held-out text: the first ``documents`` (None: all) of a token file end to end, in windows of ``window``
    tokens, one every ``stride``."""

    tokens: Path
    documents: int | None
    window: int
    stride: int

    def facts(self) -> dict:
        """What determines the text: the token file by content."""
        if not self.tokens.is_file():
            raise UserError(f"token file {self.tokens} does not exist")
        return {**asdict(self), "tokens": sha256(self.tokens)}


class Job:
    """An evaluation of ``checkpoint``: of its cuts ``blocks`` into the folder ``out``, a JSON each and an
    index.json at the end; of what was made of these cuts by the healings in the folder ``healed``, into
    healed/BLOCK/SUITE.json and, at the end, an index ``out``; or, with ``blocks`` None, of itself, with the
    artifact of a healing in the folder ``adapter`` if given, into the JSON file ``out``.

    ``facts`` are the other things that determine the numbers; ``labels`` (suite, treatment) only say what
    the numbers are. ``missing`` lists the blocks still to be evaluated; for a checkpoint by itself
    this is FULL, since nothing more is removed from it. Raises UserError for a folder that is no
    checkpoint or no healing, and for a block that does not fit it.
    """

    def __init__(
        self,
        checkpoint: Path,
        blocks: Sequence[str] | None,
        adapter: Path | None,
        out: Path,
        facts: dict,
        labels: dict,
        healed: Path | None = None,
    ):
        manifest = checkpoint / MANIFEST
        if not manifest.is_file():
            raise UserError(
                f"{checkpoint} has no {MANIFEST}: make it with scripts/adopt.py or scripts/cut.py"
            )
        self.manifest = read_json(manifest)
        self.out, self.healed, self.by_block = out, healed, blocks is not None
        self.blocks = [LayerSet.parse(name) for name in dict.fromkeys(blocks)] if self.by_block else [FULL]
        if self.by_block and (adapter or self.manifest["block"] != "full"):
            raise UserError("--blocks are cuts of a whole model: give its uncut checkpoint and no adapter")
        if healed and not self.by_block:
            raise UserError("--healed holds a healing for each cut: give --blocks")
        for block in self.blocks:
            block.kept(self.manifest["n_layers"])
        artifact = open_artifact(adapter).digest() if adapter else None
        self.facts = {"manifest": sha256(manifest), "adapter": artifact, **facts}
        self.labels = {"model": self.manifest["model"], **labels}
        self._digests = {block: self.artifact(block).digest() for block in self.blocks} if healed else {}
        self.missing = [block for block in self.blocks if not self._is_done(block)]

    def artifact(self, block: LayerSet) -> Artifact:
        """What healed ``block``."""
        assert self.healed
        return healed_artifact(self.healed / str(block))

    def path(self, block: LayerSet) -> Path:
        if self.healed:
            return self.healed / str(block) / f"{self.labels['suite']}.json"
        return self.out / f"{block}.json" if self.by_block else self.out

    def facts_of(self, block: LayerSet) -> dict:
        """All that determines the numbers of ``block`` but its layers."""
        return {**self.facts, "adapter": self._digests[block]} if self.healed else self.facts

    def key(self, block: LayerSet) -> str:
        """What determines the numbers of ``block``, as a sha256."""
        return _digest({**self.facts_of(block), "block": self.name(block)})

    def name(self, block: LayerSet) -> str:
        """What is removed from the uncut model."""
        return str(block) if self.by_block else self.manifest["block"]

    @property
    def journal(self) -> Path:
        """Folder for answers that are not yet in a JSON; removed by ``finish``."""
        folder = self.out if self.by_block and not self.healed else self.out.parent
        return folder / ".answers" / f"{self.out.stem}-{_digest(self.facts)[:16]}"

    def journal_of(self, block: LayerSet) -> Path:
        """The same for a healed cut."""
        return self.journal / self.key(block)[:16]

    def write(self, block: LayerSet, result: dict) -> None:
        """Write the JSON of ``block``: ``result`` and, under ``deeper_layers``, where it is from."""
        source = {**self.labels, "block": self.name(block), "key": self.key(block)} | self.facts_of(block)
        write_json(self.path(block), {**result, "deeper_layers": provenance(**source)})

    def finish(self, layers: dict | None = None) -> None:
        """All is written: drop the journals and, for cuts, write index.json: the blocks with their keys, and
        ``layers``, how many layers were run for those that were missing."""
        folder = self.journal.parent
        for journal in folder.glob(f"{self.out.stem}-" + "[0-9a-f]" * 16):  # also of earlier settings
            shutil.rmtree(journal)
        with suppress(OSError):  # absent, or another evaluation has its journal there
            folder.rmdir()
        if self.by_block:
            keys = {str(block): self.key(block) for block in self.blocks}
            evaluated = [str(block) for block in self.missing]
            index = {**self.labels, "blocks": keys, "evaluated": evaluated, "layers": layers}
            if len(evaluated) == len(keys):  # for the pace of the jobs to come
                index |= {"seconds": provenance()["seconds"]}
            write_json(self.out if self.healed else self.out / "index.json", index)

    def _is_done(self, block: LayerSet) -> bool:
        try:
            return read_json(self.path(block))["deeper_layers"]["key"] == self.key(block)
        except (OSError, ValueError, LookupError, TypeError):
            return False


def _digest(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _folder(folder: Path) -> str:
    """A hash of the names and contents of all files in a task folder, and of the YAMLs that these include."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = {path.resolve(): str(path.relative_to(folder)) for path in found}
    todo = list(files)
    while todo:
        path = todo.pop()
        if path.suffix not in (".yaml", ".yml"):
            continue
        for name in re.findall(r"^include:\s*(\S.*?)\s*$", path.read_text(), re.MULTILINE):
            included = (path.parent / name.strip("\"'")).resolve()
            if included.is_file() and included not in files:
                files[included] = included.name
                todo.append(included)
    return _digest({"files": sorted((name, sha256(path)) for path, name in files.items())})
