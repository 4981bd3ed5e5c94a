"""Formulas in TeX as MathML, which browsers draw without a script, in a font that comes along."""

import functools
import html
import io
import re
from importlib.resources import as_file, files

from fontTools import subset
from latex2mathml.converter import convert

WRITTEN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)  # by pymdownx.arithmatex
OPERATOR = r"(<mi>(?:log|ln)</mi>)"
GAP = '<mspace width="0.17em"/>'
# Latin, Greek and their italics, arrows, operators, brackets
CHARACTERS = [
    *(*range(0x20, 0x7F), 0xB1, 0xB7, 0xD7, *range(0x391, 0x3F6), 0x2013, 0x2016, 0x2026, 0x210E, 0x2113),
    *(*range(0x2190, 0x2194), *range(0x2200, 0x22A6), *range(0x2308, 0x230C), *range(0x1D434, 0x1D468)),
    *range(0x1D6E2, 0x1D71C),
]


def with_mathml(content: str) -> str:
    """A page's HTML with its formulas as MathML."""
    return WRITTEN.sub(lambda match: mathml(html.unescape(match[2]), is_block=match[1] == "div"), content)


def mathml(formula: str, *, is_block: bool) -> str:
    """A formula in TeX, in a line or by itself."""
    made = convert(formula, display="block" if is_block else "inline")
    made = re.sub(OPERATOR + r'(?!<mo stretchy="false">&#x00028;)', rf"\1{GAP}", made)  # as TeX spaces them
    made = re.sub(rf"(?<!</mo>)(?<!<mrow>){OPERATOR}", rf"{GAP}\1", made)
    return f'<div class="formula">{made}</div>' if is_block else made


@functools.cache
def font() -> bytes:
    """STIX Two Math (SIL Open Font License) of the characters in use, because telephones have no font for formulas."""
    options = subset.Options(flavor="woff", layout_features=["*"])
    with as_file(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf") as file:
        whole = subset.load_font(file, options)
    part = subset.Subsetter(options)
    part.populate(unicodes=CHARACTERS)
    part.subset(whole)
    written = io.BytesIO()
    subset.save_font(whole, written, options)
    return written.getvalue()
