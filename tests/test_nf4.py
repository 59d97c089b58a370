"""NF4 against its reference in plain torch: with the kernels of this machine, and with wrong ones put in."""

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from deeper_layers.errors import UserError
from deeper_layers.models import nf4
from deeper_layers.models.load import load_model
from deeper_layers.runtime import provenance
from helpers.wrong import kernel, last_columns_missing, scales_of_the_next_block

WIDTHS = [32, 48, 64, 66, 96, 97, 100, 128, 160, 576]


@pytest.fixture(autouse=True)
def the_kernel_of_the_library():
    """Each test begins and ends with bitsandbytes' own kernel and nothing recorded."""
    yield
    while nf4._replacement:
        nf4._replacement.pop()._destroy()
    provenance._recorded.pop("nf4", None)


def linear(width: int, rows: int = 80, dtype=torch.float32, double: bool = True) -> nn.Module:
    torch.manual_seed(width)
    layer = bnb.nn.Linear4bit(width, rows, compute_dtype=dtype, quant_type="nf4", compress_statistics=double)
    layer.weight.data = torch.randn(rows, width)  # blocks with scales of their own
    return layer.to(dtype).to("cpu")


def test_the_reference_is_the_definition():
    """By a loop over one weight: codes times scales, as QLoRA's appendix E has them."""
    weight = torch.randn(3, 50)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=False)
    expected = []
    for place, value in enumerate(weight.flatten().tolist()):
        scale = weight.flatten()[place // 64 * 64 : place // 64 * 64 + 64].abs().max().item()
        expected.append(scale * min(nf4.CODE, key=lambda code: abs(code - value / scale)))
    found = nf4.reference(packed, state, torch.arange(150))
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_our_dequantisation_is_exact_for_every_width(dtype, double):
    for width in [*WIDTHS, 1, 3, 63, 65]:
        packed, state = quantize_4bit(
            torch.randn(7, width).to(dtype), quant_type="nf4", compress_statistics=double
        )
        expected = nf4.reference(packed, state, torch.arange(7 * width)).view(7, width).to(dtype)
        nf4.replace_dequantisation()
        assert torch.equal(dequantize_4bit(packed, state), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", WIDTHS)
def test_nf4_is_right_after_the_check_whatever_the_machine(width, dtype):
    """On CPUs with AVX-512 bitsandbytes 0.50.2 is wrong for 32, 48, 96 and 160."""
    layer = linear(width, dtype=dtype)
    nf4.check_nf4(layer)
    state = layer.weight.quant_state
    expected = nf4.reference(layer.weight.data, state, torch.arange(80 * width)).view(80, width)
    for rows in (1, 5):
        inputs = torch.randn(rows, width, dtype=dtype)
        found = layer(inputs).double()
        exact = inputs.double() @ expected.double().T + layer.bias.double()
        assert (found - exact).norm() <= (1e-5 if dtype == torch.float32 else 0.01) * exact.norm()
    recorded = provenance.provenance()["nf4"]
    assert recorded["checked_shapes"] == [f"80x{width}"]
    assert recorded["dequantisation"] == ("plain torch" if nf4._replacement else "bitsandbytes")


@pytest.mark.parametrize("wrong", [scales_of_the_next_block, last_columns_missing])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_wrong_dequantisation_is_replaced_on_a_cpu(width, wrong, caplog):
    with kernel("dequantize_4bit", wrong):
        layer = linear(width)
        nf4.check_nf4(nn.Sequential(linear(64), layer))
        assert "bitsandbytes is wrong on this CPU (dequantised values are off by" in caplog.text
        assert provenance.provenance()["nf4"]["dequantisation"] == "plain torch"
        inputs = torch.randn(4, width)
        expected = nf4.reference(layer.weight.data, layer.weight.quant_state, torch.arange(80 * width))
        torch.testing.assert_close(layer(inputs), inputs @ expected.view(80, width).T + layer.bias)


def test_a_wrong_quantiser_ends_the_job():
    layer = linear(96)
    right = torch.library.get_kernel("bitsandbytes::quantize_4bit", "CPU")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    with (
        kernel("quantize_4bit", lambda w, *others: right.call_boxed(keys, w * (w < 2), *others)),
        pytest.raises(UserError, match="quantising is off .* for a weight of 80 x 96. Choose precision bf16"),
    ):
        nf4.check_nf4(layer)


def test_wrong_products_end_the_job():
    """As of a fused kernel that does not dequantise: nothing that could be replaced."""

    def wrong(inputs, weight, shape, *others, **named):
        return torch.zeros(*inputs.shape[:-1], shape[0])

    with (
        kernel("gemm_4bit", wrong),
        pytest.raises(UserError, match="a product with 1 rows is off by 1 for a weight of 80 x 64"),
    ):
        nf4.check_nf4(linear(64))


def test_every_model_that_is_loaded_in_nf4_is_checked(tmp_path, monkeypatch):
    shape = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 100, "vocab_size": 50}
    LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape)).save_pretrained(tmp_path)
    with kernel("dequantize_4bit", scales_of_the_next_block):
        load_model(tmp_path, "nf4")
        recorded = provenance.provenance()["nf4"]
    assert recorded == {"dequantisation": "plain torch", "checked_shapes": ["96x96", "100x96", "96x100"]}
    provenance._recorded.clear()
    load_model(tmp_path, "fp32")
    assert "nf4" not in provenance.provenance()
