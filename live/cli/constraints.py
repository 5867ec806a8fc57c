"""A constraint on parameters as the command line takes it: ``fast * 2 <= slow``.

Names of parameters, numbers, ``+ - * /``, comparisons, ``and``, ``or``, ``not`` and brackets. The
text is walked, never handed to Python.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from research.errors import InputError, UnknownNameError

__all__ = ["constraint_of"]

Answer = Callable[[dict[str, int | float]], bool]

OPTION: Final = "--constraint"
LONGEST: Final = 500
OPERATORS: Final[Mapping[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def constraint_of(texts: tuple[str, ...], names: frozenset[str]) -> Answer | None:
    """Whether parameters keep to all of ``texts``; None where there are none.

    Raises InputError for a text that is no such comparison, UnknownNameError for a name that is
    none of ``names``, the strategy's parameters.
    """
    trees = [_parsed(text, names) for text in texts]
    if not trees:
        return None

    def holds(parameters: dict[str, int | float]) -> bool:
        return all(_value(tree, parameters) for tree in trees)

    return holds


def _parsed(text: str, names: frozenset[str]) -> ast.expr:
    refusal = InputError(
        field=OPTION, value=text, expected="a comparison of parameters, such as fast * 2 <= slow"
    )
    if len(text) > LONGEST:
        raise refusal
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as err:
        raise refusal from err
    if not _is_claim(tree):
        raise refusal
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in names:
            raise UnknownNameError(
                field=OPTION, value=node.id, expected=f"one of {', '.join(sorted(names))}"
            )
    return tree


def _is_claim(tree: ast.expr) -> bool:
    """Whether a tree is true or false about numbers, and nothing else."""
    match tree:
        case ast.BoolOp(values=values):
            return all(map(_is_claim, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is_claim(operand)
        case ast.Compare(left=left, ops=ops, comparators=others):
            known = all(type(op) in OPERATORS for op in ops)
            return known and all(map(_is_number, (left, *others)))
    return False


def _is_number(tree: ast.expr) -> bool:
    match tree:
        case ast.Constant(value=value):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case ast.Name():
            return True
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return type(op) in OPERATORS and _is_number(left) and _is_number(right)
    return False


def _value(tree: ast.expr, parameters: Mapping[str, int | float]) -> Any:
    match tree:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return parameters[name]
        case ast.UnaryOp(op=op, operand=operand):
            return OPERATORS[type(op)](_value(operand, parameters))
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](_value(left, parameters), _value(right, parameters))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(one, parameters) for one in values)
        case ast.BoolOp(values=values):
            return any(_value(one, parameters) for one in values)
        case ast.Compare(left=left, ops=ops, comparators=others):
            numbers = [_value(one, parameters) for one in (left, *others)]
            pairs = zip(ops, numbers, numbers[1:], strict=False)
            return all(OPERATORS[type(op)](one, other) for op, one, other in pairs)
    raise TypeError(ast.dump(tree))  # _is_claim lets nothing else pass
