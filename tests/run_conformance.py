#!/usr/bin/env python3
"""Runs the reference data's own checks on a built command.

    run_conformance.py --bin build/release/terse [PART ...]

The data are in TERSE_SHARED, by default the folder `shared` beside the source tree; what checks them is
conformance/conformance.py there. Without PART everything is run that this version is held to. A
PART is the name of a check, or check=item,item with some of its items. Prints one line a part and
`N passed, N failed`; exit status 1 if any failed, 77 if there are no data.
"""
import argparse
import importlib.util
import os
import pathlib
import sys

# What this version is held to, see README.md. rerank-runs takes minutes: ask for it by name.
PARTS = ["rerankers", "bf16", "own-heads", "softcap", "embedders", "m3-scores", "real",
         "tokenizers", "hostile", "invariance", "metrics"]
# For `check=item`: the method that checks one item, and the label it is reported under.
ITEMS = {
    "rerankers": ("reranker", "{}"),
    "embedders": ("embedder", "{}"),
    "hostile": ("hostile_kind", "hostile {}"),
    "invariance": ("same_bits", "{}, same bits in any batch"),
}


def load_conformance(shared):
    path = shared / "conformance" / "conformance.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_part(checks, part):
    check, _, items = part.partition("=")
    if not items:
        getattr(checks, check.replace("-", "_"))()
    elif check == "tokenizers":
        checks.tokenizers(items.split(","))
    else:
        method, label = ITEMS[check]
        for item in items.split(","):
            checks.guarded(label.format(item), lambda: getattr(checks, method)(item))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="the command to check")
    parser.add_argument("parts", nargs="*", metavar="PART", default=PARTS)
    arguments = parser.parse_args()
    beside = pathlib.Path(__file__).resolve().parents[2] / "shared"
    shared = pathlib.Path(os.environ.get("TERSE_SHARED") or beside)
    if not shared.is_dir():
        print(f"skipped: no reference data at {shared}", file=sys.stderr)
        return 77
    checks = load_conformance(shared).Conformance(arguments.bin)
    for part in arguments.parts:
        run_part(checks, part)
    print(f"{len(checks.lines) - checks.bad} passed, {checks.bad} failed")
    return 1 if checks.bad else 0


if __name__ == "__main__":
    sys.exit(main())
