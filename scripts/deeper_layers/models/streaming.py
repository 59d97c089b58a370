"""A model of which no more than two decoder layers are in memory: all samples pass through one layer, while
the next one is read from the safetensors files. Each weight is read once.

The layers are called one by one (see ``layerwise``), on the same batches and with the same kernels as in the
whole model, so the numbers are the same to the last digit. Between two layers the hidden states of all
samples wait in memory or, where there are too many, in a memory-mapped file.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig

from ..checkpoints.decoder_config import Decoder
from ..checkpoints.folder import Checkpoint, load_config
from ..checkpoints.layer_names import layer_names
from ..checkpoints.quantised import Asked, check_quantised
from ..errors import UserError
from ..runtime.memory import free_memory, is_out_of_memory
from .auto import model_class
from .layerwise import LayerwiseModel
from .load import DTYPES, device


class Stream(LayerwiseModel):
    """The causal language model in ``folder``, without its decoder layers and its head: they are loaded when
    their turn comes. ``precision`` is ``fp32`` or ``bf16``.

    Raises UserError for another precision, for weights that lack or have more tensors than the
    architecture, and, in use, for an architecture whose layers pass more than hidden states on.
    """

    def __init__(self, folder: str | Path, precision: str = "fp32", trust_remote_code: bool = False):
        if precision not in DTYPES:
            raise UserError(f"stream reads weights as they are, not as {precision}: write fp32 or bf16")
        # Else transformers reads with threads of its own, whose memory the allocator keeps for them.
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
        self.folder, self.device = Path(folder), device()
        config = load_config(folder, trust_remote_code)
        checkpoint = Checkpoint.read(folder)
        check_quantised(checkpoint.raw_config, str(folder), Asked(streamed=["stream"]), folder)
        if not trust_remote_code:
            checkpoint = checkpoint.without_leftovers()
        names = layer_names(checkpoint, Decoder.of(config))
        dtype = DTYPES[precision]
        with torch.device("meta"):
            model = model_class(config).from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
        super().__init__(model.eval())
        self.how = LoadStateDictConfig(
            dtype=dtype,
            dtype_plan=model._get_dtype_plan(dtype),
            device_map={"": self.device},
            weight_mapping=get_model_conversion_mapping(model),
        )
        self.files = {name: tensor.path for name, tensor in checkpoint.tensors.items()}
        self.in_layer: dict[int | None, list[str]] = defaultdict(list)
        for name in self.files:
            self.in_layer[names.index(name)].append(name)
        head = next((n for n, m in model.named_modules() if m is model.get_output_embeddings()), "no head")
        self.in_head = [name for name in self.in_layer[None] if name.startswith(f"{head}.")]
        self._load([name for name in self.in_layer[None] if name not in self.in_head])
        model.tie_weights()
        inside = set(self.layers.modules())
        self._complete([m for n, m in model.named_modules() if m not in inside and n != head])

    def walk(self) -> Iterator[int]:
        """The numbers of the layers, 0 to L - 1; each is in memory until the next number is asked for."""
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._load_layer, 0)
            for i, layer in enumerate(self.layers):
                coming.result()
                if i + 1 < len(self.layers):
                    coming = reader.submit(self._load_layer, i + 1)
                yield i
                layer.to("meta")
                _trim()

    def embedded(self, ids: Tensor) -> Tensor:
        """The hidden states [B, T, d] before layer 0."""
        return self.arguments(ids, last=0)[0][0]

    def layer(self, i: int, ids: Tensor) -> Callable[[Tensor], Tensor]:
        """Layer i, now in memory, as a function of hidden states [B, T, d] of the sequences ``ids`` [B, T].
        Sequences that do not fit in memory together go through it in parts."""
        others, named = self._last(self.arguments(ids, last=i))

        def run(states: Tensor) -> Tensor:
            try:
                return self._hidden_of(i, self.layers[i](states, *others, **named))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(ids) == 1:
                    raise UserError(
                        f"one sequence of {ids.shape[1]} tokens does not fit into memory: lower length"
                    ) from None
            free_memory()
            half = len(ids) // 2
            return torch.cat(
                [self.layer(i, ids[:half])(states[:half]), self.layer(i, ids[half:])(states[half:])]
            )

        return run

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [P, V] of hidden states [P, d], once all layers have run."""
        if self.in_head:
            self._load(self.in_head)
            self.in_head = []
        return super().head(hidden)

    def _last(self, arguments: list[tuple[Tensor, tuple, dict]]) -> tuple[tuple, dict]:
        """The other arguments of the last layer. UserError if they, or what happens to hidden states on the
        way to it, come from what the layers before it compute."""
        first, (hidden, others, named) = arguments[0][0], arguments[-1]
        if hidden is not first and not torch.equal(hidden, first):
            raise self._refusal("it changes hidden states between its layers")
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((others, named))):
            raise self._refusal("its layers pass on more than hidden states")
        return others, named

    def _hidden_of(self, i: int, output: Tensor | Sequence) -> Tensor:
        """The hidden states in what layer i returns. Tensors beside them, such as attention weights, go
        through later forward passes as tensors without values, so that a use of them is seen."""
        if i == len(self.outputs):
            self.outputs.append(tree_map_only(Tensor, lambda t: t.to("meta"), output))
        return output[0] if isinstance(output, tuple | list) else output

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"{type(self.model).__name__} cannot be streamed, {reason}: set stream to false")

    def _load_layer(self, i: int) -> None:
        self._load(self.in_layer[i])
        self._complete(self.layers[i].modules())

    def _load(self, names: Iterable[str]) -> None:
        """Load tensors of the checkpoint as transformers does, with its renaming and fusing of weights."""
        with ExitStack() as stack:
            files = {
                path: stack.enter_context(safe_open(path, framework="pt", backend="pread"))
                for path in dict.fromkeys(self.files[name] for name in names)
            }
            slices = {name: files[self.files[name]].get_slice(name) for name in names}
            info, _ = convert_and_load_state_dict_in_model(self.model, slices, self.how)
        self.model._adjust_missing_and_unexpected_keys(info)
        for what, keys in {
            "unexpected": info.unexpected_keys,
            "of another shape": info.mismatched_keys,
        }.items():
            if keys:
                raise UserError(f"{self.folder}: tensors are {what}: {sorted(map(str, keys))[:5]}")

    def _complete(self, modules: Iterable[nn.Module]) -> None:
        """Compute the buffers that no file holds, such as rotary frequencies; then nothing may be missing."""
        modules = list(modules)
        _compute_buffers(self.model, modules, self.device)
        missing = [
            f"{type(module).__name__}.{name}"
            for module in modules
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.is_meta
        ]
        if missing:
            raise UserError(f"{self.folder}: missing keys when loading: {missing[:5]}")


