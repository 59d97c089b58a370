"""Upload an exported checkpoint to the Hugging Face hub, as a private model."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..checkpoints.hub import UNREACHABLE, to_user_error
from ..errors import UserError


def push(folder: str | Path, model_id: str) -> dict:
    """Upload ``folder`` as the model ``model_id``, made if need be and then private, and say what it became:
    ``{"id", "revision" (the commit)}``.

    Raises UserError if there is no token, it may not write there, or the hub cannot be reached.
    """
    if get_token() is None:
        raise UserError(
            f"{model_id}: no token to write to the hub: `hf auth login`, or the variable HF_TOKEN"
        )
    try:
        api = HfApi()
        api.create_repo(model_id, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=model_id, folder_path=folder, commit_message="deeper-layers")
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UserError(f"{model_id}: the token in use may not write there") from None
        raise to_user_error(error, model_id) from None
    except (*UNREACHABLE, HFValidationError) as error:
        raise to_user_error(error, model_id) from None
    return {"id": model_id, "revision": commit.oid}
