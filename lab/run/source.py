"""The source of code as it runs: found, parsed, and compared with what Python holds.

A file may have been edited since it was imported, and a notebook's cell run again: what it says need not be what
runs. So a source counts only if it compiles to exactly the function's code. Once found, it is remembered by that
code, whatever happens to the file.
"""

import ast
import functools
import linecache
import os
import tokenize
from types import CodeType

POSITIONS = ("co_qualname", "co_linetable", "co_lnotab", "co_firstlineno", "co_filename")


class Untraceable(ValueError):
    """Code or a value that cannot be followed to a source, named with the reason."""


@functools.cache
def syntax_of(code):
    """The syntax tree of a function, an ast.FunctionDef, or for a lambda the list of ast.Lambda on its line.

    Args:
        code: its `__code__`.

    Raises: Untraceable if there is no source, or only one that compiles to other code.
    """
    return _find(code)[1]


def class_text(cls):
    """The lines of a class as they stand in its file or cell, docstring included.

    Raises: Untraceable, as `syntax_of`; also for a class without functions of its own, which leads to no source.
    """
    for member in vars(cls).values():
        code = getattr(getattr(member, "__func__", member), "__code__", None)
        if code is None or not code.co_qualname.startswith(f"{cls.__qualname__}."):
            continue
        text, syntax = _find(code)
        for node in _definitions(ast.parse(text)).get(cls.__qualname__, []):
            if isinstance(node, ast.ClassDef) and node.lineno <= syntax.lineno <= node.end_lineno:
                return "\n".join(text.splitlines()[_first_line(node) - 1 : node.end_lineno])
    raise Untraceable(f"class {cls.__qualname__}: its source cannot be found")


def function_text(function):
    """The lines of a function as they stand in its file or cell, decorators and docstring included.

    Raises: Untraceable, as `syntax_of`.
    """
    text, syntax = _find(function.__code__)
    return "\n".join(text.splitlines()[_first_line(syntax) - 1 : syntax.end_lineno])


def _find(code):
    """Text of the file or cell, and the syntax of the function in it."""
    text = _read(code.co_filename)
    if not text:
        raise Untraceable(f"{code.co_qualname}: there is no source, it was made from {_place(code)}")
    try:
        definitions, compiled = _parse(text)
    except (SyntaxError, ValueError):
        definitions, compiled = {}, {}
    lines = [other.co_firstlineno for other in compiled.get(code.co_qualname, []) if _same(code, other)]
    name = code.co_name if code.co_name == "<lambda>" else code.co_qualname
    nodes = [node for node in definitions.get(name, []) if _first_line(node) in lines]
    if not nodes:
        raise Untraceable(f"{code.co_qualname}: {_place(code)} has changed since it was read; start Python anew")
    if isinstance(nodes[0], ast.Lambda):
        return text, [node for node in nodes if _is_compiled_to(node, code)] or nodes
    return text, nodes[0]


def _is_compiled_to(node, code):
    """Whether a lambda is this one, of several on a line; one that closes over names cannot be told apart like this."""
    constants = compile(ast.Expression(node), "", "eval", dont_inherit=True).co_consts
    return any(isinstance(constant, CodeType) and _same(constant, code) for constant in constants)


def _place(code):
    """The file of some code; not the path of a cell, which differs in every kernel."""
    return code.co_filename if os.path.isfile(code.co_filename) or code.co_filename[:1] == "<" else "a cell that"


def _read(filename):
    """The text of a file as it is now, or of a notebook's cell as it was run; empty if there is neither."""
    if os.path.isfile(filename):
        with tokenize.open(filename) as file:
            return file.read()
    return "".join(linecache.getlines(filename))


@functools.lru_cache(256)
def _parse(text):
    """Definitions of a text by qualified name, and the code that they compile to."""
    tree = ast.parse(text)
    # a file is compiled whole, a cell statement by statement, and Python makes slightly different code of the two
    wholes = [tree, *(ast.Module([statement], []) for statement in tree.body)]
    compiled, open_ends = {}, [compile(whole, "", "exec", dont_inherit=True) for whole in wholes]
    while open_ends:
        code = open_ends.pop(0)
        compiled.setdefault(code.co_qualname, []).append(code)
        open_ends += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return _definitions(tree), compiled


def _definitions(tree):
    """Classes and functions by qualified name; lambdas, which have none of their own, all under one."""
    separators = {ast.ClassDef: ".", ast.FunctionDef: ".<locals>.", ast.AsyncFunctionDef: ".<locals>."}
    found, open_ends = {}, [(tree, "", "")]
    while open_ends:
        parent, outside, inside = open_ends.pop(0)
        for node in ast.iter_child_nodes(parent):
            # decorators, bases and defaults belong to the outer scope
            prefix = inside if type(parent) not in separators or node in parent.body else outside
            if isinstance(node, ast.Lambda):
                found.setdefault("<lambda>", []).append(node)
            if type(node) in separators:
                found.setdefault(prefix + node.name, []).append(node)
                open_ends.append((node, prefix, prefix + node.name + separators[type(node)]))
            else:
                open_ends.append((node, prefix, prefix))
    return found


def _first_line(node):
    """Where Python says that the code begins: at the first decorator."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _same(one, other):
    """Whether two code objects do the same, wherever they are."""
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        names = [name for name in dir(one) if name.startswith("co_") and name not in POSITIONS]
        values = [(getattr(one, name), getattr(other, name)) for name in names if not callable(getattr(one, name))]
        return all(_same(left, right) for left, right in values)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    return type(one) is type(other) and repr(one) == repr(other)  # 1, 1.0 and True are equal, but not the same
