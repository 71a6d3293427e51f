"""causes.csv, and the sentence made of it."""

import pytest

from bench.case.causes import CAUSES
from bench.errors import UserError
from bench.record.causes import CAUSES_CSV, Part, Split, read_causes, sentence, write_causes
from bench.record.stats import Estimate

FULL = Split({"base_forward": Part(60.0, 59.0, 61.0, 12, 1e9, 2e12), "norms": Part(2.0)}, 1.02, 0.01, "operators")
LORA = Split(
    {"base_forward": Part(61.0, 60.0, 62.0, 12, 1e9, 2e12), "branch": Part(20.0), "casts": Part(10.0)}
    | {"norms": Part(2.0)},
    1.0, 0.02, "operators",
)  # fmt: skip


def test_what_was_written_is_read_again(tmp_path):
    splits = {("0123456789ab", "forward", "cpu-time"): LORA, ("0123456789ab", "backward", "cpu-time"): FULL}
    write_causes(tmp_path, splits)
    assert read_causes(tmp_path) == splits


def test_a_folder_without_the_file_has_no_causes(tmp_path):
    assert read_causes(tmp_path) == {}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("branch", "magic", "cause is 'magic'; valid: base_forward"),
        ("61.0", "-61.0", "ms"),
        ("61.0", "nan", "ms"),
        ("61.0", "6100.0", "no interval"),
        ("forward,cpu-time", "sideways,cpu-time", "pass is 'sideways'"),
        ("operators", "tea leaves", "source is 'tea leaves'"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(tmp_path, old, new, told):
    write_causes(tmp_path, {("0123456789ab", "forward", "cpu-time"): LORA})
    path = tmp_path / CAUSES_CSV
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"{CAUSES_CSV}:[0-9]") as refused:
        read_causes(tmp_path)
    assert told in str(refused.value)


@pytest.mark.parametrize("words", ["", "x,y\n", "case_id,pass,clock,cause\n0123456789ab,forward,cpu,branch\n"])
def test_a_file_of_other_columns_is_refused_before_anything_replaces_it(tmp_path, words):
    (tmp_path / CAUSES_CSV).write_text(words)
    with pytest.raises(UserError, match="no column"):
        read_causes(tmp_path)


def test_the_differences_of_the_causes_add_up():
    beyond = LORA.beyond(FULL)
    assert sum(e.value for e in beyond.values()) == pytest.approx(LORA.total_ms - FULL.total_ms)
    assert list(beyond) == [cause for cause in CAUSES if cause in LORA.parts]
    assert beyond["base_forward"] == Estimate(1.0, 1 - 2**0.5, 1 + 2**0.5)


def test_the_sentence_of_a_slower_pass():
    told = sentence("LoRA peft-fp32", "Full-FT eager", "forward", Estimate(1.5, 1.48, 1.52), LORA, FULL)
    assert told == (
        "LoRA peft-fp32 forward takes 1.50 [1.48, 1.52] times Full-FT eager's: of the extra 31 ms, 65 % is branch GEMMs"
        " and 32 % dtype casts; not told from noise: base forward GEMMs."
    )


def test_the_sentence_of_a_faster_pass_names_what_goes_against_it():
    full = Split({"base_dw": Part(50.0), "base_dx": Part(50.0)}, 1.0, 0.0, "operators")
    lora = Split({"base_dx": Part(50.0), "branch": Part(10.0)}, 1.0, 0.0, "operators")
    told = sentence("LoRA eager", "Full-FT eager", "backward", Estimate(0.6, 0.59, 0.61), lora, full)
    assert told == (
        "LoRA eager backward takes 0.60 [0.59, 0.61] times Full-FT eager's: of the 40 ms saved, 125 % is base dW GEMMs;"
        " more goes into branch GEMMs (25 %)."
    )


def test_no_shares_where_the_ratio_may_be_one():
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(1.02, 0.98, 1.05), LORA, FULL)
    assert told.endswith("takes 1.02 [0.98, 1.05] times Full-FT eager's, which is not told apart from 1: there is no"
                         " difference to explain.")  # fmt: skip


def test_a_profile_that_the_clock_contradicts_is_said():
    rough = Split(LORA.parts, 1.0, 0.12, "operators")
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(1.5, 1.48, 1.52), rough, FULL)
    assert told.endswith("Profile and clock differ by more than 5 %: the shares are rough.")


def test_where_all_causes_are_uncertain_none_is_named():
    lora = Split({"base_forward": Part(63.0, 55.0, 70.0), "norms": Part(2.0)}, 1.0, 0.0, "operators")
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(1.05, 1.01, 1.08), lora, FULL)
    assert told.endswith("of the extra 3 ms, no cause stands out of the noise between the two profiles.")


@pytest.mark.parametrize("ratio", [Estimate(0.9, 0.8, 0.95), Estimate(1.1, 1.05, 1.2)])
def test_no_shares_where_the_medians_are_equal(ratio):
    told = sentence("LoRA eager", "Full-FT eager", "forward", ratio, LORA, LORA)
    assert told.endswith("differ by +0 ms: their causes cannot be told.")


def test_a_ratio_that_is_no_result_is_not_explained():
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(3.53, 1.7, 5.49), LORA, FULL)
    assert told == "LoRA eager forward takes 3.5 [1.7, 5.5] times Full-FT eager's: that is too uncertain to explain."


def test_causes_that_cancel_each_other_are_told_in_ms():
    lora = Split({"base_forward": Part(60.0), "branch": Part(12.0), "norms": Part(0.0)}, 1.0, 0.0, "operators")
    full = Split({"base_forward": Part(60.0), "attention": Part(10.0), "norms": Part(1.0)}, 1.0, 0.0, "operators")
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(1.02, 1.01, 1.03), lora, full)
    assert (
        "of the extra 1 ms, 12 ms is branch GEMMs; less goes into attention (10 ms) and norms/activations (1 ms)."
        in told
    )


def test_two_profiles_at_two_speeds_are_said():
    slow = Split(FULL.parts, 0.6, 0.0, "operators")
    told = sentence("LoRA eager", "Full-FT eager", "forward", Estimate(1.5, 1.48, 1.52), LORA, slow)
    assert told.endswith("The machine was not equally fast in the two profiles: the shares are rough.")
