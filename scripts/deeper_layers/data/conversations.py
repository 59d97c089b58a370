"""Conversations: documents that are lists of messages, and which of their tokens are answers.

A document is a conversation if its field holds a list of {"role": ..., "content": ...}, as data sets for chat
models have it. It is written out by the chat template of the model's tokenizer; healing learns the answers
alone.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import UserError

ANSWERS = "assistant"  # whose turns are learned


class Conversation(str):
    """Messages as one JSON text, by which documents are compared and dealt."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return json.loads(self)


def as_conversation(value: Any) -> Conversation | None:
    """The messages in the field of a record; None if it holds none. Other keys of messages are left out."""
    if not isinstance(value, list) or not value:
        return None
    for message in value:
        if not isinstance(message, dict):
            return None
        if not all(isinstance(message.get(key), str) for key in ("role", "content")):
            return None
    messages = [{key: message[key] for key in ("role", "content")} for message in value]
    return Conversation(json.dumps(messages, ensure_ascii=False))


def tokenise_conversation(tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them are learned: those that follow the prompt for an answer,
    up to the next message.

    Raises UserError for a tokenizer without a chat template, one that refuses these messages, or one that
    writes a turn otherwise when others follow it.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the text holds conversations, and the tokenizer has no chat template to write them out by; take "
            "an instruct model, or a text that is written out"
        )

    def written(count: int, asks: bool = False) -> list[int]:
        how = {"tokenize": True, "return_dict": False, "add_generation_prompt": asks}
        return tokenizer.apply_chat_template(messages[:count], **how)

    try:
        ids = written(len(messages))
        learned = [False] * len(ids)
        for turn, message in enumerate(messages):
            if message["role"] != ANSWERS:
                continue
            before = written(turn, asks=True) if turn else []
            after = written(turn + 1)
            if ids[: len(before)] != before or ids[: len(after)] != after:
                raise UserError(
                    "the chat template writes an answer otherwise when messages follow it, so that what is "
                    "to be learned cannot be told; give conversations of one answer, at their end"
                )
            learned[len(before) : len(after)] = [True] * (len(after) - len(before))
    except UserError:
        raise
    except Exception as error:  # templates raise whatever they like
        said = str(error).splitlines() or [type(error).__name__]
        roles = ", ".join(message["role"] for message in messages[:4])
        raise UserError(f"the chat template refuses a conversation of {roles}: {said[0]}") from None
    return ids, learned
