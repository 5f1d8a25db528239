"""The house's docstrings: what is in one, and the same as numpydoc writes it.

A docstring begins with one sentence, which is the formula where there is one. Then come paragraphs, indented blocks,
which stand as they are written, and sections: ``Shapes:``, ``Args:``, ``Attributes:``, ``Returns:``, ``Raises:``,
``Source:``. Four blanks inside a line separate a formula from its derivative. A section may be left to another
definition: "Shapes and errors as :func:`mse_loss`".

numpydoc renders them. It would read ``(*) → (*)`` as emphasis and ``x_t`` as a reference, so :func:`to_numpydoc` comes
before it: plain text is escaped, references are resolved, and sections get the names and the form that numpydoc knows.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("Shapes", "Args", "Attributes", "Returns", "Yields", "Raises", "Source")
_HEAD = re.compile(rf"^({'|'.join(SECTIONS)})( \([^)]*\))?:(?=\s|$)")
# What makes a line of text a formula: a relation with something on both sides, as it is written beside symbols.
_RELATION = re.compile(r"\S\s*(?:\+=|[=←≈∝≤≥∈≠]|\s~\s)\s*\S|[∀∃Σ∏]|→ [\w(]")
_STATED = re.compile(r"\S\s*(?:\+=|[=←≈∝])\s*\S|\s~\s|[∀∃ΣΠ∫‖]|→ [\w(]")  # in a sentence, where a ≥ 0 is no formula
_DERIVATIVE = re.compile(r"^\W*(∂|∇|dL|with G)")
_AS = re.compile(r"\bas (?:in )?(?:those of )?(?::\w+:`[~.]?([\w.]+)`|``?([\w.]+)``?)")
_ROLE = re.compile(r":\w+:`[~.]?([^`]+)`")


@dataclass
class Block:
    """A paragraph, or an indented block, of a docstring."""

    lines: list[str]
    literal: bool = False

    @property
    def text(self) -> str:
        """The lines as one."""
        return " ".join(line.strip() for line in self.lines)


@dataclass
class Docstring:
    """A docstring in its parts; ``sections`` are (name, what stands in parentheses behind it, blocks)."""

    body: list[Block]
    sections: list[tuple[str, str, list[Block]]] = field(default_factory=list)
    text: str = ""

    @property
    def summary(self) -> str:
        """The first sentence: what stands before the derivative."""
        return re.split(r"\s{3,}", " ".join(self.body[0].lines))[0] if self.body else ""

    def section(self, name: str) -> list[Block]:
        """What a section says; empty where it is not there."""
        return [block for head, _, blocks in self.sections if head == name for block in blocks]


def _blocks(lines: list[str]) -> Iterator[Block]:
    """Paragraphs, and what is indented: an indented block runs on over empty lines."""
    current: list[str] = []
    literal = False
    for line in [*lines, None]:  # type: ignore[list-item]
        indented = bool(line) and line.startswith("  ") and not (current and current[0].startswith("- "))
        if current and (line is None or (not line.strip() and not literal) or (line.strip() and indented != literal)):
            while current and not current[-1].strip():
                current.pop()
            yield Block(current, literal)
            current = []
        if line is None:
            break
        if line.strip():
            if not current:
                literal = indented
            current.append(line)
        elif current:
            current.append(line)


def parse(text: str | None) -> Docstring:
    """The parts of a cleaned docstring (``inspect.getdoc``)."""
    text = text or ""
    body: list[str] = []
    sections: list[tuple[str, str, list[str]]] = []
    target = body
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            target = []
            sections.append((head[1], (head[2] or "").strip(), target))
            line = line[head.end() :].strip()
            if not line:
                continue
        elif target is not body and line and not line.startswith(" ") and _ended(sections[-1], target):
            target = body
        target.append(line)
    parsed = Docstring(list(_paragraphs(body)), text=text)
    for name, note, lines in sections:
        parsed.sections.append((name, note, list(_blocks(_dedented(lines)))))
    return parsed


def _ended(section: tuple[str, str, list[str]], lines: list[str]) -> bool:
    """Whether an unindented line after these ends the section: it follows a gap, or an indented list."""
    return bool(lines) and (not lines[-1].strip() or lines[0].startswith(" "))


def _dedented(lines: list[str]) -> list[str]:
    if any(line.startswith(" ") for line in lines) and all(line.startswith(" ") or not line for line in lines):
        return [line[4:] for line in lines]
    return lines


def _paragraphs(lines: list[str]) -> Iterator[Block]:
    for block in _blocks(lines):
        if not block.literal and block.lines[-1].rstrip().endswith("::"):
            last = block.lines[-1].rstrip()
            block.lines[-1] = last[:-1] if len(last) > 2 else ""
            if not block.text:
                continue
        yield block


# ------------------------------------------------------------------------------------------- the formula


def formula(doc: Docstring) -> list[str]:
    """The formula that a docstring states, as lines; empty where it states none, or only a derivative.

    The first sentence is the formula where it has a relation in it; else the first indented block that has one, or
    the first sentence of the text, whichever comes first.
    """
    for block, after in zip(doc.body, [*doc.body[1:], None]):
        if block.literal:
            lines = [line for line in block.lines if line.strip()]
            if any(_RELATION.search(line) for line in lines) and not _DERIVATIVE.match(lines[0]) and not _code(lines):
                return _trimmed(lines)
            continue
        for part in re.split(r"\s{3,}(?=∂|∇|d\w =)", " ".join(block.lines)):
            sentences = _sentences(part)
            if sentences and sentences[-1].endswith(":") and after is not None and after.literal:
                sentences.pop()  # it says that the formula follows
            for sentence in sentences:
                bare = re.sub(r"``.*?``|:\w+:`[^`]*`", "x", sentence)
                if _STATED.search(bare.partition("∂L/∂")[0]) and not _DERIVATIVE.match(sentence):
                    return [sentence]
    return []


def _sentences(text: str) -> list[str]:
    return [s.strip() for s in re.split(r"(?<=[^.…\s]\.)\s+(?=[A-Z“(∂])", text) if s.strip()]


def _trimmed(lines: list[str], most: int = 6) -> list[str]:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[indent:].rstrip() for line in lines[:most]]


def _code(lines: list[str]) -> bool:
    """Whether an indented block is a program."""
    text = "\n".join(_trimmed(lines, most=len(lines)))
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    calls = (ast.Call, ast.ClassDef, ast.FunctionDef, ast.For, ast.With)
    return text.isascii() and any(isinstance(node, calls) for node in ast.walk(tree))


# --------------------------------------------------------------------------------------------- numpydoc

_INLINE = re.compile(
    r"(?P<code>``.+?``)"
    r"|(?P<setting>\b\w+=(?:\"[^\"]*\"|'[^']*'|None\b|True\b|False\b)|\{\"\w[^{}]*\})"
    r"|(?P<role>:\w+(?::\w+)?:`[^`]+`)"
    r"|(?P<title>(?<![\w*(])\*(?=[^\W\d_])[^*]*[\w?!.…’')]\*(?!\w))"
    r"|(?P<single>`[^`]+`)",
    re.DOTALL,
)

Resolve = Callable[[str], str]
# A paragraph that begins so would be an item of a list: "(N) labels".
_LIST = re.compile(r"(\(?(\w|\d+|[ivxlcdm]+|[IVXLCDM]+|#)[.)]|[-+•‣⁃:]|\.\.|>>>)(\s|$)")


def escaped(text: str) -> str:
    """Plain text, so that no character of it is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _literal(text: str) -> str:
    return f"``{text}``"


