"""The command line: `python -m lab COMMAND --help`."""

import argparse
import io
import json
import os
import sys
import warnings
from pathlib import Path

from lab.ladders.rungs import find_notebooks, find_rungs
from lab.training.data import SOURCES


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    jobs = {"type": at_least(1), "default": os.cpu_count()}
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute notebooks headlessly; results go to --run-dir")
    run.add_argument("rungs", nargs="*", help="ids such as a05 a06; all by default")
    run.add_argument("--dataset", choices=SOURCES, default="auto", help="auto: mnist if it is here, else the sample")
    run.add_argument("--seeds", type=at_least(1), help="execute every rung with seeds 0 to SEEDS - 1")
    run.add_argument("--jobs", **jobs, help="notebooks side by side, one thread each")
    run.set_defaults(command=run_command)

    train = commands.add_parser("train", help="train one recipe without its notebook; the record goes to --run-dir")
    train.add_argument("name", help="of its results: a05, an ablation a05_dropout, an exercise a01_try")
    train.set_defaults(command=train_command)
    for command in run, train:
        command.add_argument("--run-dir", default="runs", type=os.path.expanduser)
        command.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")

    steps = commands.add_parser("steps", help="one object per rung")
    steps.add_argument("--json", action="store_true", help="as JSON")
    steps.set_defaults(command=steps_command)

    plan = commands.add_parser("plan", help="runs that results/ lacks, as JSON for workflow/Snakefile")
    plan.add_argument("rungs", nargs="*")
    plan.add_argument("--seeds", type=at_least(0), default=5)
    plan.add_argument("--seeds-of-large", type=at_least(0), default=1, help="of rungs from 50,000 parameters on")
    plan.add_argument("--seeds-of-ablations", type=at_least(0), help="and of exercises; as many as their rung")
    plan.set_defaults(command=plan_command)

    left = commands.add_parser("left", help="how far the batch of workflow/Snakefile in a folder has come")
    left.add_argument("folder", type=Path)
    left.add_argument("--jobs", **jobs, help="runs side by side")
    left.set_defaults(command=left_command)

    results = commands.add_parser("results", help="merge run records into results/")
    results.add_argument("rungs", nargs="*")
    results.add_argument("--run-dir", default="runs", type=os.path.expanduser)
    results.set_defaults(command=results_command)

    index = commands.add_parser("index", help="write index.html of all that lies in a folder of runs")
    index.add_argument("--run-dir", default="runs", type=os.path.expanduser)
    index.set_defaults(command=index_command)

    weights = commands.add_parser("weights", help="keep the trained weights of seed 0 in results/weights/")
    weights.add_argument("rungs", nargs="+")
    weights.set_defaults(command=weights_command)

    export = commands.add_parser("export", help="write trained networks for use without this project")
    export.add_argument("names", nargs="+", metavar="name", help="of rungs whose weights are kept: e02")
    for kind, what in {"onnx": "for onnxruntime and others", "torchscript": "for torch without this project"}.items():
        export.add_argument(
            f"--{kind}", dest="formats", action="append_const", const=kind, help=f"{what}; both may be given"
        )
    export.add_argument("--folder", default=".", type=os.path.expanduser, help="where the files go; default: here")
    export.set_defaults(command=export_command)

    carry = commands.add_parser("carry", help="let results of earlier code stand, if the present code gives their bits")
    carry.add_argument("commit", help="of the code that the results were made with")
    carry.add_argument("rungs", nargs="*")
    carry.set_defaults(command=carry_command)

    render = commands.add_parser("render", help="rewrite all generated blocks of notebooks and README")
    render.set_defaults(command=render_command)

    publish = commands.add_parser("publish", help="execute notebooks as published and keep their outputs in notebooks/")
    publish.add_argument("rungs", nargs="*")
    publish.set_defaults(command=publish_command)

    site = commands.add_parser("site", help="make a site of all pages, from the notebooks as they are; nothing is run")
    site.add_argument("--folder", default="site", type=os.path.expanduser)
    site.set_defaults(command=site_command)

    search = commands.add_parser(
        "search", help="try networks on held-out training images; candidates, JSON lines, on stdin"
    )
    search.add_argument("topic", help="names runs/search/<topic>.jsonl; what results/search/ has is not tried again")
    search.add_argument("--publish", action="store_true", help="write to results/search/, among the published trials")
    search.add_argument("--seeds", type=at_least(1), default=1, help="of every candidate")
    search.add_argument(
        "--blocks",
        type=at_least(1),
        default=1,
        help="of 10,000 images, held out by one seed after the other; 1: the last",
    )
    search.add_argument("--jobs", **jobs, help="runs side by side, one thread each")
    search.set_defaults(command=search_command)

    screen = commands.add_parser(
        "screen", help="candidates that try many settings at once: JSON on stdin, a list of two values for what varies"
    )
    screen.set_defaults(command=screen_command)

    bench = commands.add_parser("bench", help="measure images per second against the originals' loop and other peers")
    bench.add_argument(
        "--peers", metavar="PYTHON", help="of an environment with lab/bench/requirements.txt: JAX competes"
    )
    bench.add_argument("--keep", action="store_true", help="write to results/bench.json, from where README shows it")
    bench.add_argument(
        "--runs", nargs="+", metavar="NAME", help="whole runs of these instead, into results/seconds.json"
    )
    bench.set_defaults(command=bench_command)

    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what has finished is kept, and the same command goes on from there")