def _compute_buffers(model: PreTrainedModel, modules: Iterable[nn.Module], device: torch.device) -> None:
    """Give values to the buffers of ``modules`` that have none yet, as the ``model`` initializes them."""
    empty = [
        (module, name, buffer)
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_meta
    ]
    if not empty:
        return
    for module, name, buffer in empty:
        module._buffers[name] = torch.empty_like(buffer, device=device)
        module._is_hf_initialized = False
    # A few models fill the buffers of their layers from above.
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module._is_hf_initialized = False
    model.initialize_weights()


def _trim() -> None:
    """Give freed memory back to the system: glibc keeps that of tensors below 32 MB."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


class Store:
    """Keeps tensors: in host memory or, given a ``folder``, in a memory-mapped file there that has no name,
    so that it is gone when this process ends, however it ends."""

    def __init__(self, folder: str | Path | None = None):
        self.file = None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the store lives)
        self.end = 0
        self.free: dict[int, list[int]] = defaultdict(list)  # bytes -> places

    def keep(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A function that gives ``tensor`` back, on its device; without that function it is forgotten."""
        where = tensor.device
        tensor = tensor.detach().cpu()
        if self.file is None:
            return lambda: tensor.to(where)
        return _Mapped(self, tensor, where)

    def place(self, size: int) -> int:
        """Where in the file ``size`` bytes are free. Full disks are found here: to write to a map of what the
        disk has no room for kills the process."""
        if self.free[size]:
            return self.free[size].pop()
        start, self.end = self.end, self.end + size
        os.posix_fallocate(self.file.fileno(), start, size)
        return start


class _Mapped:
    """A tensor in the file of a store. It is mapped only while it is written or read."""

    def __init__(self, store: Store, tensor: Tensor, where: torch.device):
        self.store, self.dtype, self.shape, self.where = store, tensor.dtype, tensor.shape, where
        self.size = tensor.nbytes
        self.start = store.place(self.size)
        self._map("r+")[:] = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        weakref.finalize(self, store.free[self.size].append, self.start)

    def __call__(self) -> Tensor:
        return torch.from_numpy(np.array(self._map("r"))).view(self.dtype).view(self.shape).to(self.where)

    def _map(self, mode: str) -> np.memmap:
        return np.memmap(self.store.file, np.uint8, mode, self.start, (self.size,))
