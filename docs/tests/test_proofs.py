"""Which test proves a formula: every row of the index has one, and what a test asserts can be told from its text."""

import ast
import textwrap

import formula_index
import proofs
import pytest
import symbols


def rows():
    """Every row of *Find a formula*."""
    return [row for members in symbols.groups().values() for symbol in members for row in formula_index.rows_of(symbol)]


def parsed(text, path="tinygen_tests/test_x.py"):
    """The tests of a file with this text, by name."""
    return {test.name: test for test in proofs.tests_of(path, ast.parse(textwrap.dedent(text)))}


# ------------------------------------------------------------------------------------------------ every row


def test_every_row_has_a_test_that_judges_numbers_or_cases_that_state_the_value_again():
    missing = [problem for row in rows() for problem in formula_index.problems(row)]
    assert missing == [] and len(rows()) > 400


def test_no_row_names_a_test_of_errors_texts_or_books():
    weak = {
        f"{row.name}: {test.path}:{test.line} {test.name}"
        for row in rows()
        if (test := proofs.test_of(row)) is not None and (not test.judges or proofs.is_weak(test.name))
    }
    assert weak == set()


def test_what_tests_say_that_they_prove_is_there_once_and_judged():
    assert list(proofs.false_claims()) == []


@pytest.mark.parametrize(
    "name, path, test",
    [
        ("tinygen.nn.functional.conv2d", "ops/test_convolution.py", "test_conv2d_agrees_with_pytorch"),
        ("tinygen.nn.LeakyReLU", "nn/test_layers.py", "test_as_pytorch"),  # by a table; elsewhere by name
        ("tinygen.models.GAN.decode", "models/gan/test_model.py", "test_noise_is_decoded_by_the_resting_generator"),
    ],
)
def test_a_symbol_is_matched_with_the_test_that_is_about_it(name, path, test):
    found = proofs.test_of(symbols.symbol_at(name))
    assert found.path == f"tinygen_tests/{path}" and found.name.startswith(test)


def test_an_op_behind_a_function_is_proved_where_the_function_is_and_another_by_its_cases():
    ops = {op.defined: op for op in symbols.ops()}
    behind = ops["tinygen.ops.linear._linear"]
    assert proofs.test_of(behind) == proofs.test_of(symbols.public()["tinygen.nn.functional.linear"])
    # F.normalize makes vectors of length 1; the op of this name is what batch_norm and its kin end in.
    of_its_own = next(op for name, op in ops.items() if name.endswith("._normalize"))
    assert proofs.test_of(of_its_own) is None and proofs.cases_of(of_its_own).value
    assert proofs.cases_of(ops["tinygen.ops.elementwise.cos"]).path == "tinygen_tests/cases/elementwise.py"


def test_what_no_test_uses_has_none():
    nobody = symbols.Symbol("tinygen.x.zzz", "tinygen.optim.adam.Adam._averages", "function")
    assert proofs.test_of(nobody) is None
    (problem,) = [p for p in formula_index.problems(nobody) if "no test" in p]
    assert 'let its docstring say "Proves: _averages."' in problem


def test_what_has_no_formula_has_the_test_that_speaks_of_it():
    error = symbols.public()["tinygen.data.DownloadError"]
    assert proofs.test_of(error) is None and proofs.mention_of(error).path == "tinygen_tests/data/test_download.py"


# ------------------------------------------------------------------------------------- what a test asserts

