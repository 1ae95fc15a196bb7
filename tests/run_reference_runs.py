#!/usr/bin/env python3
"""Makes the reference's dense and rerank runs anew, with the real models, and compares every measure.

    run_reference_runs.py --bin build/release/terse [COLLECTION ...]

The data are in TERSE_SHARED, by default the folder `shared` beside the source tree; without COLLECTION (cranfield,
xquad/en, ...) all are run, which takes some minutes of all cores. One line a run: each mean beside the reference's, and
how many figures of single queries differ, which documents that tie but for rounding may cause. Exit status 1 if a mean
differs in the fourth decimal, 77 if there are no data.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from retrieval_data import PREFIXES, prefixed, whole_model

METRICS = {"ndcg@10": "ndcg@10", "map": "map", "mrr@10": "mrr@10", "recip_rank": "mrr", "recall@100": "recall@100",
           "ndcg@5": "ndcg@5", "p@10": "p@10"}
DECIMALS = 4
MAX_LENGTH = 256


class Runs:
    def __init__(self, binary, shared, work):
        self.binary, self.shared, self.work = binary, shared, pathlib.Path(work)
        self.figures = self.failed = 0

    def terse(self, *args):
        r = subprocess.run([self.binary, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True)
        if r.returncode != 0:
            sys.exit(f"{' '.join(map(str, args))}\n{r.stderr.decode()}")
        return r.stdout.decode()

    def make(self, folder, name, out):
        """One of the reference's runs by its name: dense-MODEL, dense-english-queries-MODEL, rerankK-MODEL."""
        kind, _, model_name = name.partition("-")
        english = model_name.startswith("english-queries-")
        model_name = model_name.removeprefix("english-queries-")
        model = whole_model(self.shared / "real" / model_name, self.work)
        before_query, before_passage = PREFIXES.get(model_name, ("", ""))
        queries = folder.parent / "en" if english else folder
        texts = ["--queries", prefixed(queries / "queries.jsonl", before_query, self.work / "queries.jsonl"),
                 "--corpus", prefixed(folder / "corpus.jsonl", before_passage, self.work / "corpus.jsonl")]
        depth = self.depth(folder, name)
        if kind == "dense":
            self.terse("retrieve", "--model", model, "--method", "dense", "--dtype", "f32", "--max-length", MAX_LENGTH,
                       "--top-k", depth, *texts, "-o", out)
            return
        cross = "cross-encoder" in model_name
        length = ["--max-length", 128, "--truncation", "longest-first"] if cross else ["--max-length", MAX_LENGTH]
        self.terse("rerank", "--model", model, "--dtype", "f32", "--run", folder / "runs" / "bm25.trec", "--top-k", depth,
                   *length, *texts, "-o", out)

    @staticmethod
    def depth(folder, name):
        """Documents of a query in the reference's run."""
        queries = [line.split()[0] for line in (folder / "runs" / f"{name}.trec").read_text().splitlines()]
        return max(queries.count(query) for query in set(queries[:1000]))

    def compare(self, folder, name, want):
        out = self.work / "out.trec"
        self.make(folder, name, out)
        rows = {str(row["qid"]): row for row in map(json.loads, self.terse(
            "eval", "--qrels", folder / "qrels.trec", "--run", out, "--metrics", ",".join(METRICS.values()), "--per-query",
            "--format", "jsonl").splitlines())}
        wrong = [m for m in METRICS if round(rows["all"][METRICS[m]], DECIMALS) != round(want["mean"][m], DECIMALS)]
        other = sum(abs(rows[query][METRICS[m]] - values[m]) > 1e-6
                    for query, values in want["per_query"].items() for m in METRICS)
        figures = len(METRICS) * (len(want["per_query"]) + 1)
        self.figures += figures
        self.failed += bool(wrong)
        shown = "  ".join(f"{m} {rows['all'][METRICS[m]]:.4f}/{want['mean'][m]:.4f}" for m in METRICS)
        print(f"{'FALLS SHORT' if wrong else 'ok':12}{folder.relative_to(self.shared / 'collections')} {name}: {shown}; "
              f"{other} of {figures} figures differ", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="the command to check")
    parser.add_argument("collections", nargs="*", metavar="COLLECTION")
    arguments = parser.parse_args()
    beside = pathlib.Path(__file__).resolve().parents[2] / "shared"
    shared = pathlib.Path(os.environ.get("TERSE_SHARED") or beside)
    if not shared.is_dir():
        print(f"skipped: no reference data at {shared}", file=sys.stderr)
        return 77
    root = shared / "collections"
    folders = [root / name for name in arguments.collections] or sorted(p.parent for p in root.rglob("metrics.json"))
    with tempfile.TemporaryDirectory(prefix="terse-runs-") as work:
        runs = Runs(arguments.bin, shared, work)
        for folder in folders:
            for name, want in json.loads((folder / "metrics.json").read_text())["runs"].items():
                if name.startswith(("dense", "rerank")):
                    runs.compare(folder, name, want)
    print(f"{runs.figures} figures, {runs.failed} runs fall short")
    return 1 if runs.failed else 0


if __name__ == "__main__":
    sys.exit(main())
