"""Facts about model types (``model_type`` of a config.json) that their config.json does not state.

They decide what is refused and what is estimated, never a result.
"""

from __future__ import annotations

ENCODERS = {
    *("albert", "bert", "camembert", "clip", "deberta", "deberta-v2", "distilbert", "electra", "ernie"),
    *("esm", "flaubert", "layoutlm", "longformer", "luke", "modernbert", "mpnet", "nomic_bert", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "siglip", "vit", "wav2vec2"),
}

# Why layers cannot be removed.
REFUSED = {
    "beam": "its residual connections depend on the number of the layer",
    "diffllama": "its attention depends on the number of the layer",
    "gemma3n_text": "one tensor holds embeddings for all layers (hidden_size_per_layer_input)",
    "hrm_text": "it runs its layers several times",
    "jamba": "its config gives the kinds of its layers as periods only",
    "longcat_flash": "each of its layers counts as two",
    "minicpm3": "its residual connections are scaled by the number of layers",
    "rwkv": "its weights are rescaled by the number of the layer when they are loaded",
    "xlstm": "transformers cannot generate with its cache",
    "zamba": "layers share their weights",
    "zamba2": "layers share their weights",
    "zaya": "its experts' router carries a state from layer to layer",
}

# Generation counts the tokens of the cache in the first layer, which therefore has to attend.
FIRST_ATTENDS = {"minimax"}

# Those that hold one vector or table row for each position and so stop at their number: its default, where
# config.json does not name it. All others turn (rotary) or shift (ALiBi) by the distance of two tokens.
FIXED_POSITIONS = {
    "biogpt": 1024,
    "codegen": 2048,
    "ctrl": 256,
    "gpt2": 1024,
    "gpt_bigcode": 1024,
    "gpt_neo": 2048,
    "gptj": 2048,
    "mpt": 2048,
    "openai-gpt": 512,
    "opt": 2048,
}

UNGATED = {  # feed-forward networks of two matrices, not three
    *("arcee", "apertus", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj"),
    *("mpt", "nemotron", "opt", "phi", "starcoder2"),
}
# Their head is the embedding, where config.json does not say it (tie_word_embeddings).
TIED = {"bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt"}
