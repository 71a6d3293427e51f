"""--where: what it lets through, and what a mistake is answered with."""

import pytest

from bench.errors import UserError
from bench.where import parse_where, text_of

AXES = ("model", "rank", "targets")


def test_values_and_texts_with_commas() -> None:
    one, both, whole = parse_where(["rank=8", "rank=8,16", "targets=q_proj,v_proj"], AXES)
    assert one.chosen(["8", "16"], "") == {"8"} and both.chosen(["16", "8", "4"], "") == {"8", "16"}
    assert whole.chosen(["all-linear", "q_proj,v_proj"], "") == {"q_proj,v_proj"}
    assert both.names("16") and not both.names("1")
    assert [text_of(v) for v in (None, 32.0, 0.5, "x", 8)] == ["", "32", "0.5", "x", "8"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("modle=x", "--where modle=x: unknown axis 'modle'. Did you mean 'model'? Axes: model, rank, targets."),
        ("zzz=x", "--where zzz=x: unknown axis 'zzz'. Axes: model, rank, targets."),
        ("model", "--where model: a condition has the form axis=value. Axes: model, rank, targets."),
        (
            "model=gpt2-x",
            "--where model=gpt2-x: 'gpt2-x' is absent. Did you mean 'gpt2-xl'? Values of model: gpt2-xl.",
        ),
    ],
)
def test_a_mistake_is_answered_with_what_was_meant(where: str, said: str) -> None:
    with pytest.raises(UserError) as e:
        parse_where([where], AXES)[0].chosen(["gpt2-xl"], "is absent")
    assert str(e.value) == said
