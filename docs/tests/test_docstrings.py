"""Docstrings: read into their parts, put into numpydoc's form, rendered by it, and complete in all of tinygen."""

import inspect

import docstrings
import house_style
import pytest
import symbols
from docstrings import formula, parse, to_numpydoc
from located import ROOT

POOL = """The mean of each window: y[i] = (1/c) Σ over k of x[i·s + k], 0 in the padding.    ∂L/∂x = Σ g/c.

More of it (*) → (*), x_t and |x|, for mode='zeros'.

    nearest     y_o = x[i(o)]
    bilinear    y_o = (1 − λ) x[i] + λ x[i + 1]

Shapes: (N, C) → (N),
or without N.

Args:
    kernel_size, stride: K, and s;
        K where omitted.
    The others as :class:`Adam`.

Raises (when called):
    ValueError: a shape does not fit.

Source: LeCun, *A title (2nd) of a
book* (1998); ``torch.nn.functional.avg_pool2d``.
"""


def test_the_parts():
    doc = parse(POOL.strip())
    assert [name for name, _, _ in doc.sections] == ["Shapes", "Args", "Raises", "Source"]
    assert doc.sections[2][1] == "(when called)"
    assert doc.section("Shapes")[0].text == "(N, C) → (N), or without N."
    assert [block.literal for block in doc.body] == [False, False, True]


def test_text_after_a_list_belongs_to_the_text():
    doc = parse("A thing.\n\nArgs:\n    a: one.\n\nAnd so on.\n\nRaises:\n    ValueError: never.")
    assert [block.text for block in doc.body] == ["A thing.", "And so on."]
    assert [name for name, _, _ in doc.sections] == ["Args", "Raises"]


@pytest.mark.parametrize(
    "text, found",
    [
        ("y = a + b.    ∂L/∂a = g,  ∂L/∂b = g.", ["y = a + b."]),
        ("Slide a filter.\n\ny[i] = Σ w[u]·x[i + u]. With g groups, more.", ["y[i] = Σ w[u]·x[i + u]."]),
        ("Descend.\n\nWith γ::\n\n    b ← μ b + g\n    w ← w − γ b\n", ["b ← μ b + g", "w ← w − γ b"]),
        ("ε ~ N(0, 1), of shape ``size``.", ["ε ~ N(0, 1), of shape ``size``."]),
        ("Join the axes.    ∂L/∂x = g in x's shape.", []),
        ("A model.\n\n    net = Net(a=1)\n    net.train()\n", []),
        ("See :func:`f` where ``a=b``.", []),
        ("", []),
    ],
)
def test_the_formula(text, found):
    assert formula(parse(text)) == found


def test_markup_is_what_is_meant_and_nothing_else():
    rst = "\n".join(to_numpydoc(POOL.strip(), lambda name: f"<{name}>"))
    assert r"(\*) → (\*), x\_t and \|x\|, for ``mode='zeros'``\ ." in rst
    assert "*A title (2nd) of a book*" in rst and "<Adam>" in rst
    assert "   nearest     y_o = x[i(o)]\n" in rst
    assert "| The mean of each window: " in rst and "| ∂L/∂x = Σ g/c." in rst


def pool(x, kernel_size: int, stride: int, *rest: "float | None", **named) -> "Tensor":  # noqa: F821
    """What POOL could be of."""


def read(text, signature=None):
    scrape = pytest.importorskip("numpydoc.docscrape", reason="comes with the docs extra")
    return scrape.NumpyDocString("\n".join(to_numpydoc(text, lambda name: f"<{name}>", signature)))


def test_numpydoc_reads_the_sections():
    doc = read(POOL.strip(), inspect.signature(pool))
    assert doc["Extended Summary"][-1] == ":Shapes: (N, C) → (N), or without N."
    assert doc["Parameters"] == [
        ("kernel_size, stride", "``int``", ["K, and s; K where omitted."]),
        ("x, *rest, **named", "", [r"The others as <Adam>\ ."]),
    ]
    assert doc["Raises"] == [("", "<ValueError>", ["(when called) a shape does not fit."])]
    assert doc["References"][0].startswith("LeCun, *A title")


def test_numpydoc_reads_types_and_stars_from_the_signature():
    doc = read("A.\n\nArgs:\n    rest: (N) of them.\n\nReturns: one, or\ntwo.", inspect.signature(pool))
    assert doc["Parameters"] == [("*rest", "``float | None``", ["\\(N) of them."])]
    assert doc["Returns"] == [("", "``Tensor``", ["one, or two."])]
    assert read("A.\n\nReturns: both.")["Returns"] == [("", "…", ["both."])]


def test_an_error_may_have_a_time_and_an_attribute_a_line_with_others():
    doc = read("A.\n\nAttributes:\n    a: b. c, d: e.\n\nRaises:\n    OSError (later): f.\n    as g.")
    assert [(name, text) for name, _, text in doc["Attributes"]] == [("a", [r"\b."]), ("c, d", [r"\e."])]
    assert doc["Raises"] == [("", "<OSError>", ["(later) f."]), ("", "…", ["as g."])]


