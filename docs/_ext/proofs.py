"""Which test proves a formula: the one that says so, or the one whose name, place and contents say it best.

A test may name what it proves in a paragraph of its docstring, by the last parts of dotted names:

    Proves: softmax, log_softmax, VAE.elbo.

Such a name must be that of a symbol, the test must use it, and no other test may claim it. Where none does, the tests
that use the symbol are compared. Left out are those that judge nothing: whose every assertion is about an error, a
shape, a type, a text or a range; and what is used only where an error is expected counts as not used.

An op is also proved by its declared cases, where they state its value a second time in NumPy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from located import ROOT, tree_of
from symbols import Symbol, by_definition, methods, ops, public

TESTS = ROOT / "tinygen_tests"


@dataclass(frozen=True)
class Test:
    """A test function: its file, line and name, and what can be told of it.

    Attributes:
        proves: the names that it says it proves.
        direct: the names that it uses itself, or through the table that it is parametrised with.
        through: those and what the file's functions and tables use that it uses.
        mentions: all names in it, those too that it uses where an error is expected.
        judges: whether it asserts anything but errors, shapes, types, texts and ranges.
        judged: whether something that knows better takes part: PyTorch, SciPy, finite differences.
    """

    path: str
    line: int
    name: str
    proves: tuple[str, ...]
    direct: frozenset[str]
    through: frozenset[str]
    mentions: frozenset[str]
    judges: bool
    judged: bool


# ------------------------------------------------------------------------------------- what a test uses

# Contexts in which an error is expected.
_REFUSALS = {"raises", "warns", "refused"}


def _last(node: ast.AST) -> str:
    """The last name of a call, attribute or name."""
    if isinstance(node, ast.Call):
        return _last(node.func)
    return getattr(node, "attr", None) or getattr(node, "id", "")


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under a context in which an error is expected, and docstrings."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.With) and any(_last(item.context_expr) in _REFUSALS for item in child.items):
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        yield from _walk(child)


def _used(node: ast.AST, everywhere: bool = False) -> set[str]:
    used = set()
    for child in ast.walk(node) if everywhere else _walk(node):
        if isinstance(child, ast.Name):
            used.add(child.id)
        elif isinstance(child, ast.Attribute):
            used.add(child.attr)
        elif isinstance(child, ast.Constant) and isinstance(child.value, str) and len(child.value) < 200:
            used.update(re.findall(r"\w+", child.value))
    return used


# --------------------------------------------------------------------------------- what a test asserts

# What says nothing about the numbers of a result.
_OUTSIDE = set("shape dtype device ndim size requires_grad grad_fn is_leaf training args kind out err".split())
_OUTSIDE_CALLS = set("len repr str type id isinstance issubclass hasattr callable getattr format".split())
# Lists of names.
_BOOKS = set("signature parameters named_parameters buffers named_buffers state_dict keys __all__ registry".split())
# Functions of other files that assert about numbers.
_ASSERTS = re.compile(r"assert_\w+|judge|same\w*|check\w*|compare|agree\w*|train_as_torch")


def _superficial(node: ast.AST) -> bool:
    """Whether an asserted expression pins no number: it is about a shape, a type, a text, a range or a difference."""
    if isinstance(node, ast.BoolOp):
        return all(_superficial(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        return _superficial(node.left) and _superficial(node.right)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not) or _superficial(node.operand)
    if isinstance(node, (ast.Attribute, ast.Constant)):
        return isinstance(node, ast.Constant) or node.attr in _OUTSIDE
    if isinstance(node, ast.Subscript):
        return _superficial(node.value)
    if isinstance(node, (ast.Tuple, ast.List)):
        return bool(node.elts) and all(_superficial(value) for value in node.elts)
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
        return _superficial(node.elt)
    if isinstance(node, ast.Call):
        if _last(node) in ("all", "any"):
            of = node.args if isinstance(node.func, ast.Name) else [getattr(node.func, "value", node)]
            return all(_superficial(value) for value in of)
        if _last(node) in ("list", "set", "sorted"):
            return any(getattr(child, "attr", getattr(child, "id", "")) in _BOOKS for child in ast.walk(node))
        return _last(node) in _OUTSIDE_CALLS
    if isinstance(node, ast.Compare):
        if any(isinstance(op, (ast.Is, ast.IsNot, ast.NotEq)) for op in node.ops):
            return True
        if not any(isinstance(op, (ast.Eq, ast.In, ast.NotIn)) for op in node.ops):
            # y > 0 is a range; |y − 3| < 1e-3 is a number.
            return not any(isinstance(child, ast.BinOp) for child in ast.walk(node))
        sides = [node.left, *node.comparators]
        return any(_superficial(side) and not isinstance(side, (ast.Constant, ast.Tuple, ast.List)) for side in sides)
    return False


def _judges(function: ast.AST, local: dict[str, ast.AST], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a function, or a function of its file that it calls, asserts anything about numbers."""
    for node in _walk(function):
        if isinstance(node, ast.Assert) and not _superficial(node.test):
            return True
        if isinstance(node, ast.Call):
            name = _last(node)
            if name in local:
                if name not in seen and _judges(local[name], local, seen | {name}):
                    return True
            elif _ASSERTS.fullmatch(name):
                return True
    return False


