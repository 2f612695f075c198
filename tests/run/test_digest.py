"""The digest of deciding code: what must change it, what must not, and what it refuses to follow."""

import ast
import functools
import importlib.util
import linecache
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import model
from lab.compiling import Source
from lab.files import ROOT
from lab.ladders.rungs import find_rungs
from lab.run.code import recipe_digest
from lab.run.digest import code_digest
from lab.run.source import Untraceable
from lab.training import optimizers
from lab.training.loop import begin, evaluate, run_epoch

GEAR = """
class Base:
    ratio = 3

class Wheel(Base):
    def turn(self, angle):
        return angle * self.ratio * TEETH
TEETH = 12
"""
ENGINE = '''
"""An engine."""
import functools, math, re
from dataclasses import dataclass
import gear
from gear import Wheel
from lab.rules import check
RATE, SIZES, NAMES, STEPS = 0.5, (1, 2), {"fast": 9}, [4, 5]
WORD = re.compile("[a-z]+")
LIFT = lambda height: height + 0.25
HALF = functools.partial(max, 0.125)

def run(time, *, load: float = 1.0):
    """Run it."""
    check("engine:", {"time": time}, RULES)
    if load < 0:
        raise ValueError(f"load {load} is below zero")
    return _push(time) * RATE  # power

def _push(time):
    from gear import Base as Local
    total = Wheel().turn(time) + SIZES[0] + NAMES["fast"] + 7 + STEPS[1] + len(WORD.pattern)
    return total + LIFT(2) + HALF(1) + remembered() + outer(2)(3) + Belt().length + gear.TEETH + Local.ratio

@functools.cache
def remembered():
    return 31

def outer(by):
    def inner(value):
        return value ** by
    return inner

CUBE = outer(3)

@dataclass
class Belt:
    length: float = 1.5
    def double(self):
        return CUBE(self.length)

RULES = {"most": 99}

def idle():
    return UNUSED
UNUSED = 100
'''


def load(folder, name, source, monkeypatch):
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine_with(tmp_path_factory, monkeypatch):
    """The engine after replacing a piece of the two modules above."""

    def engine_with(old="", new=""):
        assert (GEAR + ENGINE).count(old) == 1 or not old
        folder = tmp_path_factory.mktemp("version").resolve()
        load(folder, "gear", GEAR.replace(old, new) if old else GEAR, monkeypatch)
        return load(folder, "engine", ENGINE.replace(old, new) if old else ENGINE, monkeypatch)

    return engine_with


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("An engine.", "The engine."),
        ("Run it.", "Run it slowly."),
        ('    """Run it."""\n', ""),
        ("  # power", ""),
        ("# power", "# force"),
        ("load: float", "load"),
        ("time, *, load", "time: int, *, load"),
        ("1.0):", "1.0) -> float:"),
        ("is below zero", "is negative"),
        ("return angle * self.ratio * TEETH", "return (angle  *  self.ratio  *  TEETH)"),
        ("return UNUSED", "return UNUSED + 1"),
        ('    check("engine:", {"time": time}, RULES)\n', ""),
        ('"most": 99', '"most": 98'),
        ("UNUSED = 100", "UNUSED = 101"),
    ],
)
def test_what_decides_nothing_leaves_it(engine_with, old, new):
    assert code_digest(engine_with(old, new).run) == code_digest(engine_with().run)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("load < 0", "load < 1"),
        ("float = 1.0", "float = 2.0"),
        (" + 7", " + 8"),
        ("return angle * self", "return angle + self"),
        ("ratio = 3", "ratio = 4"),
        ("TEETH = 12", "TEETH = 13"),
        ("0.5,", "0.6,"),
        ("(1, 2)", "(2, 2)"),
        ('"fast": 9', '"fast": 8'),
        ("(Base)", ""),
        ("[4, 5]", "[4, 6]"),
        ("[a-z]+", "[A-z]+"),
        ("height + 0.25", "height - 0.25"),
        ("max, 0.125", "max, 2.5"),
        ("max, 0.125", "min, 0.125"),
        ("return 31", "return 32"),
        ("value ** by", "value * by"),
        ("outer(3)", "outer(4)"),
        ("length: float = 1.5", "length: float = 2.5"),
        ("gear.TEETH + Local", "gear.TEETH - Local"),
        ("Local.ratio", "len(str(Local))"),
    ],
)
def test_what_decides_a_number_changes_it(engine_with, old, new):
    assert code_digest(engine_with(old, new).run) != code_digest(engine_with().run)


