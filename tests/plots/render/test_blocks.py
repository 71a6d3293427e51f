"""Blocks as Markdown and as a page: what is escaped, what is merged, what is left out."""

from pathlib import Path

from markdown_it import MarkdownIt

from plots.render.blocks import Code, Heading, Items, Para, Table
from plots.render.markdown import escaped, markdown
from plots.render.page import page

TABLE = Table(
    "Times", "Conditions.", ("Model", "Type"), (("Time (ms)", ()), ("Ratio", ("here", "paper")), ("Peak", ("MiB",))),
    (("gpt2", "LoRA", "1.5 [1.4, 1.6] †", "1.2 [1.1, 1.3]", "", ""), ("gpt2", "PaCA", "oom", "oom", "0.8", "")),
)  # fmt: skip
SPECIAL = ["a_b _c_ *d* `e` ~f~", "[x](javascript:y)", "![x](y)", "[x]: y", "<b>&amp;</b>", "a | b", "1.2 [1.0, 1.5] †"]


def test_text_is_shown_as_it_is() -> None:
    for text in SPECIAL:
        (inline,) = (t for t in MarkdownIt("commonmark").parse(escaped(text)) if t.type == "inline")
        assert {child.type for child in inline.children or ()} <= {"text", "text_special"}, text
        assert "".join(child.content for child in inline.children or ()) == text
    assert escaped(SPECIAL[-1]) == SPECIAL[-1], "an interval can be read in the file itself"


def test_a_table_has_one_head_a_column() -> None:
    lines = markdown([TABLE]).splitlines()
    assert lines[-4] == "| Model | Type | Time (ms) | Ratio, here | Ratio, paper | Peak, MiB |"
    assert lines[-3] == "| --- | --- | ---: | ---: | ---: | ---: |"
    assert lines[-1] == "| gpt2 | PaCA | oom | oom | 0.8 |  |"


def test_columns_that_are_empty_throughout_are_left_out() -> None:
    found = TABLE.without_empty_columns()
    assert found.heads == ["Model", "Type", "Time (ms)", "Ratio, here", "Ratio, paper"]
    assert found.lines[0] == ("gpt2", "LoRA", "1.5 [1.4, 1.6] †", "1.2 [1.1, 1.3]", "")


def test_the_page_groups_heads_and_merges_subjects(tmp_path: Path) -> None:
    words = [Heading("Times & more"), Para("Told.", "notice"), Items(("<i>",)), Code("a < b"), TABLE]
    text = page(words, "T < U", tmp_path)
    assert "<title>T &lt; U</title>" in text and "<h2>Times &amp; more " in text
    assert '<a href="#times-more">Times &amp; more</a>' in text and 'id="times-more"' in text
    assert '<div class="notice"><p><strong>Told.</strong></p>' in text
    assert "<li>&lt;i&gt;</li>" in text and "a &lt; b" in text
    assert text.count(">gpt2</th>") == 1 and 'scope="rowgroup" rowspan="2">gpt2</th>' in text
    assert '<th class="lead lead2" scope="row">LoRA</th>' in text
    assert '<th class="start group" colspan="2" scope="colgroup">Ratio</th>' in text
    assert (
        '<td class="num start">1.5<small> [1.4, 1.6] †</small></td>' in text
        and '<td class="word start">oom</td>' in text
    )
