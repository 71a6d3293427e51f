"""Log-likelihoods and accuracy: lm-evaluation-harness against a direct computation, and that against a plain loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.accuracy.categories import CATEGORIES, category_table
from bench.accuracy.harness import harness_scorer
from bench.accuracy.question import Outcome, Piece, read_pieces
from bench.errors import UserError
from tests.accuracy.direct import context, description, direct_scorer
from tests.mcq import make_items, make_model, make_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test and dev items whose questions differ in length."""
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("test", 60), ("dev", 40)):
        items = [replace(i, question="is " * (at % 7) + i.question) for at, i in enumerate(make_items(n, split=split))]
        write_jsonl(items, folder / f"{split}.jsonl")
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A random model of each kind, and a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    found: dict[str, Any] = {"tokenizer": make_tokenizer(folder)}
    for kind in ("llama", "gpt2"):
        make_model(kind, folder / kind)
        found[kind] = AutoModelForCausalLM.from_pretrained(folder / kind).eval()
    return found


def letters_apart() -> PreTrainedTokenizerFast:
    """A token for each character, so that ' A' is two of them."""
    signs = [chr(c) for c in range(32, 127)]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *signs])}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<unk>")


def one_by_one(model: Any, tokenizer: Any, piece: Piece) -> list[list[float]]:
    """The same by the definition: no batch, no padding, token by token, in float64."""
    found = []
    exact = model.double()
    with torch.no_grad():
        for item in piece.items:
            before = tokenizer.encode(context(piece, item))
            mine = []
            for letter in "ABCD":
                tokens = tokenizer.encode(f"{context(piece, item)} {letter}")
                assert tokens[: len(before)] == before
                scores = exact(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
                mine.append(sum(scores[at - 1, tokens[at]].item() for at in range(len(before), len(tokens))))
            found.append(mine)
    model.float()
    return found


def outcomes(scorer: Any, pieces: list[Piece]) -> list[Outcome]:
    return [o for piece in pieces for o in scorer(piece)]


def test_the_direct_computation_is_the_definition(data: Path, loaded: dict[str, Any]) -> None:
    pieces = read_pieces(str(data), 2, 4, 256)
    for kind in ("llama", "gpt2"):
        model, tokenizer = loaded[kind], loaded["tokenizer"]
        found = outcomes(direct_scorer(model, tokenizer, 3), pieces)
        exact = [scores for piece in pieces for scores in one_by_one(model, tokenizer, piece)]
        assert torch.allclose(
            torch.tensor([o.log_likelihoods for o in found]), torch.tensor(exact), rtol=1e-4, atol=1e-4
        )
        answers = [item.answer for piece in pieces for item in piece.items]
        assert [o.right for o in found] == [s.index(max(s)) == a for s, a in zip(exact, answers, strict=True)]
        assert len({round(x, 3) for o in found for x in o.log_likelihoods}) > 10  # they do differ


def test_answers_of_several_tokens(data: Path) -> None:
    tokenizer = letters_apart()
    assert len(tokenizer.encode("x C")) == 1 + 2
    from transformers import LlamaConfig

    torch.manual_seed(1)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=96, max_position_embeddings=512, **size)
    model = AutoModelForCausalLM.from_config(config).eval()
    pieces = read_pieces(str(data), 0, 3, 256)
    exact = [scores for piece in pieces for scores in one_by_one(model, tokenizer, piece)]
    for scorer in (direct_scorer(model, tokenizer, 5), harness_scorer(model, tokenizer, 5)):
        found = torch.tensor([o.log_likelihoods for o in outcomes(scorer, pieces)])
        assert torch.allclose(found, torch.tensor(exact), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shots", [0, 2, 5])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lm_evaluation_harness_finds_the_same(kind: str, shots: int, data: Path, loaded: dict[str, Any]) -> None:
    """Item by item: log-likelihoods to fp32's rounding, answers and prompts cut exactly; the harness's own prompts."""
    model, tokenizer = loaded[kind], loaded["tokenizer"]
    pieces = read_pieces(str(data), shots, None, 9)
    ours = outcomes(direct_scorer(model, tokenizer, 7), pieces)
    theirs = outcomes(harness_scorer(model, tokenizer, 4), pieces)
    assert len(ours) == len(theirs) == 60
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.log_likelihoods == pytest.approx(other.log_likelihoods, rel=1e-5, abs=1e-5)
    assert [o.right for o in ours] == [o.right for o in theirs]
    assert 0 < sum(o.right for o in ours) < 60


def test_prompts_longer_than_the_window_are_cut_from_the_left_by_both(data: Path, loaded: dict[str, Any]) -> None:
    model, tokenizer = loaded["llama"], loaded["tokenizer"]
    pieces = read_pieces(str(data), 3, 5, 256)
    lengths = [len(tokenizer.encode(context(p, i))) for p in pieces for i in p.items]
    middle = sorted(lengths)[len(lengths) // 2]
    assert min(lengths) < middle
    whole = model.config.max_position_embeddings
    try:
        model.config.max_position_embeddings = middle - 1
        ours = outcomes(direct_scorer(model, tokenizer, 4), pieces)
        theirs = outcomes(harness_scorer(model, tokenizer, 4), pieces)
    finally:
        model.config.max_position_embeddings = whole
    assert [o.cut for o in ours] == [o.cut for o in theirs] == [n > middle - 1 for n in lengths]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.log_likelihoods == pytest.approx(other.log_likelihoods, rel=1e-5, abs=1e-5)


def test_categories_and_descriptions_are_the_harnesss() -> None:
    """Of every one of the 57 subjects, in the files of the installed lm_eval."""
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__path__[0]) / "mmlu" / "default"
    grouped: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for path in folder.glob("mmlu_*.yaml"):
        config = yaml.safe_load(path.read_text())
        category = config["tag"].removeprefix("mmlu_").removesuffix("_tasks").replace("_", " ")
        grouped[category].append(config["dataset_name"])
        assert description(config["dataset_name"]) == config["description"]
    assert {c: sorted(s) for c, s in grouped.items()} == {c: sorted(s) for c, s in category_table().items()}
    assert sum(map(len, grouped.values())) == 57


def test_a_tokenizer_that_the_harness_cannot_begin_a_prompt_with_is_told(loaded: dict[str, Any]) -> None:
    raw = loaded["tokenizer"].backend_tokenizer
    bare = PreTrainedTokenizerFast(tokenizer_object=raw, name_or_path="/models/bare")
    with pytest.raises(UserError, match="/models/bare: its tokenizer has neither a bos_token nor an eos_token"):
        harness_scorer(loaded["llama"], bare, 8)
