"""A digest of exactly that code which decides a number: it changes when a result could, and only then.

It covers the given functions and classes and, transitively, every function, class and constant of this project
that they name. Docstrings, comments, layout, annotations of functions, the text of errors and the rules for settings
do not count: a rule lets a value pass or refuses it, and changes none.
A constant has to be plain: numbers, texts, tuples, or a dictionary of those and of torch's functions.
"""

import ast
import functools
import hashlib
import inspect
import sys
from pathlib import Path

from lab.data import ROOT

CONSTANTS = (int, float, str, tuple, dict, bool, type(None))


def code_digest(*roots):
    """SHA-256 over the syntax of the functions and classes in `roots` and of all they reach in this project."""
    found, open_ends = {}, list(roots)
    while open_ends:
        item = open_ends.pop()
        name = f"{item.__module__}.{item.__qualname__}"
        if name in found or not _is_ours(item):
            continue
        tree = _definitions(item.__module__)[item.__qualname__]
        found[name] = ast.unparse(tree)
        scope = vars(sys.modules[item.__module__])
        for used in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & set(scope):
            value = scope[used]
            if inspect.isclass(value) or inspect.isfunction(value):
                open_ends.append(value)
            elif isinstance(value, CONSTANTS):
                found[f"{item.__module__}.{used}"] = _describe(value)
    return hashlib.sha256("\n".join(f"{name} {found[name]}" for name in sorted(found)).encode()).hexdigest()


def _is_ours(item):
    path = Path(getattr(sys.modules.get(item.__module__), "__file__", None) or "/")
    return path.resolve().is_relative_to(ROOT) and "site-packages" not in path.parts


@functools.cache
def _definitions(module_name):
    """Top-level functions and classes of a module by name, bare; read once, so that later edits do not count."""
    tree = ast.parse(Path(sys.modules[module_name].__file__).read_text())
    return {node.name: _Bare().visit(node) for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def _describe(constant):
    if isinstance(constant, dict):
        return repr({key: getattr(value, "__qualname__", value) for key, value in constant.items()})
    return repr(constant)


class _Bare(ast.NodeTransformer):
    """Drop what cannot change a number."""

    def _body(self, node):
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        node.body = [part for part in node.body if not _is_text(part) and not _is_check(part)] or [ast.Pass()]
        return node

    visit_ClassDef = visit_FunctionDef = _body

    def visit_Raise(self, node):
        return ast.Raise()

    def visit_arg(self, node):
        return ast.arg(arg=node.arg)


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_check(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "check"
