"""Distances of all (first, n) against a bare pass through the decoder, and against one pass for each n."""

import common
import torch
from common import alternating, median_row, random_documents, ratio, report, seconds_of, target

from deeper_layers.data.batches import batches_by_length, padded
from deeper_layers.importance.angular import angular_distances

SHAPE = dict(layers=12, width=256, ffn=704, heads=8, vocabulary=8000)
BATCH_TOKENS = 2048


@torch.inference_mode()
def bare_pass(model, documents) -> None:
    """The decoder on the same batches, neither head nor loss."""
    for batch in batches_by_length([len(d) for d in documents], BATCH_TOKENS):
        model.base_model(input_ids=padded([documents[i] for i in batch])[0], use_cache=False)


@torch.no_grad()
def by_prune_me(model, documents, n: int, batch: int = 8) -> list[float]:
    """Our own statement of PruneMe's algorithm: for one n, the whole model with ``output_hidden_states``, in
    batches of 8 documents as they come, padded; then the mean angular distance of the last tokens, a block
    at a time. Its published figures take a run of this for each n."""
    sums = [0.0] * (model.config.num_hidden_layers - n + 1)
    for start in range(0, len(documents), batch):
        ids, last = padded(documents[start : start + batch])
        mask = torch.arange(ids.shape[1])[None] <= last[:, None]
        states = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        rows = torch.arange(len(ids))
        for first in range(len(sums)):
            a, b = states[first][rows, last], states[first + n][rows, last]
            cosine = torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1)
            sums[first] += (torch.arccos(cosine) / torch.pi).sum().item()
    return [total / len(documents) for total in sums]


def main(folder) -> None:
    common.threads()
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(common.llama_config(**SHAPE)).eval()
    layers = SHAPE["layers"]
    documents = random_documents(64, 16, 256, SHAPE["vocabulary"])
    few = documents[:24]
    ours = seconds_of(lambda: angular_distances(model, documents, BATCH_TOKENS))
    ours()  # the first pass also warms the kernels up
    times = alternating({"bare": seconds_of(lambda: bare_pass(model, documents)), "ours": ours}, repeats=7)
    ours_few = seconds_of(lambda: angular_distances(model, few, BATCH_TOKENS))
    tables = alternating(
        {
            "n by n": seconds_of(lambda: [by_prune_me(model, few, n) for n in range(1, layers + 1)]),
            "ours": ours_few,
        },
        repeats=2,
    )
    report(
        [
            median_row("bare pass through the decoder, 64 documents", times["bare"]),
            median_row("distances of all (first, n), 64 documents", times["ours"]),
            median_row("distances of all (first, n), 24 documents", tables["ours"]),
            median_row(f"PruneMe's algorithm for n = 1..{layers}, 24 documents", tables["n by n"]),
        ],
        [
            target(
                "all distances / bare pass",
                ratio(times["ours"], times["bare"]),
                1.05,
                "At this width the bookkeeping for each batch weighs more than in a large model; batches of "
                "more tokens would hide it.",
            ),
            target(
                "PruneMe's full table / all distances",
                ratio(tables["n by n"], tables["ours"]),
                layers / 2,
                "Fewer documents of more equal lengths leave less to gain from batches by length.",
                at_least=True,
            ),
        ],
        f"Llama, {layers} layers, width 256, vocabulary 8,000, fp32; documents of 16 to 256 tokens. PruneMe "
        "is not on PyPI and has no licence, so its algorithm is stated anew here, from its description.",
    )


if __name__ == "__main__":
    common.program(main)
