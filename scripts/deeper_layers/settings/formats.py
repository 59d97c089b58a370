"""What else an exported checkpoint is written as, for other engines and for less memory. No torch."""

from __future__ import annotations

# Types of the weights in a GGUF file: those that llama.cpp's converter writes by itself, and those that its
# quantiser makes of a 16-bit file.
CONVERTED = ("f32", "f16", "bf16", "q8_0")
QUANTISED = {"q6_k": "Q6_K", "q5_k_m": "Q5_K_M", "q4_k_m": "Q4_K_M"}  # and llama.cpp's names of them
GGUF = (*CONVERTED, *QUANTISED)
NF4 = "nf4"
FORMATS = (*GGUF, NF4)
