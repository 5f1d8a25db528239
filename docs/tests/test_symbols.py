"""Where things are: definitions, public names, floors."""

import house
import located
import pytest
import symbols
from located import locate


def test_a_definition_with_its_decorators():
    found = locate("tinygen.ops.elementwise.mul")
    text = found.text()
    assert found.path == "tinygen/ops/elementwise.py"
    assert text[0].startswith("@op") and text[1].startswith("def mul(") and text[-1].startswith("    return")


def test_methods_variables_modules_and_tests():
    assert locate("tinygen.optim.adam.Adam._update").text()[0].strip().startswith("def _update")
    assert locate("tinygen.metrics.mmd.SCALES").text() == ["SCALES = (0.5, 1.0, 2.0)"]
    assert locate("tinygen.ops").path == "tinygen/ops/__init__.py"
    assert locate("tinygen_tests.optim.test_adam.test_epsilon_stands_outside_the_root").first > 1


@pytest.mark.parametrize("name", ["tinygen.ops.elementwise.gone", "nowhere.at.all", "tinygen.optim.adam.Adam.gone"])
def test_what_is_gone_is_an_error_that_names_it(name):
    with pytest.raises(LookupError, match=name):
        locate(name)


def test_the_rules_of_an_op():
    assert [rule.text()[0] for rule in located.vjps("tinygen.ops.elementwise.sub")] == [
        '@sub.vjp("input")',
        '@sub.vjp("other")',
    ]
    with pytest.raises(LookupError, match="eq"):
        located.vjps("tinygen.ops.comparison.eq")


def test_every_name_of_the_faces_is_found_once():
    import tinygen as tg

    names = symbols.public()
    assert names["tinygen.nn.functional.conv2d"].defined == "tinygen.ops.convolution.conv2d"
    assert "tinygen.relu" in names and "tinygen.nn.functional.relu" not in names
    assert "tinygen.nn.init.array_module" not in names  # imported there, not offered
    assert len({symbol.defined for symbol in names.values()}) == len(names) > 380
    offered = {name for name in vars(tg) if not name.startswith("_") and callable(getattr(tg, name))}
    known = {symbol.object.__name__ for symbol in names.values()}
    assert {name for name in offered if getattr(tg, name).__name__ not in known} <= {
        "float16", "float32", "float64", "int32", "int64", "uint8", "bool",
    }  # fmt: skip


def test_every_op_is_in_the_index():
    from tinygen.op import registry

    ours = [op for op in registry.values() if op.module.startswith("tinygen.ops")]
    indexed = {symbol.defined for members in symbols.groups().values() for symbol in members}
    assert [op for op in ours if f"{op.module}.{op.forward.__qualname__}" not in indexed] == []


@pytest.mark.parametrize(
    "group", ["Losses", "Optimisers", "Learning-rate schedules", "Samplers of diffusion models", "Metrics"]
)
def test_every_group_has_its_members(group):
    assert len(symbols.groups()[group]) >= 5


def test_the_house_stands():
    assert list(house.problems()) == []


def test_an_import_that_goes_up_is_named(monkeypatch):
    monkeypatch.setattr(house, "imports", lambda: {"backend": {"ops"}})
    assert list(house.problems()) == ["tinygen.backend imports tinygen.ops, which stands above it"]
