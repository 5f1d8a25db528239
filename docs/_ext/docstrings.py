"""The house's docstrings: what is in one, and the same as reStructuredText.

A docstring begins with one sentence, which is the formula where there is one. Then come paragraphs, indented blocks,
which stand as they are written, and sections: ``Shapes:``, ``Args:``, ``Attributes:``, ``Returns:``, ``Raises:``,
``Source:``. Four blanks inside a line separate a formula from its derivative. A section may be left to another
definition: "Shapes and errors as :func:`mse_loss`."
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SECTIONS = ("Shapes", "Args", "Attributes", "Returns", "Yields", "Raises", "Source")
_HEAD = re.compile(rf"^({'|'.join(SECTIONS)})( \([^)]*\))?:(?=\s|$)")
# What makes a line of text a formula: a relation with something on both sides, as it is written beside symbols.
_RELATION = re.compile(r"\S\s*(?:\+=|[=←≈∝≤≥∈≠]|\s~\s)\s*\S|[∀∃Σ∏]|→ [\w(]")
_STATED = re.compile(r"\S\s*(?:\+=|[=←≈∝])\s*\S|\s~\s|[∀∃ΣΠ∫‖]|→ [\w(]")  # in a sentence, where a ≥ 0 is no formula
_DERIVATIVE = re.compile(r"^\W*(∂|∇|dL|with G)")
_AS = re.compile(r"\bas (?:in )?(?:those of )?(?::\w+:`[~.]?([\w.]+)`|``?([\w.]+)``?)")
_ROLE = re.compile(r":\w+:`([^`]+)`")


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
        indented = bool(line) and line.startswith("  ")
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
    indent = min(len(line) - len(line.lstrip()) for line in lines)
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


# --------------------------------------------------------------------------------------- reStructuredText

_INLINE = re.compile(
    r"(?P<code>``.+?``)"
    r"|(?P<role>:\w+(?::\w+)?:`[^`]+`)"
    r"|(?P<title>(?<![\w*(])\*(?=[A-Za-z])[^*]*[\w?!.’')]\*(?!\w))"
    r"|(?P<single>`[^`]+`)",
    re.DOTALL,
)


def escaped(text: str) -> str:
    """Plain text, so that no character of it is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def inline(text: str, resolve: Callable[[str], str]) -> str:
    """A paragraph's text: code, titles and references as they are meant, everything else as it stands."""
    out, at = [], 0
    for match in _INLINE.finditer(text):
        out.append(escaped(text[at : match.start()]))
        at = match.end()
        found = match[0]
        # Markup must be set apart from what it touches.
        if match["role"]:
            found = resolve(found.rpartition(":")[2].strip("`"))
        elif match["single"]:
            found = f"`{found}`"
        elif match["title"]:
            found = "*" + escaped(found[1:-1]) + "*"
        before = "\\ " if match.start() and not text[match.start() - 1].isspace() else ""
        after = "\\ " if at < len(text) and not text[at].isspace() else ""
        out.append(before + found + after)
    out.append(escaped(text[at:]))
    return "".join(out)


def to_rst(text: str | None, resolve: Callable[[str], str] = lambda name: f"``{name}``") -> list[str]:
    """A docstring as reStructuredText. ``resolve`` turns the name in a reference into a link, or into code."""
    doc = parse(text)
    out: list[str] = []
    for block in doc.body:
        out += _block_rst(block, resolve)
    for name, note, blocks in doc.sections:
        title = f"{name} {note}".strip()
        if name in ("Args", "Attributes", "Raises") or (name in ("Returns", "Yields") and len(blocks) > 1):
            out += [f".. rubric:: {escaped(title)}", "   :class: docsection", ""]
            out += _list_rst(blocks, resolve)
        else:
            first, *rest = blocks or [Block([""])]
            out += [f"**{escaped(title)}:** {_flow(first, resolve)}", ""]
            for block in rest:
                out += _block_rst(block, resolve)
    return out


def _flow(block: Block, resolve: Callable[[str], str]) -> str:
    return inline(" ".join(line.strip() for line in block.lines), resolve)


def _block_rst(block: Block, resolve: Callable[[str], str]) -> list[str]:
    if block.literal:
        lines = _trimmed([line or "" for line in block.lines if line is not None], most=len(block.lines))
        language = "python" if _code([line for line in block.lines if line.strip()]) else "none"
        return [f".. code-block:: {language}", "   :class: formula", "", *("   " + line for line in lines), ""]
    if block.lines[0].startswith(">>> "):
        return [*block.lines, ""]
    if block.lines[0].startswith(("- ", "===")):
        if block.lines[0].startswith("==="):
            return [".. code-block:: none", "", *("   " + line for line in block.lines), ""]
        items = re.split(r"\n- ", "\n" + "\n".join(block.lines))[1:]
        return [*("- " + inline(" ".join(item.split()), resolve) for item in items), ""]
    parts = [part for part in re.split(r"\s{3,}", " ".join(block.lines)) if part]
    if len(parts) > 1:
        return [*("| " + inline(part.strip(), resolve) for part in parts), ""]
    return [_flow(block, resolve), ""]


def _list_rst(blocks: list[Block], resolve: Callable[[str], str]) -> list[str]:
    """``name, name: what it is``, continued on lines that are indented further, as a field list."""
    items: list[str] = []
    for block in blocks:
        for line in block.lines:
            if line.startswith(" ") and items:
                items[-1] += " " + line.strip()
            elif line.strip():
                items.append(line.strip())
    out = []
    for item in items:
        name, colon, rest = item.partition(": ")
        if colon and re.fullmatch(r"[\w*, .]+(\([^)]*\))?", name):
            names = ", ".join(f"``{part.strip()}``" for part in name.split(","))
            out.append(f"- {names}: {inline(rest, resolve)}")
        else:
            out.append("- " + inline(item, resolve))
    return [*out, ""]


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
