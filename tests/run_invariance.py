#!/usr/bin/env python3
"""Scores pairs in many compositions of batch, order and threads, for every type and instruction set of this machine,
from the folder and from a packed file, and compares the bits of every score with those of the first composition.

    run_invariance.py --bin build/release/terse [--pairs 1000]

The models are the small ones of TERSE_SHARED, by default the folder `shared` beside the source tree. One line a model,
type and instruction set; exit status 1 if a score differs, 77 if there are no data.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

MODELS = ("tiny-xlmr-reranker", "tiny-xlmr-reranker-hd64", "tiny-gemma-reranker", "tiny-minicpm-layerwise",
          "tiny-gemma2-lightweight")
SETS = ("avx2", "avx512", "amx")
# order of the pairs, tokens of a group, threads; the first is what the others are held to
COMPOSITIONS = (("as they come", 0, 2), ("as they come", 1, 1), ("reversed", 0, 1), ("shuffled", 700, 2),
                ("shuffled", 64, 3), ("by length", 5000, 4), ("shuffled", 333, 1), ("as they come", 100000, 2))


def make_pairs(count):
    generator = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    word = lambda: "".join(generator.choice(letters) for _ in range(generator.randint(1, 9)))
    text = lambda most: " ".join(word() for _ in range(generator.randint(0, most)))
    queries = [text(12) for _ in range(count // 20 + 1)]
    return [(generator.choice(queries), text(generator.choice((3, 20, 60)))) for _ in range(count)]


def scores(binary, model, pairs, options, work, refusal_is_none=False):
    lines = pathlib.Path(work) / "pairs.jsonl"
    lines.write_text("".join(json.dumps({"id": i, "query": q, "passage": p}) + "\n" for i, (q, p) in pairs))
    r = subprocess.run([binary, "score", "--model", str(model), *options, str(lines)], capture_output=True, text=True)
    if r.returncode != 0:
        if refusal_is_none and "unsupported" in r.stderr:
            return None
        sys.exit(f"{model} {options}: {r.stderr}")
    results = map(json.loads, r.stdout.splitlines())
    return {row["id"]: row.get("scores", row.get("score")) for row in results}


def arranged(pairs, order):
    numbered = list(enumerate(pairs))
    if order == "reversed":
        numbered.reverse()
    elif order == "shuffled":
        random.Random(2).shuffle(numbered)
    elif order == "by length":
        numbered.sort(key=lambda item: len(item[1][1]))
    return numbered


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--pairs", type=int, default=1000)
    a = parser.parse_args()
    shared = pathlib.Path(os.environ.get("TERSE_SHARED") or pathlib.Path(__file__).parents[2] / "shared") / "models"
    if not shared.is_dir():
        print(f"skipped: no reference data at {shared}")
        sys.exit(77)
    pairs = make_pairs(a.pairs)
    compared = differing = 0
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            for dtype in ("f32", "bf16", "int8"):
                packed = pathlib.Path(work) / "model.terse"
                for isa in SETS:
                    want, seen, wrong = None, 0, 0
                    # Which parts stay bf16 or f32 in int8 is a matter of the instruction set.
                    packed.unlink(missing_ok=True)
                    subprocess.run([a.bin, "pack", "--model", str(shared / name), "--dtype", dtype, "--isa", isa,
                                    "--out", str(packed)], capture_output=True)
                    for model in (shared / name, packed):
                        for order, tokens, threads in COMPOSITIONS:
                            options = ["--dtype", dtype, "--isa", isa, "--threads", str(threads)]
                            options += ["--batch-tokens", str(tokens)] if tokens else []
                            got = scores(a.bin, model, arranged(pairs, order), options, work, want is None)
                            if got is None:
                                break
                            if want is None:
                                want = got
                                continue
                            seen += len(want)
                            wrong += sum(got.get(key) != value for key, value in want.items())
                        if want is None:
                            break
                    print(f"{name} {dtype} {isa}: " + (f"{wrong} of {seen} differ" if want else "not on this machine"),
                          flush=True)
                    compared += seen
                    differing += wrong
    print(f"{compared} scores compared, {differing} differ")
    sys.exit(1 if differing or not compared else 0)


if __name__ == "__main__":
    main()
