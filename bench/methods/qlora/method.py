"""QLoRA (Dettmers et al., 2023): LoRA over weights in NF4, which every forward and every backward dequantises anew.

The layers that train are quantised, and no others: embeddings, head and frozen blocks keep their dtype. Bytes are those
of the codes and their scales, since a fused kernel need write no dequantised copy; dequantising multiplies no matrices.
"""

from bench.methods.lora.method import LoRA
from bench.methods.method import Impl, Linear, Widths
from bench.methods.qlora.format import stored_bytes
from bench.methods.requirements import all_of, bitsandbytes, nf4_of_torchao, peft


class QLoRA(LoRA):
    """LoRA's operations, and its bytes but for the weight's."""

    label = "QLoRA"
    colours = ("#4a2c12", "#7a4a21", "#a86b38")
    quantises = True
    impls = {
        "eager": Impl("textbook PyTorch: NF4 dequantised in every forward and backward, two small GEMMs beside it"),
        "peft-fp32": Impl(
            "Hugging Face PEFT over bitsandbytes' NF4 as it comes: fp32 adapters",
            all_of(bitsandbytes, peft),
            fp32_adapters=True,
            in_fp32="peft",
            module="bench.methods.qlora.peft",
        ),
        "peft": Impl(
            "Hugging Face PEFT over bitsandbytes' NF4, adapters cast to the model's dtype", all_of(bitsandbytes, peft)
        ),
        "torchao": Impl("textbook PyTorch beside torchao's NF4Tensor, whose scales are 8-bit integers", nf4_of_torchao),
    }

    def weight_bytes(self, layer: Linear, width: Widths) -> int:
        return stored_bytes(layer.n, layer.k) + (layer.weights - layer.n * layer.k) * width.param


METHOD = QLoRA()