def inline(text: str, resolve: Resolve) -> str:
    """A paragraph's text: code, titles and references as they are meant, everything else as it stands."""
    out, at = ["\\" if _LIST.match(text) else ""], 0
    for match in _INLINE.finditer(text):
        out.append(escaped(text[at : match.start()]))
        at = match.end()
        found = match[0]
        # Markup must be set apart from what it touches.
        if match["role"]:
            found = resolve(found.rpartition(":")[2].strip("`"))
        elif match["setting"]:
            found = _literal(found)
        elif match["single"]:
            found = f"`{found}`"
        elif match["title"]:
            found = "*" + escaped(found[1:-1]) + "*"
        before = "\\ " if match.start() and not text[match.start() - 1].isspace() else ""
        after = "\\ " if at < len(text) and not text[at].isspace() else ""
        out.append(before + found + after)
    out.append(escaped(text[at:]))
    return "".join(out)


# House → numpydoc. Shapes have no section there: they are a field above its fields.
NUMPYDOC = {
    "Args": "Parameters",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "Source": "References",
}


# numpydoc takes what looks like a call at the beginning of a docstring for the signature.
_LIKE_A_SIGNATURE = re.compile(r"([\w., ]+=)?\s*[\w.]+\(.*\)$")


def _type(annotation: Any) -> str:
    """As the source writes it; "" where there is none."""
    if annotation is inspect.Signature.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def to_numpydoc(text: str | None, resolve: Resolve = _literal, signature: inspect.Signature | None = None) -> list[str]:
    """A docstring in numpydoc's form, with the types and the stars that the signature gives to parameters.

    ``resolve`` turns the name in a reference into a link, or into code.
    """
    signature = signature or inspect.Signature()
    doc = parse(text)
    out: list[str] = []
    for block in doc.body:
        out += _block_rst(block, resolve)
    if out and _LIKE_A_SIGNATURE.match(" ".join(out[: out.index("")])):
        out[0] = "\\ " + out[0]
    for block in doc.section("Shapes")[:1]:
        out += [f":Shapes: {_flow(block, resolve)}", ""]
    for block in doc.section("Shapes")[1:]:
        out += [*("   " + line for line in _block_rst(block, resolve)), ""]
    for name, title in NUMPYDOC.items():
        found = [(note, blocks) for head, note, blocks in doc.sections if head == name]
        if found:
            out += [title, "-" * len(title)]
        for note, blocks in found:
            if name == "Source":
                out += [line for block in blocks for line in _block_rst(block, resolve)]
            elif name in ("Returns", "Yields"):
                kind = _type(signature.return_annotation)
                whole = Block([line for block in blocks for line in block.lines])
                out += [_literal(kind) if kind else "…", "    " + _flow(whole, resolve)]
            else:
                out += _entries(name, f"{note} ".lstrip(), blocks, resolve, signature)
        out += [""] if found else []
    return out


