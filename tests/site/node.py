"""Node.js for tests: the one that Playwright brings along."""

import subprocess
from pathlib import Path

import playwright

NODE = Path(playwright.__file__).parent / "driver" / "node"


def run_node(script, folder):
    """Run a script in a folder; return what it prints."""
    done = subprocess.run([NODE, "-e", script], cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "node", done.stdout, done.stderr)
    return done.stdout
