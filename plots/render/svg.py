"""A drawn figure as a part of a page: inline SVG, whose text can be selected, searched and set in the page's fonts."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from plots.render.blocks import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
HREF = f"{{{XLINK}}}href"
# What matplotlib draws with. Anything else is left out, so that no name in a figure can bring a script into the page.
SHAPES = {"svg", "g", "defs", "clipPath", "path", "rect", "circle", "use", "text", "tspan", "pattern", "image"}
STYLE = {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # its style sheet, which would hold for the whole page


def inline_svg(figure: Figure, folder: Path) -> tuple[str, float]:
    """The figure's SVG file as an element of a page, and how often its height goes into its width. Its ids begin with
    the figure's stem."""
    root = ElementTree.parse(folder / f"{figure.stem}.svg").getroot()
    _clean(root)
    _own_ids(root, f"svg-{figure.stem}-")
    _, _, width, height = (float(x) for x in root.attrib["viewBox"].split())
    root.attrib = {
        "viewBox": root.attrib["viewBox"], "width": f"{width:g}pt", "height": f"{height:g}pt", "role": "img",
        "aria-label": figure.title, "style": "; ".join(f"{name}: {value}" for name, value in STYLE.items()),
    }  # fmt: skip
    for element in root.iter():
        element.tag = _name(element)  # in a page, <svg> needs no namespace
        if HREF in element.attrib:
            element.attrib["href"] = element.attrib.pop(HREF)
        element.tail = None
        if element.tag not in ("text", "tspan"):
            element.text = None
    return ElementTree.tostring(root, encoding="unicode"), round(width / height, 3)


def _name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(f"{{{SVG}}}")


def _clean(element: ElementTree.Element) -> None:
    """Leaves in an element only shapes and text that fetch nothing and run nothing."""
    for child in [*element]:
        if _name(child) not in SHAPES:
            element.remove(child)
        else:
            _clean(child)
    for name, value in [*element.attrib.items()]:
        link = name in (HREF, "href") and not value.startswith(("#", "data:image/png;base64,"))
        if link or name.lower().startswith("on") or any(not target.startswith("#") for target in _targets(value)):
            del element.attrib[name]


def _targets(value: str) -> Iterator[str]:
    return (match[1].strip("'\" ") for match in re.finditer(r"url\(([^)]*)", value))


def _own_ids(root: ElementTree.Element, prefix: str) -> None:
    """Ids that no other figure of the page has, for elements that something refers to; the rest need none."""
    wanted: set[str] = set()
    for element in root.iter():
        for name, value in [*element.attrib.items()]:
            wanted |= {target[1:] for target in _targets(value)}
            new = re.sub(r"(url\(['\" ]*)#", rf"\1#{prefix}", value)
            if name in (HREF, "href") and value.startswith("#"):
                wanted.add(value[1:])
                new = f"#{prefix}{value[1:]}"
            element.attrib[name] = new
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in wanted:
            element.attrib["id"] = prefix + name