_KNOWS_BETTER = {"torch", "scipy", "sklearn", "check_grad", "judge", "compare", "check_adjoint", "check_op"}


def _proves(function: ast.FunctionDef) -> tuple[str, ...]:
    stated = re.search(r"^\s*Proves: (.+?)(?:\n\s*\n|\Z)", ast.get_docstring(function) or "", re.M | re.S)
    return tuple(re.findall(r"[\w.]*\w", stated[1])) if stated else ()


def tests_of(path: str, tree: ast.Module) -> Iterator[Test]:
    """The tests of one file."""
    uses: dict[str, set[str]] = {}
    local: dict[str, ast.AST] = {}
    for node in tree.body:
        names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        if isinstance(node, ast.Assign):
            names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        for name in names:
            uses[name] = _used(node)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                local[name] = node
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            direct = _used(node)
            tables = {name for decorator in node.decorator_list for name in _used(decorator)}
            direct |= {name for table in tables if table not in local for name in uses.get(table, ())}
            through, queue = set(direct), [name for name in direct if name in uses]
            while queue:
                new = uses[queue.pop()] - through
                through |= new
                queue += [name for name in new if name in uses]
            bookkeeping = "registry" in direct
            yield Test(
                path,
                node.lineno,
                node.name,
                _proves(node),
                frozenset(direct),
                frozenset(through),
                frozenset(_used(node, everywhere=True)),
                judges=_judges(node, local) and not bookkeeping,
                judged=bool(through & _KNOWS_BETTER),
            )


@cache
def tests() -> tuple[Test, ...]:
    """Every test of the suite."""
    paths = sorted(TESTS.rglob("test_*.py"))
    return tuple(test for path in paths for test in tests_of(path.relative_to(ROOT).as_posix(), tree_of(path)))


# --------------------------------------------------------------------------------- the test of a symbol


def named(symbol: Symbol, name: str) -> bool:
    """Whether a name means a symbol: VAE.elbo is tinygen.models.vae.vae.VAE.elbo; a method has its class before it."""
    if symbol.kind == "method" and "." not in name:
        return False
    return any(f".{full}".endswith(f".{name}") for full in (symbol.name, symbol.defined))


def test_of(symbol: Symbol) -> Test | None:
    """The test that proves a symbol; None where no test that judges anything uses it.

    An op of its own name is proved where the function is that calls it, and a class that only its kinds are made of
    through them.
    """
    found = _stated(symbol) or _best(symbol)
    if found is None and (front := _front(symbol)) is not None:
        found = test_of(front)
    if found is None and symbol.kind == "class":
        kinds = (
            by_definition().get(f"{kind.__module__}.{kind.__qualname__}") for kind in symbol.object.__subclasses__()
        )
        found = next((test for kind in kinds if kind and (test := test_of(kind))), None)
    return found


@cache
def _stated(symbol: Symbol) -> Test | None:
    return next((test for test in tests() if any(named(symbol, name) for name in test.proves)), None)


def _front(symbol: Symbol) -> Symbol | None:
    """The public function of an op's own name that calls it: conv2d for _conv2d."""
    module, _, short = symbol.defined.rpartition(".")
    front = by_definition().get(f"{module}.{short.lstrip('_')}")
    if front is None or front.defined == symbol.defined or front.located.node is None:
        return None
    return front if short in _used(front.located.node) else None


# What a test calls itself that compares with something that knows better, and one of texts, forms and arguments.
_JUDGED = re.compile(
    r"_(agrees?|pytorchs?|torch|scipys?|formulas?|definitions?|closed_form|algorithm\w*|papers?|lectures)_"
)
_WEAK = re.compile(r"_(refuse[sd]?|errors|mistakes|messages?|printed|defaults|order_of_arguments|state_dicts|keys)_")


def is_weak(name: str) -> bool:
    """Whether a test calls itself one of errors, of texts or of how arguments are given."""
    return bool(_WEAK.search(f"_{name}_"))


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip("_")).lower()


