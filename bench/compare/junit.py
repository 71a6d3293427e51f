"""A comparison as JUnit XML, which CI systems read: a test case for each row."""

from xml.etree import ElementTree as Xml

from bench.compare.comparison import Comparison, short_names
from bench.errors import one_line


def as_junit(c: Comparison) -> str:
    """failure: a row that --fail is about; skipped: a row without a verdict, or on one side alone; else it passes. The
    time of a test case is B's, in seconds."""
    names = short_names([*((p.key[0], p.axes) for p, _ in c.judged), *((x.key[0], x.axes) for x in c.left)])
    left: dict[tuple[str, str, str], list[str]] = {}
    for x in c.left:
        if not x.partly:
            left.setdefault(x.key, []).append(f"{x.side}: {x.why}")
    suite = Xml.Element("testsuite", name="lorabench compare")

    def add(key: tuple[str, str, str], seconds: float) -> Xml.Element:
        told = {"classname": f"{key[1]}.{key[2]}", "name": names[key[0]], "time": f"{seconds:.9f}"}
        return Xml.SubElement(suite, "testcase", {name: one_line(text) for name, text in told.items()})

    for pair, o in c.judged:
        case = add(pair.key, o.b_ms / 1e3)
        if o.low is None:
            Xml.SubElement(case, "skipped", message=one_line(o.cell))
            continue
        told = f"B/A {o.ratio:.3f}, 95 % interval {o.low:.3f} to {o.high:.3f}: {o.cell}"
        if c.fails(o):
            Xml.SubElement(case, "failure", type=str(o.verdict), message=told).text = f"fails where {c.limit}"
        else:
            Xml.SubElement(case, "system-out").text = told
    for key, whys in left.items():
        Xml.SubElement(add(key, 0.0), "skipped", message=one_line("; ".join(whys)))
    counts = {"tests": str(len(suite)), "failures": str(len(suite.findall("*/failure"))), "errors": "0"}
    root = Xml.Element("testsuites", counts)
    suite.attrib |= counts | {"skipped": str(len(suite.findall("*/skipped")))}
    root.append(suite)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, "unicode")}\n'
