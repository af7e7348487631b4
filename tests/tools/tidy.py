#!/usr/bin/env python3
"""Runs clang-tidy over our sources, in parallel, within a time limit.

A file that passed is skipped until it, one of our headers or .clang-tidy changes (stamps in --cache). Files that differ
from the last commit, or were changed by it, come first. Files that do not fit into --seconds are left for the next run, and
their number is printed. The exit status is 1 if a file has a finding."""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import subprocess
import sys
import time


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.split()


def own_files(build):
    """The sources of the build, without generated ones, as paths relative to the root."""
    root = pathlib.Path.cwd()
    commands = json.loads((build / "compile_commands.json").read_text())
    paths = (pathlib.Path(entry["file"]) for entry in commands)
    inside = (path.relative_to(root) for path in paths if path.is_relative_to(root))
    return sorted({str(path) for path in inside if path.parts[0] != "build" and path.exists()})


def stamp_of(path, common):
    return hashlib.sha256(common + path.encode() + pathlib.Path(path).read_bytes()).hexdigest()


def common_bytes():
    """The contents on which every file depends: the configuration and all our headers."""
    digest = hashlib.sha256()
    for name in sorted([".clang-tidy", *git("ls-files", "-co", "--exclude-standard", "*.h", "*.inc")]):
        if pathlib.Path(name).exists():
            digest.update(pathlib.Path(name).read_bytes())
    return digest.digest()


def tidy(path, build):
    command = ["clang-tidy", "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option"]
    if path != "common/base/err.c":  # it defines the function that this header redefines
        command.append("--extra-arg-before=-includetests/tools/analyzer.h")
    done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    common = common_bytes()
    changed = set(git("diff", "--name-only", "HEAD") + git("show", "--name-only", "--format=", "HEAD"))
    stamps = {path: stamp_of(path, common) for path in own_files(options.build)}
    todo = [path for path, stamp in stamps.items() if not (options.cache / stamp).exists()]
    head = "".join(git("rev-parse", "HEAD")).encode()
    # The other files come in another order for each commit, so that each gets its turn.
    todo.sort(key=lambda path: (path not in changed, hashlib.sha256(head + path.encode()).digest()))

    def work(path):
        return None if time.monotonic() > deadline else tidy(path, options.build)

    clean = left = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for path, result in zip(todo, pool.map(work, todo)):
            if result is None:
                left += 1
            elif result[0]:
                (options.cache / stamps[path]).touch()
                clean += 1
            else:
                print(result[1])
    bad = len(todo) - clean - left
    print(f"clang-tidy: {clean} files clean, {bad} with findings, {len(stamps) - len(todo)} unchanged, {left} left for the next run")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