@pytest.mark.parametrize(
    "change",
    [
        lambda engine, gear: gear.Base.__dict__ and setattr(gear.Base, "ratio", 4),
        lambda engine, gear: setattr(gear, "TEETH", 13),
        lambda engine, gear: engine.STEPS.append(1),
        lambda engine, gear: engine.NAMES.update(slow=1),
        lambda engine, gear: setattr(gear.Wheel, "turn", engine.LIFT),
        lambda engine, gear: setattr(engine, "_push", engine.idle),
        lambda engine, gear: setattr(engine.math, "tau", 6) or setattr(engine, "RATE", 0.25),
    ],
)
def test_it_is_of_what_stands_in_memory(engine_with, change):
    engine = engine_with()
    before = code_digest(engine.run)
    assert code_digest(engine.run) == before
    change(engine, sys.modules["gear"])
    assert code_digest(engine.run) != before


def test_a_file_that_was_edited_since_is_not_taken_for_what_runs(engine_with):
    engine = engine_with("return 31", "return 313")
    path, content = Path(engine.__file__), Path(engine.__file__).read_text()
    path.write_text(content.replace("return 313", "return 314"))
    with pytest.raises(Untraceable, match="remembered: .*engine.py has changed since it was read"):
        code_digest(engine.run)
    path.write_text("# a comment in front\n" + content)
    before = code_digest(engine.run)  # what runs is still there, a line further down
    path.write_text("")
    assert code_digest(engine.run) == before  # it was seen already


def run_cell(source, number, scope):
    """What Jupyter does with a cell: its text is kept under a name that is no file's."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), scope)
    return scope


CELL = """
import torch
from torch import nn
from torch.nn import functional as F
from functools import partial
WIDTHS = [4, 6]
ACTIVATION = partial(nn.LeakyReLU, 0.1)
SQUASH = lambda x: torch.tanh(x)
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convolution, self.activation = nn.LazyConv2d(width, 3), ACTIVATION()
    def forward(self, x):
        return SQUASH(F.relu(self.activation(self.convolution(x))))
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(*[Block(width) for width in WIDTHS])
def make():
    class Inner(Net):
        depth = 2
    return Inner
Inner = make()
"""


@pytest.mark.parametrize("name", ["Net", "Inner"])
def test_cells_of_a_notebook_are_followed(name):
    def digest(number, old="", new=""):
        scope = run_cell(CELL.replace(old, new), number, {"__name__": "__main__"})
        return code_digest(scope[name])

    assert digest(1) == digest(2, "import torch\n", "import torch  # a comment\n")
    changes = [("0.1", "0.2"), ("[4, 6]", "[4, 7]"), ("F.relu", "F.gelu"), ("tanh", "sin"), ("LazyConv2d", "Conv2d")]
    changes += [("nn.LeakyReLU", "nn.ELU"), ("from torch.nn import functional as F", "import math as F")]
    changes += [("depth = 2", "depth = 3")] if name == "Inner" else []
    digests = [digest(number, *change) for number, change in enumerate(changes, start=3)]
    assert len({digest(1), *digests}) == len(changes) + 1


def test_decorators_methods_and_descriptors_count():
    def digest(old="", new=""):
        source = """
import functools, torch
from torch import nn
def twice(function):
    @functools.wraps(function)
    def call(*arguments):
        return function(*arguments) * FACTOR
    return call
FACTOR = 2
class Net(nn.Module):
    @twice
    def forward(self, x):
        return x + self.shift + self.scale(1) + self.slope + self.cached
    @property
    def shift(self):
        return 11
    @staticmethod
    def scale(x):
        return 12
    @classmethod
    def make(cls):
        return 13
    @functools.cached_property
    def cached(self):
        return 14
    slope = torch.arange(15)