def at_least(least):
    """The argparse type of a whole number."""

    def read(text):
        number = int(text) if text.isdecimal() else None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return number

    return read


def run_command(options):
    from lab.batch.command import run

    return run(options)


def train_command(options):
    from lab.batch.command import train

    train(options)


def steps_command(options):
    from lab.ladders.steps import describe_rungs

    rungs = describe_rungs()
    if options.json:
        print(json.dumps(rungs, indent=1))
        return
    for rung in rungs:
        size = f"{rung['parameters']:>9,} parameters, receptive field {rung['receptive_field']}"
        print(f"{size}  {rung['title']}")


def plan_command(options):
    from lab.ladders.plan import plan

    seeds = options.seeds, options.seeds_of_large, options.seeds_of_ablations
    print(json.dumps(plan(find_rungs(options.rungs), *seeds), indent=1))


def left_command(options):
    from lab.batch.time_left import time_left_in

    print(time_left_in(options.folder, options.jobs))


def results_command(options):
    from lab.run.code import recipe_digest
    from lab.run.results import RefusedRecord, merge_records
    from lab.run.schema import DamagedFile
    from lab.run.source import Untraceable

    refused = 0
    for rung in find_rungs(options.rungs):
        for name, recipe in rung.recipes.items():
            try:
                records, left_out = merge_records(name, recipe.as_dict(), recipe_digest(recipe), options.run_dir)
            except (RefusedRecord, DamagedFile, Untraceable) as error:  # the others are still merged
                print(f"{name}  as it was: {error}")
                refused += 1
                continue
            print(f"{name}  seeds {', '.join(str(record.seed) for record in records) or 'none'}")
            for seed, reason in left_out.items():
                print(f"{name}  seed {seed} is left out: {reason}")
    return int(refused > 0)


def index_command(options):
    from lab.batch.index import write_index

    print(write_index(options.run_dir))


def weights_command(options):
    from lab.ladders.weights import SEED, save_weights
    from lab.run.fit import fit
    from lab.training.data import load_digits

    digits = load_digits("mnist")
    for rung in find_rungs(options.rungs):  # a finished run is only read back
        run = fit(rung.recipe, digits, rung=rung.id, seed=SEED, device="cpu", threads=1)
        print(f"{rung.id}  {save_weights(run)}")


def export_command(options):
    from lab.ladders.export import export

    if not options.formats:
        raise ValueError("export: say into which format, --onnx or --torchscript")
    for name in options.names:
        for path in export(name, options.formats, options.folder):
            print(f"{name}  {path}")


def carry_command(options):
    from lab.ladders.carry import carry

    names = [name for rung in find_rungs(options.rungs) for name in rung.recipes]
    differences = 0
    for name, difference in carry(names, options.commit):
        print(f"{name}  {difference or 'same bits'}", flush=True)
        differences += difference is not None
    return int(differences > 0)


def render_command(options):
    from lab.pages.render import render_all
    from lab.run.results import load_records

    for path in render_all():
        print(f"rewritten: {path}")
    missing = [name for rung in find_rungs() for name in rung.recipes if not load_records(name)]
    if missing:
        print(f"no results yet, so no figures either: {', '.join(missing)}")


def publish_command(options):
    from lab.batch.executions import publish

    for notebook in find_notebooks(options.rungs):
        publish(notebook)
        print(f"{notebook.id}  published", flush=True)


def site_command(options):
    from lab.site.build import build_site

    count = build_site(options.folder)
    print(f"{count} pages: {Path(options.folder) / 'index.html'}")


def search_command(options):
    from lab.search.front import format_candidates
    from lab.search.trials import OWN, SEARCH, find_trials, name_of, read_json_lines, search, trials_that_count

    folder = SEARCH if options.publish else OWN
    candidates = list(read_json_lines("stdin", sys.stdin, "candidate"))
    names = {name_of(settings) for settings in candidates}

    def is_asked_for(trial):
        return trial.seed < options.seeds and trial.block == trial.seed % options.blocks

    for trial in trials_that_count(options.topic, folder):
        if trial.name in names and is_asked_for(trial):
            print(f"already there  {_describe(trial)}", flush=True)
    knobs = {"seeds": options.seeds, "blocks": options.blocks, "jobs": options.jobs, "folder": folder}
    for trial in search(options.topic, candidates, **knobs):
        print(_describe(trial), flush=True)
    trials = [*filter(is_asked_for, find_trials(options.topic, folder))]
    print(f"\n{format_candidates(candidates, trials)}")


def _describe(trial):
    from lab.numbers import percent

    loss = f", {trial.loss[-1]:.4f} nats" if trial.loss else ""
    outcome = f"{percent(trial.last5)}{loss}" if trial.correct else "diverged"
    return f"{outcome}  {trial.parameters:,}  {trial.seconds:.0f} s  seed {trial.seed}  {trial.name}"


def screen_command(options):
    from lab.run.schema import parse_json
    from lab.search.screening import screen

    for candidate in screen(parse_json(sys.stdin.read(), "candidate")):
        print(json.dumps(candidate))


def bench_command(options):
    from lab.bench.table import bench
    from lab.bench.whole_runs import bench_runs

    if options.runs:
        bench_runs(options.runs, keep=options.keep)
    else:
        bench(options.peers, keep=options.keep)


def speak_utf8():
    """Read and write text as UTF-8, whatever the locale; bytes in file names that are not UTF-8 stay as they are.

    A warning is one line: its place in the code does not help the user of a command.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    speak_utf8()
    sys.exit(main())
