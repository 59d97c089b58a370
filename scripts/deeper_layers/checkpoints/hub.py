"""Models of the Hugging Face hub: fetched into its cache, which is used as it is and never copied.

Only safetensors, configuration and tokenizer are fetched. Every fault that a user can mend is a UserError
of one line. The token is huggingface_hub's business: it is read by nothing here and printed nowhere.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from ..errors import UserError
from ..runtime.progress import Progress
from .folder import INDEX, SINGLE, SMALL, Checkpoint
from .hub_cache import cache_folder, cached_file, is_offline

UNREACHABLE = (httpx2.TransportError, OfflineModeIsEnabled)
COMMIT = re.compile(r"[0-9a-f]{40}")


def download(
    model_id: str,
    revision: str | None = None,
    code: bool = False,
    suits: Callable[[Path], None] = lambda config: None,
) -> dict:
    """Fetch a model into the cache, small files first, and say what it is: ``{"kind": "hub", "id",
    "revision" (the commit), "folder" (its snapshot), "bytes"}``.

    A commit that is whole in the cache needs no network; without a network neither does a branch.
    ``code`` also fetches the Python files; ``suits`` gets the path of config.json before anything large is
    fetched, and may raise. Raises UserError if the hub cannot be reached, does not have or
    does not open the model or revision, the model has no safetensors, or the disk no room.
    """
    if (is_offline() or COMMIT.fullmatch(revision or "")) and (cached := _cached(model_id, revision)):
        suits(Path(cached["folder"]) / "config.json")
        return cached
    try:
        return _fetch(model_id, revision, code, suits)
    except UNREACHABLE as error:
        if cached := _cached(model_id, revision):
            print(f"{constants.ENDPOINT} cannot be reached: taking {model_id} from the cache", flush=True)
            suits(Path(cached["folder"]) / "config.json")
            return cached
        raise to_user_error(error, model_id, revision) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise to_user_error(error, model_id, revision) from None


def to_user_error(error: Exception, name: str, revision: str | None = None, kind: str = "model") -> UserError:
    """What a user should know and do about an error of the hub when asked for a model or data set."""
    hub = constants.ENDPOINT
    page = f"{hub}/{'datasets/' if kind == 'dataset' else ''}{name}"
    what = "data set" if kind == "dataset" else kind
    match error:
        case GatedRepoError():
            token = (
                "the token in use does not open it yet"
                if get_token()
                else "then give its token: `hf auth login`, or the variable HF_TOKEN"
            )
            return UserError(f"{name} is gated: accept its licence at {page} with your account; {token}")
        case RevisionNotFoundError():
            return UserError(
                f"{name} has no revision {revision!r}: its commits are listed at {page}/commits/main"
            )
        case RepositoryNotFoundError():
            return UserError(
                f"there is no {what} {name} at {hub}, or it is private and no token at hand opens it "
                "(`hf auth login`)"
            )
        case HFValidationError():
            return UserError(f"{name!r} is neither a folder here nor an id of the hub, which is OWNER/NAME")
        case HfHubHTTPError():
            return UserError(
                f"{page}: the hub answers {error.response.status_code} {error.response.reason_phrase}; "
                "try again later"
            )
    why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else f"no answer from {hub}"
    at = f" --revision {revision}" if revision else ""
    if kind == "dataset":
        return UserError(
            f"{name} cannot be fetched: {why}. To work offline, run `hf download {name} --repo-type dataset"
            f"{at} --local-dir FOLDER` where there is a network, copy the folder here, and give it as source"
        )
    return UserError(
        f"{name} is not in the cache {cache_folder()} and cannot be fetched: {why}. To work offline, run "
        f"`hf download {name}{at}` where there is a network, copy the cache here, and set HF_HOME to it"
    )


def _fetch(model_id: str, revision: str | None, code: bool, suits: Callable[[Path], None]) -> dict:
    info = HfApi().model_info(model_id, revision=revision, files_metadata=True, timeout=10)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}

    def get(name: str, **how: Any) -> Path:
        return Path(hf_hub_download(model_id, name, revision=info.sha, **how))

    if "config.json" not in sizes:
        raise UserError(f"{model_id} has no config.json, so it is no checkpoint that transformers loads")
    folder = get("config.json").parent  # a gated model says so here, before anything large
    suits(folder / "config.json")
    weights = _weights(model_id, sizes, get)
    small = [name for name in sizes if SMALL.fullmatch(name) and "/" not in name]
    small += ["README.md"] if "README.md" in sizes else []  # the licence is in its head
    small += [name for name in sizes if code and name.endswith(".py") and "/" not in name]
    todo = [n for n in sorted(small) + weights if not _is_cached(model_id, info.sha, n, sizes[n])]
    _check_room(model_id, sum(sizes[name] for name in todo))
    with Progress(
        f"downloading {model_id}", max(1, sum(sizes[n] for n in todo) // 10**6), "megabyte"
    ) as progress:
        for name in todo:
            damaged = _is_cached(model_id, info.sha, name)
            get(name, tqdm_class=_bar(progress), force_download=damaged)
    if revision != info.sha:  # for the cache to know, offline, what commit the branch was
        hf_hub_download(model_id, "config.json", revision=revision)
    return _record(model_id, info.sha, folder)


def _weights(model_id: str, sizes: Iterable[str], get: Callable[[str], Path]) -> list[str]:
    """The safetensors files that hold the weights: the single one, or those that the index names."""
    if SINGLE in sizes:
        return [SINGLE]
    if INDEX in sizes:
        try:
            named = sorted(set(json.loads(get(INDEX).read_text())["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError):
            raise UserError(
                f"{model_id}: {INDEX} has no weight_map from tensor names to file names"
            ) from None
        shards = {name for name in sizes if name.endswith(".safetensors") and "/" not in name}
        if strangers := [name for name in named if name not in shards]:
            raise UserError(f"{model_id}: {INDEX} names {strangers[0]!r}, which is no shard of this model")
        return named
    others = sorted(n for n in sizes if n.endswith((".bin", ".pt", ".pth", ".gguf", ".h5", ".safetensors")))
    held = f"only {others[0]}" if others else "no weights"
    raise UserError(
        f"{model_id} has {held}, no {SINGLE} or {INDEX}, and only safetensors is loaded; convert it once "
        "with transformers (save_pretrained) and give the folder as source"
    )


def _check_room(model_id: str, needed: int) -> None:
    """Raise UserError if the disk of the cache lacks room for ``needed`` bytes."""
    folder = cache_folder()
    free = shutil.disk_usage(next(f for f in [folder, *folder.parents] if f.exists())).free
    if needed > free:
        raise UserError(
            f"{model_id} needs {needed / 1e9:.1f} GB in the cache {folder}, which has room for "
            f"{free / 1e9:.1f}: set HF_HOME to a folder on a larger disk"
        )


def _bar(progress: Progress) -> type[tqdm]:
    """huggingface_hub's progress bar of one file, which shows nothing and tells ``progress`` the MB."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **how: Any):
            super().__init__(*args, **how | {"disable": True})
            self.bytes = 0.0
            self.update(how.get("initial", 0))

        def update(self, n: float | None = 1) -> None:
            before, self.bytes = self.bytes, self.bytes + (n or 0)
            progress.update(int(self.bytes // 10**6 - before // 10**6))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes of the network, which ``update`` counts again when they reach the disk."""

    return Bar


def _is_cached(model_id: str, commit: str, name: str, size: int | None = None) -> bool:
    """Whether a file is in the cache, with ``size`` bytes if that is given."""
    path = try_to_load_from_cache(model_id, name, revision=commit)
    return isinstance(path, str) and size in (None, Path(path).stat().st_size)


def _cached(model_id: str, revision: str | None) -> dict | None:
    """The record of a model that is whole in the cache (its weights come last), else None."""
    config = cached_file(model_id, revision, "config.json")
    if config is None:
        return None
    try:
        Checkpoint.read(config.parent)
    except UserError as error:
        print(f"the cached {model_id} is not whole: {error}", flush=True)
        return None
    return _record(model_id, config.parent.name, config.parent)


def _record(model_id: str, commit: str, folder: Path) -> dict:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {"kind": "hub", "id": model_id, "revision": commit, "folder": str(folder), "bytes": weights}
