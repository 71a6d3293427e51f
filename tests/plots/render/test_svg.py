"""A figure's SVG inside a page: nothing of it may run, fetch, or meet another figure's ids."""

from pathlib import Path
from xml.etree import ElementTree

from plots.render.blocks import Figure
from plots.render.svg import inline_svg

DRAWN = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 400 200" onload="x()">
<metadata>of whom</metadata><style>* { color: red }</style><script>alert(1)</script>
<defs><clipPath id="p1"><rect width="9" height="9"/></clipPath><path id="m1" d="M 0 0"/></defs>
<g id="unused" clip-path="url(#p1)"><use xlink:href="#m1" onclick="x()" style="fill: #fff"/></g>
<use xlink:href="http://example.invalid/x#y"/><use href="javascript:x()"/>
<path style="fill: url(http://example.invalid/z)" d="M 1 1"/>
<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">a</p></foreignObject>
<text>&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt; a &amp; b</text>
</svg>"""


def test_only_shapes_and_text_are_left(tmp_path: Path) -> None:
    (tmp_path / "ratio.svg").write_text(DRAWN)
    text, ratio = inline_svg(Figure("ratio", 'A "title" <b>'), tmp_path)
    root = ElementTree.fromstring(text)
    assert root.attrib["viewBox"] == "0 0 400 200" and ratio == 2
    assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", 'A "title" <b>')
    assert {element.tag for element in root.iter()} == {"svg", "defs", "clipPath", "rect", "path", "g", "use", "text"}
    assert [element.text for element in root.iter("text")] == ["</svg><script>alert(1)</script> a & b"]
    for word in (
        "http",
        "javascript",
        "onload",
        "onclick",
        "<script",
        "<?xml",
        "<!DOCTYPE",
        "color: red",
    ):
        assert word not in text, word
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert ids == {"svg-ratio-p1", "svg-ratio-m1"}
    assert 'clip-path="url(#svg-ratio-p1)"' in text and 'href="#svg-ratio-m1"' in text


def test_two_figures_share_no_ids(tmp_path: Path) -> None:
    found = []
    for stem in ("ratio", "throughput"):
        (tmp_path / f"{stem}.svg").write_text(DRAWN)
        root = ElementTree.fromstring(inline_svg(Figure(stem, stem), tmp_path)[0])
        found.append({element.attrib["id"] for element in root.iter() if "id" in element.attrib})
    assert found[0] and not found[0] & found[1]
