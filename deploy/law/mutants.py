#!/usr/bin/env python3
"""Breaks each rule of exactness on purpose and says whether the tests notice.

Works on a copy of the tree with a target folder of its own, so that neither
the checkout nor its compiled packages are touched: cargo takes packages at the
same place within a workspace for the same, and would reuse a mutant's. The
first run therefore compiles all dependencies once more.
usage: mutants.py [NAME PART ...]   (all mutants when none is named)
"""
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("CACHE", pathlib.Path.home() / ".cache/sanso"))
COPY = CACHE / "mutants/tree"
# The whole workspace is selected so that dependencies are those of the other targets.
SELECT = ["--workspace"]


def copy_tree():
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT, COPY, ignore=shutil.ignore_patterns(".git", "bin", "target", "sanso-data"))


def apply(edits, back=False):
    for path, find, replace in edits:
        file = COPY / path
        text = (ROOT / path).read_text()
        if not back:
            if find not in text:
                sys.exit(f"{path} no longer holds: {find}")
            text = text.replace(find, replace)
        file.write_text(text)


def fails(tests):
    """Whether the tests fail; a tree that does not compile is an error, not a kill."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(CACHE / "mutants/target"), SANSO_LAW_SEEDS=os.environ.get("SANSO_LAW_SEEDS", "600"))
    build = ["cargo", "test", "--release", "--locked", "--no-run", *SELECT, *tests]
    built = subprocess.run(build, cwd=COPY, env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"does not compile:\n{built.stderr}")
    run = ["cargo", "test", "--release", "--locked", *SELECT, *tests]
    return subprocess.run(run, cwd=COPY, env=environment, capture_output=True, text=True).returncode != 0


def main():
    mutants = tomllib.loads((pathlib.Path(__file__).parent / "mutants.toml").read_text())["mutant"]
    wanted = [m for m in mutants if not sys.argv[1:] or any(part in m["name"] for part in sys.argv[1:])]
    copy_tree()
    survivors = 0
    for mutant in wanted:
        start = time.monotonic()
        apply(mutant["edits"])
        killed = fails(mutant["tests"])
        apply(mutant["edits"], back=True)
        harmless = mutant.get("survives")
        verdict = "killed" if killed else ("survives, as it should" if harmless else "SURVIVES")
        survivors += not killed and not harmless
        print(f"{verdict:22} {mutant['name']}  ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(wanted) - survivors} passed, {survivors} failed")
    sys.exit(1 if survivors else 0)


main()
