"""Tensors that older versions of transformers stored with a model and today's classes compute: masks and
rotary tables. transformers ignores them when it loads a model, and a cut leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .safetensors_io import Tensor

_COMPUTED = re.compile(
    r"(^|\.)(masked_bias|causal_mask|scale_attn|(original_)?inv_freq|(cos|sin)_cached|position_ids)$"
)
# A mask of N x N positions under the name of what is a vector else.
_MASK = re.compile(r"(^|\.)(self_)?(attn|attention)\.bias$")


def is_leftover(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this name and shape is one that no class of this transformers has as a weight."""
    if _MASK.search(name):
        return len(shape) > 1 and shape[-1] == shape[-2]
    return _COMPUTED.search(name) is not None


def strangers(unexpected: Iterable[str], tensors: Mapping[str, Tensor]) -> list[str]:
    """Of the names that a model class did not expect among the ``tensors`` of its checkpoint, those that are
    no leftovers, sorted. The class may have put a prefix before a name of the file, or taken one off."""
    known = [name for name, tensor in tensors.items() if is_leftover(name, tensor.shape)]

    def is_known(key: str) -> bool:
        return any(key == k or key.endswith(f".{k}") or k.endswith(f".{key}") for k in known)

    return sorted(key for key in unexpected if not is_known(key))