def _table_rst(lines: list[str], resolve: Resolve) -> list[str]:
    """A table whose columns are where the first line has its ``===``. Escaped text would no longer fit into them."""
    starts = [found.start() for found in re.finditer(r"=+", lines[0])]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], None])]
    rules = sum(line.startswith("===") for line in lines)
    out = [".. list-table::", "   :widths: auto", f"   :header-rows: {rules - 2}", ""]
    for line in (line for line in lines if not line.startswith("===")):
        cells = [inline(line[span].strip(), resolve) for span in spans]
        out += [("     - " if i else "   * - ") + cell for i, cell in enumerate(cells)]
    return [*out, ""]


def _entries(
    name: str, note: str, blocks: list[Block], resolve: Resolve, signature: inspect.Signature
) -> Iterator[str]:
    """``name, name: what it is``, continued on lines that are indented further, each as numpydoc writes it."""
    items: list[str] = []
    for line in (line for block in blocks for line in block.lines if line.strip()):
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    if name == "Attributes":
        items = [part for item in items for part in re.split(r"(?<=\.) (?=[a-z]\w*(?:, \w+)*: )", item)]
    rest = {one: p for one, p in signature.parameters.items() if name == "Args" and one not in ("self", "cls")}
    for item in items:
        head, colon, text = item.partition(": ")
        named = re.fullmatch(r"([\w.]+(?:, [\w.]+)*)( \([^)]*\))?", head) if colon else None
        if named:
            names, text = named[1].split(", "), f"{named[2] or ''} {text}".strip()
        else:
            names, text = list(rest), item  # "The others as …"
        if name == "Raises":
            yield ", ".join(resolve(one) for one in names) or "…"
        else:
            known = [rest.pop(one) for one in names if one in rest]
            kinds = {_type(one.annotation) for one in known} if len(known) == len(names) else set()
            stars = {one.name: str(one).partition(one.name)[0] for one in known}
            shown = ", ".join(stars.get(one, "") + one for one in names)
            yield shown + (f" : {_literal(*kinds)}" if len(kinds) == 1 and "" not in kinds else "")
        yield "    " + inline(note + text, resolve)


def _flow(block: Block, resolve: Resolve) -> str:
    return inline(" ".join(line.strip() for line in block.lines), resolve)


def _block_rst(block: Block, resolve: Resolve) -> list[str]:
    if block.literal:
        lines = _trimmed([line or "" for line in block.lines if line is not None], most=len(block.lines))
        language = "python" if _code([line for line in block.lines if line.strip()]) else "none"
        kind = "formula" if lines[1:] else "formula one-line"
        shown = (("   " + _ROLE.sub(r"\1", line).replace("``", "")).rstrip() for line in lines)
        return [f".. code-block:: {language}", f"   :class: {kind}", "", *shown, ""]
    if block.lines[0].startswith(">>> "):
        return [*block.lines, ""]
    if block.lines[0].startswith(("- ", "===")):
        if block.lines[0].startswith("==="):
            return _table_rst(block.lines, resolve)
        items = re.split(r"\n- ", "\n" + "\n".join(block.lines))[1:]
        return [*("- " + inline(" ".join(item.split()), resolve) for item in items), ""]
    parts = [part for part in re.split(r"\s{3,}", " ".join(block.lines)) if part]
    if len(parts) > 1:
        return [*("| " + inline(part.strip(), resolve) for part in parts), ""]
    return [_flow(block, resolve), ""]


# ------------------------------------------------------------------------------------------ what is said


def elsewhere(doc: Docstring) -> list[str]:
    """The definitions to which a docstring leaves what it does not say itself: "… as :func:`mse_loss`"."""
    return [first or second for first, second in _AS.findall(doc.text)]


def says_shapes(doc: Docstring) -> bool:
    """Whether a docstring states shapes: in a section, or in the text, as "(N, C) → (N)" or "of shape"."""
    return bool(doc.section("Shapes")) or bool(_SHAPES.search(doc.text))


def says_source(doc: Docstring) -> bool:
    """Whether it names a paper, a book or PyTorch's thing of the same name."""
    return bool(doc.section("Source")) or "Source: " in doc.text


def errors_named(doc: Docstring) -> set[str]:
    """The exceptions that it names."""
    return set(re.findall(r"\b[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Iteration)\b", doc.text))


_SHAPES = re.compile(r"Shapes?[ :]|[Ss]hape|\((?:\*|…|N|n|K|k|C|S|D|L)(?:,[^()]*)?\)|scalar")