JUDGING = {
    "a number": "assert softmax(x).item() == 0.5",
    "an array": "np.testing.assert_allclose(softmax(x), [0.5, 0.5])",
    "PyTorch": "judge(softmax, torch.softmax, x)",
    "by a helper": "close(softmax(x))",
    "beside an error": "with pytest.raises(ValueError):\n        softmax(y)\n    assert (softmax(x) == 0.5).all()",
    "a number within a margin": "assert abs(softmax(x).item() - 0.5) < 1e-3",
    "all of an array": "assert (softmax(x) == 0.5).all()",
    "each of several": "assert all(v == 0.5 for v in softmax(x).tolist())",
    "the length of a vector": "assert norm(x) == len(x) ** 0.5",
}
WEAK = {
    "an error": 'with pytest.raises(ValueError, match="dim"):\n        softmax(x)',
    "an error by a helper": "refused(softmax, x)",
    "a shape": "assert softmax(x).shape == (2, 3)",
    "a shape and a dtype": "assert softmax(x).shape == (2, 3) and softmax(x).dtype == x.dtype",
    "the shapes of several": "assert all(y.shape == (2,) for y in softmax(x))",
    "a text": 'assert repr(softmax) == "softmax"',
    "part of a text": 'assert "softmax" in str(softmax)',
    "a type": "assert isinstance(softmax(x), Tensor) and not softmax(x).requires_grad",
    "whether there is one": "assert softmax(x) is not None and hasattr(softmax, 'op')",
    "a range": "assert ((softmax(x) > 0) & (softmax(x) < 1)).all() and softmax(x).max() <= 1",
    "that something else comes out": "assert not np.allclose(softmax(x), softmax(y)) and (softmax(x) != y).any()",
    "the names of arguments": "assert list(inspect.signature(softmax).parameters) == NAMES",
    "a list of names": "assert {op.name for op in registry.values()} == {'softmax'}",
    "nothing": "softmax(x)",
}


def test_of_text(body):
    """A file with one test of this body."""
    return f'''
    def close(y):
        np.testing.assert_allclose(y, 0.5)

    def refused(f, x):
        with pytest.raises(ValueError):
            f(x)

    def test_softmax():
        """softmax, which is not used by being named here."""
        {body.replace(chr(10), chr(10) + "    ")}
    '''


test_of_text.__test__ = False


@pytest.mark.parametrize("body", JUDGING.values(), ids=JUDGING)
def test_what_judges(body):
    test = parsed(test_of_text(body))["test_softmax"]
    assert test.judges


@pytest.mark.parametrize("body", WEAK.values(), ids=WEAK)
def test_what_is_no_proof(body):
    test = parsed(test_of_text(body))["test_softmax"]
    assert not test.judges


def test_what_is_used_where_an_error_is_expected_is_not_used():
    test = parsed(test_of_text(WEAK["an error"]))["test_softmax"]
    assert "softmax" not in test.direct | test.through and "softmax" in test.mentions


def test_names_come_from_the_tables_that_a_test_is_parametrised_with():
    test = parsed("""
    TABLE = {"relu": 1, "elu": 2}
    OTHERS = {"silu": 3}

    def others():
        return OTHERS

    @pytest.mark.parametrize("name", TABLE)
    def test_every_one(name):
        same(getattr(F, name), others())
    """)["test_every_one"]
    assert {"relu", "elu"} <= test.direct and "silu" in test.through - test.direct


def test_a_test_says_what_it_proves():
    tests = parsed('''
    def test_one():
        """In passing.

        Proves: softmax, VAE.elbo,
        GAN.
        """

    def test_two():
        """Proves: norm."""

    def test_three():
        """What somebody proves: nothing."""
    ''')
    assert [test.proves for test in tests.values()] == [("softmax", "VAE.elbo", "GAN"), ("norm",), ()]


CLAIMS = '''
def test_first():
    """Proves: {first}."""
    assert softmax(x).item() == VAE(x).elbo()

def test_second():
    """Proves: {second}."""
    {body}
'''


@pytest.mark.parametrize(
    "first, second, body, message",
    [
        ("F.softmax", "sofmax", "assert softmax(x) == 1", "sofmax, which means nothing"),
        ("softmax", "softmax.softmax", "assert softmax(x) == 1", "softmax.softmax, and so does"),
        ("softmax", "elbo", "assert softmax(x) == 1", "elbo, which means nothing"),
        ("softmax", "VAE.elbo", "assert softmax(x).shape == 1", "VAE.elbo, but asserts nothing of numbers"),
        ("softmax", "log_softmax", "assert 1 == 2", "log_softmax, which its file does not use"),
        ("softmax", "interpolate", "assert interpolate(x) == 1", "means tinygen.ops.resampling.interpolate and"),
    ],
)
def test_a_false_claim_is_named(first, second, body, message, monkeypatch, tmp_path):
    text = CLAIMS.format(first=first, second=second, body=body)
    path = tmp_path / "test_x.py"
    path.write_text(text, "utf-8")
    monkeypatch.setattr(proofs, "tests", lambda: list(parsed(text, path.as_posix()).values()))
    assert any(message in claim for claim in proofs.false_claims())
