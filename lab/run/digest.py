"""A digest of exactly the code that decides a number: it changes when a result could, and only then.

It starts from functions and classes and follows, as they are in memory, all that they name: functions, classes and
their attributes, constants, defaults, closures, decorators, partials, objects. What belongs to an installed library
counts by its name. Docstrings, comments, layout, annotations of functions, the text of errors and the rules for
settings do not count: a rule lets a value pass or refuses it, and changes none. Nor does the file in which something
stands: code moved unchanged keeps its digest.

A digest is for results that travel between machines. Whatever it cannot follow is refused with its name.
"""

import ast
import copy
import copyreg
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from dataclasses import MISSING
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import torch

from lab import rules
from lab.compiling import Source
from lab.files import ROOT
from lab.run.source import Untraceable, syntax_of
from lab.run.tokens import tokens

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
CHECKS = ("check", "check_fields")  # of lab.rules
BLIND = {
    "eval",
    "exec",
    "compile",
    "globals",
    "__import__",
    "import_module",
    "get_ipython",
    "open",
}  # what these reach is visible in no source
# what a class has besides its code: names, places, annotations, how it shows itself, what others have stored there
NOT_CODE = "__module__ __qualname__ __name__ __doc__ __dict__ __weakref__ __annotations__ __annotate_func__"
NOT_CODE += " __annotations_cache__ __static_attributes__ __firstlineno__ __slotnames__ __repr__ __str__ extra_repr"
NOT_CODE += " __match_args__ __abstractmethods__ _abc_impl __parameters__ __orig_bases__ __type_params__"
LIBRARIES = [Path(sysconfig.get_paths()[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]


def code_digest(*roots):
    """SHA-256 over the functions, classes and values in `roots` and all that they reach outside installed libraries.

    Raises: Untraceable naming what cannot be followed, and why.
    """
    reached = _Reached()
    for root in roots:
        reached.describe(root)
    lines = [f"{name} {reached.found[name]}" for name in sorted(reached.found)]
    values = sorted(reached.describe(root) for root in roots)
    return hashlib.sha256("\n".join(lines + values).encode()).hexdigest()


class _Reached:
    """What has been reached so far: descriptions by name; objects in progress, so that cycles end."""

    def __init__(self):
        self.found, self.names, self.open = {}, {}, set()

    def describe(self, value):
        """A text that changes when the value does; functions and classes by name, and what they are in `found`."""
        if isinstance(value, Source):
            return f"C++ {tokens(value)!r}"
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, ModuleType):
            if _is_installed(value.__name__):
                return f"module {value.__name__}"
            raise Untraceable(f"module {value.__name__} is passed on whole; only plain attributes of it are followed")
        if isinstance(value, type):
            return self._name(value, self._describe_class)
        if isinstance(value, FunctionType):
            if _is_in_library(value.__code__.co_filename) and hasattr(value, "__wrapped__"):
                # a library's decorator, which the source names; singledispatch has more functions behind it
                others = dict(value.registry) if hasattr(value, "registry") else None
                return self.describe([value.__wrapped__, others] if others else value.__wrapped__)
            return self._name(value, self._describe_function)
        if id(value) in self.open:
            return "<itself>"
        self.open.add(id(value))
        try:
            return self._describe_object(value)
        finally:
            self.open.discard(id(value))

    def _name(self, item, describe):
        """The name of a function or class, described on first sight if it is no library's."""
        if _is_installed(item.__module__):
            # what a library calls private moves from one version to the next
            public = [part for part in (item.__module__ or "nowhere").split(".") if not part.startswith("_")]
            name = ".".join([*public, item.__qualname__])
            if any(_lookup(item.__module__, place) is item for place in (item.__qualname__, item.__name__)):
                return name + self._describe_patches(item)
        else:
            name = item.__qualname__  # wherever it stands
        known = self.names.setdefault(name, [])  # two things may have one name: a class whose cell was run again
        if not any(other is item for other in known):
            others = {other.__module__ for other in known} - {item.__module__}
            if others and "<" not in name:  # lambdas, and what is defined in functions, have no name of their own
                raise Untraceable(f"{others.pop()} and {item.__module__} both define {name}; rename one of them")
            known.append(item)
            place = name if len(known) == 1 else f"{name}#{len(known)}"
            self.found[place] = ""
            self.found[place] = describe(item)
        position = next(position for position, other in enumerate(known, 1) if other is item)
        return name if position == 1 else f"{name}#{position}"

    def _describe_patches(self, item):
        """What somebody has put in place of methods of a library's class: a text, empty if there are none."""
        found = {}
        for base in item.__mro__ if isinstance(item, type) else ():
            for name, value in vars(base).items():
                filename = getattr(getattr(value, "__code__", None), "co_filename", "<")
                if filename[:1] != "<" and not _is_in_library(filename) and _is_installed(base.__module__):
                    found[f"{base.__name__}.{name}"] = self.describe(value)
        return repr(found) if found else ""

    def _describe_class(self, cls):
        if issubclass(cls, tuple) and hasattr(cls, "_field_defaults"):  # made by namedtuple, and so without a source
            return self.describe([cls.__bases__, cls._fields, cls._field_defaults])
        parts = {"bases": self.describe(cls.__bases__)}
        if not _is_installed(type(cls).__module__):
            parts["metaclass"] = self.describe(type(cls))
        fields = vars(cls).get("__dataclass_fields__")
        if fields is not None:
            factories = [(item.name, item.default_factory) for item in fields.values()]
            parts["factories"] = self.describe([pair for pair in factories if pair[1] is not MISSING])
            parts["fields"] = self.describe([(item.name, item.init, item.kw_only) for item in fields.values()])
        for name, value in sorted(vars(cls).items()):
            if name in NOT_CODE.split() or fields is not None and _is_made_by_dataclass(name, value):
                continue
            parts[name] = "a place for a value" if _is_slot(value) else self.describe(value)
        return repr(parts)

    def _describe_function(self, function):
        code = function.__code__
        parts = [self.describe(value) for value in (function.__defaults__, function.__kwdefaults__, vars(function))]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                parts.append(f"{name}={self.describe(cell.cell_contents)}")
            except ValueError as error:
                if isinstance(error, Untraceable):
                    raise
                parts.append(f"{name} is empty")
        if _is_in_library(code.co_filename):  # a function wrapped by a library's decorator
            return repr([code.co_qualname, *parts])
        checks = frozenset(name for name in CHECKS if function.__globals__.get(name) is getattr(rules, name))
        trees, texts = _bare_syntax(code, checks)
        used = {use for tree in trees for use in self._follow_names(tree, function)}
        return repr([*texts, *parts, *sorted(used)])

    def _follow_names(self, tree, function):
        """The meaning of every global name that a function uses, as texts."""
        imported = _imported_within(tree, function)
        scope = function.__globals__ | imported
        names = _names(function.__code__) | set(imported)
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            name = getattr(node, "attr", None) if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            if name in BLIND and (isinstance(node, ast.Name) or name == "import_module"):
                raise Untraceable(f"{function.__qualname__} uses {name}, which reaches what no source shows")
            if not isinstance(node, ast.Name) or node.id not in names:
                continue
            if node.id in scope:
                path, value = _resolve(node, scope[node.id], parents)
                try:
                    yield f"{path} = {self.describe(value)}"
                except Untraceable as error:
                    raise Untraceable(f"{error} (used as {path} by {function.__qualname__})") from None

    def _describe_object(self, value):
        if isinstance(value, tuple | list) and type(value) in (tuple, list):
            return f"{type(value).__name__}({', '.join(map(self.describe, value))})"
        if type(value) is dict:
            return "{" + ", ".join(f"{self.describe(key)}: {self.describe(item)}" for key, item in value.items()) + "}"
        if isinstance(value, Path):
            return f"path {value.relative_to(ROOT) if value.is_relative_to(ROOT) else value}"
        if type(value) in (set, frozenset):
            return f"{type(value).__name__}({', '.join(sorted(map(self.describe, value)))})"
        if isinstance(value, torch.Tensor):
            bits = hashlib.sha256(tensor_bytes(value)).hexdigest()
            return f"tensor {value.dtype} {tuple(value.shape)} {bits} {self.describe(vars(value))}"
        if isinstance(value, staticmethod | classmethod):
            return f"{type(value).__name__} {self.describe(value.__func__)}"
        if isinstance(value, property):
            return f"property {self.describe((value.fget, value.fset, value.fdel))}"
        if isinstance(value, functools.cached_property):
            return f"cached_property {self.describe(value.func)}"
        if isinstance(value, functools._lru_cache_wrapper):
            return f"cache {self.describe(value.__wrapped__)}"
        return self._describe_by_its_state(value)

    def _describe_by_its_state(self, value):
        """Any other object: by the class and state from which Python would rebuild it, as in pickle."""
        try:
            registered = copyreg.dispatch_table.get(type(value))
            state = registered(value) if registered else value.__reduce_ex__(2)
        except Exception as error:  # of any kind: it comes from the object itself
            raise Untraceable(f"a {type(value).__qualname__} cannot be followed: {error}") from None
        if isinstance(state, str):  # the name of something global
            module = getattr(value, "__module__", None) or type(value).__module__
            return f"{module}.{state}" if _is_installed(module) else state
        parts = [list(part) if hasattr(part, "__next__") else part for part in state]
        own = [base for base in type(value).__mro__ if not _is_installed(base.__module__)]
        if any({"__getstate__", "__reduce__", "__reduce_ex__"} & set(vars(base)) for base in own):
            parts.append(getattr(value, "__dict__", {}))  # what it hands out may not be all that it has
        return self.describe(parts)


def tensor_bytes(tensor):
    """The bits of a tensor of any kind; Untraceable if it has none that can be read."""
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        plain = plain if plain.layout == torch.strided else plain.to_dense()
        return plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Untraceable(f"a tensor on {tensor.device} cannot be read: {error}") from None


def _is_installed(module):
    """Whether a module is Python's or that of an installed package; what runs in a notebook or script is not."""
    top = (module or "builtins").partition(".")[0]
    if top == "__main__" or top in sys.stdlib_module_names:
        return top != "__main__"
    package = sys.modules.get(top)
    places = [getattr(package, "__file__", None), *getattr(package, "__path__", ())]
    return any(place and _is_in_library(place) for place in places)


@functools.cache
def _is_in_library(filename):
    path = Path(filename).resolve()
    in_packages = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(in_packages) or filename.startswith("<frozen ") or any(map(path.is_relative_to, LIBRARIES))


def _lookup(module, name):
    """What a module has under a dotted name; None if nothing."""
    return functools.reduce(lambda owner, part: getattr(owner, part, None), name.split("."), sys.modules.get(module))


def _is_slot(value):
    """Whether it is the C descriptor of an instance's attribute: of `__slots__`, or of a ctypes structure."""
    ours = isinstance(value, property) or not _is_installed(type(value).__module__)
    return inspect.isdatadescriptor(value) and not ours


def _is_made_by_dataclass(name, value):
    """Whether a member of a dataclass was made by the decorator, which differs between Python versions."""
    code, module = getattr(value, "__code__", None), getattr(value, "__module__", None)
    generated = code is not None and code.co_filename == "<string>"
    return generated or name.startswith("__dataclass_") or module == "dataclasses"


def _names(code):
    """Names that a function and those within it look up outside themselves, attributes included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _imported_within(tree, function):
    """What a function imports for itself, by name."""
    found, package = {}, function.__globals__.get("__package__")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                owner = importlib.import_module(module)
                found[alias.asname or alias.name] = getattr(owner, alias.name, None) or sys.modules.get(
                    f"{module}.{alias.name}"
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = sys.modules[alias.name if alias.asname else top]
    return found


def _resolve(node, value, parents):
    """What a use of a name means, attributes of modules included: its path in words, and the object.

    For a library's module, that is the module itself, unless something of this project has been put into it.
    """
    path, first = node.id, value
    while isinstance(value, ModuleType) and isinstance(parents[node], ast.Attribute):
        node = parents[node]
        path, value = f"{path}.{node.attr}", getattr(value, node.attr, None)
    if isinstance(first, ModuleType) and _is_installed(first.__name__):
        replaced = isinstance(value, type | FunctionType) and not _is_installed(value.__module__)
        return (path, value) if replaced else (path.partition(".")[0], first)
    return path, value


@functools.cache
def _bare_syntax(code, checks):
    """The syntax trees of a function without what cannot change a number, and their texts."""
    syntax = syntax_of(code)
    trees = [_Bare(checks).visit(copy.deepcopy(tree)) for tree in (syntax if isinstance(syntax, list) else [syntax])]
    return trees, [ast.unparse(_Placeless().visit(copy.deepcopy(tree))) for tree in trees]


class _Bare(ast.NodeTransformer):
    """Drop what cannot change a number; `checks` are the names that the functions of lab.rules go by."""

    def __init__(self, checks):
        self.checks = checks

    def _body(self, node):
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        node.body = [part for part in node.body if not _is_text(part) and not self._is_check(part)] or [ast.Pass()]
        return node

    visit_ClassDef = visit_FunctionDef = _body

    def _is_check(self, node):
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        return is_call and ast.unparse(node.value.func) in self.checks

    def visit_Raise(self, node):
        return ast.Raise()

    def visit_arg(self, node):
        return ast.arg(arg=node.arg)


class _Placeless(ast.NodeTransformer):
    """Leave out where something of this project is imported from; only what it is counts."""

    def visit_ImportFrom(self, node):
        elsewhere = node.level == 0 and _is_installed(node.module)
        return node if elsewhere else ast.ImportFrom(module="project", names=node.names, level=0)


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
