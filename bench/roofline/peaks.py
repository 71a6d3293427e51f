"""What a GPU can do at best, by its maker's documents (gpus.yaml). Without torch."""

from dataclasses import dataclass

from bench.devices import find_known

PEAK_OF = {"bf16": "bf16", "amp-bf16": "bf16", "fp16": "fp16", "amp-fp16": "fp16", "fp32": "fp32"}


@dataclass(frozen=True)
class Peaks:
    """Dense peaks of one GPU; gpus.yaml says what each figure means and where it comes from."""

    key: str  # as in results/<key>/
    name: str
    sm_count: int
    bf16_tflops: float
    fp16_tflops: float
    fp32_tflops: float
    memory_tbs: float
    memory_gib: float
    source: str
    l2_mib: float | None = None  # an upper bound

    def tflops(self, precision: str) -> float:
        """The peak that bounds GEMMs of a case's precision, in TFLOP/s.

        bf16, fp16, amp-bf16 and amp-fp16: the tensor cores in that type. fp32: the ordinary cores, because torch's
        default keeps TF32 off in GEMMs (torch.backends.cuda.matmul.allow_tf32), and nothing here turns it on.
        """
        return float(getattr(self, f"{PEAK_OF[precision]}_tflops"))


def peaks_of(name: str, sm_count: int | None) -> Peaks | None:
    """The peaks of the GPU of that name, as NVML gives it, with that count of SMs (None where NVML does not say).

    None where gpus.yaml has no peaks for exactly this GPU. Its name must end in the whole name that gpus.yaml has, so
    that a MIG slice, a laptop GPU or a smaller version never gets the figures of another GPU.
    """
    known = find_known(name, sm_count, exact=True)
    return Peaks(key=known[0], **known[1]) if known and "memory_tbs" in known[1] else None