"""
        scope = run_cell(source.replace(old, new), hash((old, new)), {"__name__": "__main__"})
        return code_digest(scope["Net"])

    changes = [(f" {number}", " 99") for number in (11, 12, 13, 14)] + [("FACTOR = 2", "FACTOR = 3"), ("(15)", "(16)")]
    assert len({digest(), *(digest(*change) for change in changes)}) == len(changes) + 1


def test_a_cell_is_compiled_statement_by_statement():
    """As IPython does it; Python makes other code of `torch.tanh(x)` where it sees that torch is a module."""
    source = "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x): return torch.tanh(x)"
    name = "<a cell>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope = {"__name__": "__main__"}
    for statement in ast.parse(source).body:
        exec(compile(ast.Module([statement], []), name, "exec"), scope)
    whole = run_cell(source, "as a whole", {"__name__": "__main__"})
    assert code_digest(scope["Net"]) == code_digest(whole["Net"])


def test_what_looks_alike_is_told_apart(monkeypatch):
    def digest(source, name="act", number=0):
        return code_digest(run_cell(source, f"alike {number} {source}", {"__name__": "__main__"})[name])

    lambdas = "w, v = (lambda: 5), (lambda: 9)\n"
    assert digest(lambdas + "act = w") != digest(lambdas + "act = v")
    tuples = "from collections import namedtuple\nC = namedtuple('C', 'warm cold', defaults=[1])\n"
    values = {digest(f"{tuples}c = C({warm})\ndef act(): return c.warm") for warm in (5, 9)}
    assert len(values) == 2
    checks = {digest(f"def check(x): x.add_({by})\ndef act(x):\n    check(x)\n    return x") for by in (1, 2)}
    assert len(checks) == 2
    single = "import functools\n@functools.singledispatch\ndef act(x): return 1\n"
    assert digest(single) != digest(single + "@act.register\ndef _(x: int): return 2")
    tensors = "import torch\nD = torch.ones(2)\nD.weight = {}\ndef act(): return D.weight"
    assert digest(tensors.format(1)) != digest(tensors.format(2))
    patched = "from torch import nn\ndef act(): return nn.ReLU6()"
    before = digest(patched)
    monkeypatch.setattr(nn.ReLU6, "forward", lambda self, x: x)
    assert digest(patched) == before  # a module's attribute counts by name
    assert digest("from torch.nn import ReLU6 as act") != before


@pytest.mark.parametrize(
    "value",
    [
        "torch.eye(3).to_sparse()",
        "torch.ones(3, dtype=torch.cfloat).conj()",
        "torch.ones(3).bfloat16()",
        "torch.ones(())",
    ],
)
def test_tensors_of_all_kinds_count(value):
    scope = run_cell(f"import torch\nV = {value}\ndef act(): return V", f"tensor {value}", {"__name__": "__main__"})
    before = code_digest(scope["act"])
    scope["V"] = scope["V"] * 2
    assert code_digest(scope["act"]) != before


def made_from_text():
    scope = {"nn": nn, "__name__": "__main__"}
    exec("class Net(nn.Module):\n    def forward(self, x):\n        return x", scope)
    return scope["Net"]


def uses(value):
    @dataclass
    class Net:
        held = value

    return Net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (made_from_text, "Net.forward: there is no source, it was made from <string>"),
        (lambda: uses(iter([1, 2]).__class__ and (n for n in (1, 2))), "generator"),
        (lambda: uses(open(__file__)), "TextIOWrapper"),  # noqa: SIM115
        (lambda: uses(model), "module model is passed on whole"),
        (lambda: lambda code: eval(code), "uses eval"),
        (lambda: lambda name: importlib.import_module(name), "uses import_module"),
        (lambda: lambda name: getattr(model, name), "module model is passed on whole"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(make, words):
    with pytest.raises(Untraceable, match=words):
        code_digest(make())


def test_networks_are_told_apart():
    digests = {code_digest(begin, run_epoch, evaluate, net) for net in (model.TwoLayerHead, model.PooledHead)}
    assert len(digests) == 2
    assert code_digest(model.PooledHead, evaluate, run_epoch, begin) in digests  # whatever the order


def test_using_what_it_describes_leaves_it():
    recipe = next(rung.recipe for rung in find_rungs() if rung.recipe.optimizer == "Muon")
    before = recipe_digest(recipe)
    trainee = begin(recipe, 0, torch.device("cpu"), 128)
    trainee.optimizer.step()
    functools.reduce(lambda state, _: state, [recipe.schedule.__reduce_ex__(2)])
    assert recipe_digest(recipe) == before


# ------------------------------------------------------------------------------------------- places


def load_module(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


USER = "from {room} import turn\n\ndef act(x):\n    from {room} import turn as again\n    return turn(x) + again(x)\n"


def test_what_moves_as_it_is_stays_the_same(tmp_path, monkeypatch):
    """From one module into another, whether it is imported above or within."""
    digests = []
    for number, body in enumerate(("return 2 * x", "return 2 * x", "return 3 * x")):
        room, user = f"room{number}", f"user{number}"
        for name in (room, user):
            monkeypatch.setitem(sys.modules, name, None)
        load_module(tmp_path, room, f"def turn(x):\n    {body}\n")
        digests.append(code_digest(load_module(tmp_path, user, USER.format(room=room)).act))
    assert digests[0] == digests[1] != digests[2]


def test_two_things_of_one_name_are_refused(tmp_path, monkeypatch):
    for name in ("red_room", "blue_room"):
        monkeypatch.setitem(sys.modules, name, None)
    red, blue = (load_module(tmp_path, name, "def turn(x):\n    return x\n") for name in ("red_room", "blue_room"))
    with pytest.raises(Untraceable, match="red_room and blue_room both define turn; rename one of them"):
        code_digest(red.turn, blue.turn)


def test_lambdas_of_two_files_are_told_apart(tmp_path, monkeypatch):
    def digest(*values):
        for name in ("red_room", "blue_room"):
            monkeypatch.setitem(sys.modules, name, None)
        names = zip(("red_room", "blue_room"), values, strict=True)
        return code_digest(*(load_module(tmp_path, name, f"act = lambda: {value}\n").act for name, value in names))

    assert len({digest(1, 2), digest(2, 1), digest(1, 1)}) == 3


def test_constants_count_for_the_function_that_uses_them(tmp_path, monkeypatch):
    """Two functions may each have a constant of one name."""

    def digest(*values):
        rooms = []
        for letter, value in zip("ab", values, strict=True):
            monkeypatch.setitem(sys.modules, f"{letter}_room", None)
            text = f"RATE = {value}\n\ndef act_{letter}():\n    return RATE\n"
            rooms.append(getattr(load_module(tmp_path, f"{letter}_room", text), f"act_{letter}"))
        return code_digest(*rooms)

    assert len({digest(1, 2), digest(2, 1), digest(1, 1), digest(2, 2)}) == 4


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("int add(int a, int b) {\n  return a + b;  // both\n}\n", True),
        ("int add(int a,\n        int b)\n{ return a+b; }", True),
        ("/* a sum */ int add(int a, int b) { return a + /* and */ b; }", True),
        ("int add(int a, int b) { return a - b; }", False),
        ("int add(int a, int c) { return a + b; }", False),
    ],
)
def test_comments_and_layout_of_cplusplus_decide_nothing(text, same):
    first = Source("int add(int a, int b) { return a + b; }\n")
    assert (code_digest(first) == code_digest(Source(text))) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('s = "a // b";', 's = "a // c";'),
        ("x = a - -b;", "x = a--b;"),
        ("#define A 1\nint b;", "#define A 1 int b;"),
        ("x = a / b;", "x = a; // b;"),
        ("char c = '\"'; // x", "char c = '\"'; int x;"),
        ("long double x;", "longdouble x;"),
    ],
)
def test_what_looks_like_layout_or_a_comment_and_is_none_counts(one, other):
    assert code_digest(Source(one)) != code_digest(Source(other))


def test_a_directive_may_be_laid_out_in_several_lines():
    assert code_digest(Source("#define ADD(a) \\\n  (a + 1)\n")) == code_digest(
        Source("#define ADD(a) (a + 1)  // x\n")
    )


def test_another_optimiser_makes_no_other_stale(monkeypatch):
    recipe = find_rungs(["a03"])[0].recipe
    before = recipe_digest(recipe)
    monkeypatch.setitem(optimizers.OPTIMIZERS, "Lion", optimizers.Optimizer(lambda recipe, network: None, ()))
    assert recipe_digest(recipe) == before
    changed = optimizers.Optimizer(lambda recipe, network: None, ("momentum", "nesterov"))
    monkeypatch.setitem(optimizers.OPTIMIZERS, "SGD", changed)
    assert recipe_digest(recipe) != before


def test_what_was_imported_before_makes_nothing_stale():
    """ctypes keeps a pointer type under the module that made it first; no such thing may count."""
    code = "from lab.ladders.rungs import find_rung; from lab.run.code import recipe_digest as digest; "
    code += "print(digest(find_rung('a08').recipe))"
    prints = [
        subprocess.run([sys.executable, "-c", before + code], cwd=ROOT, capture_output=True, encoding="utf-8").stdout
        for before in ("", "import ctypes.wintypes, ctypes.util, torchvision.transforms; ")
    ]
    assert len(prints[0].strip()) == 64
    assert prints[0] == prints[1]