def test_a_table_is_one_and_a_list_keeps_its_lines():
    rows = to_numpydoc("A.\n\n===  ===\nof   x_t\n===  ===\na    ``b``, *c*\n===  ===\n\n- one\n  two;\n- three.")
    assert [line.strip() for line in rows if "- " in line] == [
        "* - of",
        r"- x\_t",
        "* - a",
        "- ``b``\\ , *c*",
        "- one two;",
        "- three.",
    ]
    assert "   :header-rows: 1" in rows


def test_a_formula_has_no_markup():
    assert to_numpydoc("A:\n\n    y = x    ``g`` of :mod:`~tinygen.op`")[2:] == [
        ".. code-block:: none",
        "   :class: formula one-line",
        "",
        "   y = x    g of tinygen.op",
        "",
    ]


def test_code_begins_at_the_margin():
    assert to_numpydoc("A:\n\n    @f()\n    def g():\n\n        return 1")[5:] == [
        "   @f()",
        "   def g():",
        "",
        "       return 1",
        "",
    ]


def test_numpydoc_names_a_parameter_that_is_not_there():
    scrape = pytest.importorskip("numpydoc.docscrape_sphinx", reason="comes with the docs extra")
    validate = pytest.importorskip("numpydoc.validate").validate
    for name, codes in (("stride", set()), ("strides", {"PR02"})):
        text = "\n".join(to_numpydoc(f"A.\n\nArgs:\n    {name}: s.", signature=inspect.signature(pool)))
        found = validate(scrape.get_doc_object(pool, "function", text, config={}))["errors"]
        assert {code for code, _ in found} & {"PR02", "PR07"} == codes
    assert '"PR02"' in (ROOT / "docs" / "conf.py").read_text("utf-8")


def test_a_formula_that_looks_like_a_call_is_no_signature():
    doc = read("f(x) = max(0, x)")
    assert doc["Signature"] == "" and doc["Summary"] == ["\\ f(x) = max(0, x)"]


def everything():
    for symbol in symbols.public().values():
        yield symbol
        yield from symbols.methods(symbol) if symbol.kind == "class" else ()


def test_reStructuredText_takes_it_without_a_complaint():
    docutils = pytest.importorskip("docutils.core", reason="comes with the docs extra")
    sphinx = pytest.importorskip("numpydoc.docscrape_sphinx", reason="comes with the docs extra")
    for text in [symbol.doc.text for symbol in everything()] + [POOL]:
        rst = str(sphinx.SphinxDocString("\n".join(to_numpydoc(text)))).replace(".. only:: latex\n", "")
        settings = {"report_level": 2, "halt_level": 2, "syntax_highlight": "none"}
        docutils.publish_doctree(rst, settings_overrides=settings)


def test_every_docstring_says_what_it_must():
    assert house_style.report() == []


def complaints(monkeypatch, text, group="Elementwise"):
    symbol = symbols.public()["tinygen.clamp"]
    changed = symbols.Symbol(symbol.name, symbol.defined, symbol.kind)
    changed.__dict__["doc"] = parse(text)
    monkeypatch.setattr(house_style, "file_docstring", lambda _: parse(""))
    return list(house_style.missing(changed, group))


@pytest.mark.parametrize(
    "text, missing",
    [
        ("", ["has no docstring"]),
        ("y = a.\n\nShapes: (*) → (*).\n\nSource: x.", ["raises ValueError and does not say when"]),
        ("Limit.\n\nShapes: (*) → (*).\n\nRaises:\n    ValueError: no.\n\nSource: x.", ["states no formula"]),
        ("y = a.\n\nRaises:\n    ValueError: no.\n\nSource: x.", ["says nothing of shapes"]),
        ("y = a.\n\nShapes: (*) → (*).\n\nRaises:\n    ValueError: no.", ["names no source"]),
        ("y = a.\n\nShapes: (*) → (*).\n\nRaises:\n    ValueError: no.\n\nSource: x.", []),
        ("y = a. Shapes and errors as :func:`conv2d`.", []),
    ],
)
def test_what_is_missing_is_named(monkeypatch, text, missing):
    assert complaints(monkeypatch, text) == missing


def test_an_op_without_a_derivation_is_named(monkeypatch):
    op = next(op for op in symbols.ops() if op.short == "mul")
    changed = symbols.Symbol(op.name, op.defined, op.kind)
    changed.__dict__["doc"] = parse("y = a·b.")
    assert list(house_style.underived(op)) == []
    assert list(house_style.underived(changed)) == ["has vjps and does not derive them: ∂L/∂x = …"]


def test_names_in_references():
    assert docstrings.elsewhere(parse("Arguments as :class:`Adam`; errors as in :meth:`tinygen.X.f`.")) == [
        "Adam",
        "tinygen.X.f",
    ]