def _mirror(symbol: Symbol) -> str:
    folder, _, file = symbol.located.path.removeprefix("tinygen/").rpartition("/")
    return "/".join(filter(None, [TESTS.name, folder, f"test_{file}"]))


@cache
def _best(symbol: Symbol) -> Test | None:
    """Among the tests that use a symbol and judge anything, the one that is most about it."""
    names, mirror = {symbol.short, symbol.name.rpartition(".")[2]}, _mirror(symbol)
    folder = mirror.rpartition("/")[0] + "/"
    private, op = symbol.short.startswith("_"), symbol.kind == "op"
    parent = symbol.defined.split(".")[-2] if symbol.kind == "method" else None
    best: tuple[int, Test | None] = (0, None)
    for test in tests():
        home, near = test.path == mirror, test.path.startswith(folder)
        if not test.judges or not names & test.through or (parent and parent not in test.through and not home):
            continue
        title = f"_{test.name}_"
        direct = bool(names & test.direct)
        about = direct and any(f"_{_words(name)}_" in title for name in names)
        judged = bool(_JUDGED.search(title))
        # An op has cases; a test that uses it in passing says nothing more.
        if (op and not (home or (near and about))) or (private and not (home and about and judged)):
            continue
        score = 1 + 8 * home + 4 * near + 3 * direct + 2 * test.judged + 6 * about
        score += 2 * bool(parent and parent in test.direct)
        score += 5 * judged - 6 * is_weak(test.name)
        if score > best[0]:
            best = (score, test)
    return best[1]


def mention_of(symbol: Symbol) -> Test | None:
    """The test nearest to what states no formula, such as an error or a record: by its place and its title."""
    short, mirror = symbol.short, _mirror(symbol)
    folder = mirror.rpartition("/")[0] + "/"

    def nearness(test: Test) -> int:
        titled = f"_{_words(short)}_" in f"_{test.name}_"
        return 8 * (test.path == mirror) + 4 * test.path.startswith(folder) + 6 * titled + test.judges

    return max((test for test in tests() if short in test.mentions | test.through), key=nearness, default=None)


@cache
def _code(path: Path) -> str:
    """A file without what its tests say that they prove."""
    return re.sub(r"Proves: .+?(?=\n\s*\n|\"\"\")", "", path.read_text("utf-8"), flags=re.S)


def false_claims() -> Iterator[str]:
    """What tests say that they prove and cannot: names of nothing or of several, in a test that judges nothing."""
    owners = list(public().values())
    known = {symbol.defined: symbol for symbol in [*ops(), *owners]}
    known |= {method.defined: method for owner in owners if owner.kind == "class" for method in methods(owner)}
    claimed: dict[str, str] = {}
    for test in tests():
        where = f"{test.path}:{test.line} {test.name} says that it proves"
        for name in test.proves:
            meant = [symbol.defined for symbol in known.values() if named(symbol, name)]
            if len(meant) != 1:
                yield f"{where} {name}, which means {' and '.join(meant) or 'nothing'}"
                continue
            if meant[0] in claimed:
                yield f"{where} {name}, and so does {claimed[meant[0]]}"
            claimed[meant[0]] = f"{test.path} {test.name}"
            if not test.judges:
                yield f"{where} {name}, but asserts nothing of numbers"
            if not re.search(rf"{name.rpartition('.')[2]}\b", _code(ROOT / test.path)):
                yield f"{where} {name}, which its file does not use"


# ---------------------------------------------------------------------------------- the cases of an op


@dataclass(frozen=True)
class Cases:
    """Where the cases of an op are declared, and whether they state its value a second time."""

    path: str
    line: int
    value: bool


@cache
def _declarations() -> dict[str, Cases]:
    """Op, by where it is defined → its declared cases."""
    found = {}
    for path in sorted((TESTS / "cases").glob("*.py")):
        relative, tree = path.relative_to(ROOT).as_posix(), tree_of(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "declare" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Attribute):
                    value = any(keyword.arg == "value" for keyword in node.keywords)
                    found[f"tinygen.ops.{path.stem}.{first.attr}"] = Cases(relative, node.lineno, value)
        # Cases of several ops that differ in the name alone are declared in a loop over the names.
        for node in ast.walk(tree):
            name = getattr(node, "attr", None) or (node.value if isinstance(node, ast.Constant) else None)
            if isinstance(name, str) and name.isidentifier():
                found.setdefault(f"tinygen.ops.{path.stem}.{name}", Cases(relative, node.lineno, True))
    return found


def cases_of(symbol: Symbol) -> Cases | None:
    """The declared cases of an op, by which its value and gradients are checked."""
    return _declarations().get(symbol.defined)
