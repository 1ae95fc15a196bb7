#!/usr/bin/env python3
"""Holds `terse eval` to every figure of trec_eval's that the reference data have: each run of each collection, each
query, each edge case. Skipped without the reference data.

    test_figures_command.py --bin build/terse [unittest arguments]
"""

import json
import os
import pathlib
import subprocess
import sys
import unittest

BINARY = ""
TIMEOUT_S = 300
ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("TERSE_SHARED", ROOT / ".." / "shared"))
COLLECTIONS = SHARED / "collections"
EDGES = COLLECTIONS / "metric-edge-cases"
# Means are sums in another order; every value is printed with 9 significant digits.
TOLERANCE = 1e-8
# Counts, no measures.
COUNTS = {"num_ret", "num_rel", "num_rel_ret"}
# Cases that trec_eval answers by accident, or that its own reader refuses: refused here.
REFUSED = {"nan-scores": ("nonfinite", "run.trec:1: "), "duplicate-doc-in-run": ("duplicate", "run.trec:3: ")}


def metric_of(name):
    """The name here of one of trec_eval's or of metrics.json's."""
    if name in ("recip_rank", "set_recall"):
        return {"recip_rank": "mrr", "set_recall": "recall"}[name]
    measure, _, cutoff = name.replace("ndcg_cut_", "ndcg_").rpartition("_")
    return f"{measure.lower()}@{cutoff}" if cutoff.isdigit() else name.lower()


def run_eval(qrels, run, *more):
    r = subprocess.run([BINARY, "eval", "--qrels", qrels, "--run", run, "--format", "jsonl", *more], capture_output=True,
                       timeout=TIMEOUT_S)
    return r.returncode, r.stdout.decode(), r.stderr.decode()


@unittest.skipUnless(COLLECTIONS.is_dir(), f"skipped: no reference data at {SHARED}")
class FiguresTest(unittest.TestCase):
    def rows(self, qrels, run, names, *more):
        code, out, err = run_eval(qrels, run, "--metrics", ",".join(map(metric_of, names)), *more)
        self.assertEqual(code, 0, err)
        return {str(row["qid"]): row for row in map(json.loads, out.splitlines())}

    def compare(self, want, row):
        """Every figure of one query or mean; how many."""
        for name, value in want.items():
            self.assertAlmostEqual(row[metric_of(name)], value, delta=TOLERANCE, msg=f"{row['qid']} {name}")
        return len(want)

    def compare_run(self, qrels, run, per_query, mean, mean_over_judged):
        rows = self.rows(qrels, run, list(mean), "--per-query")
        self.assertEqual(set(rows), {*per_query, "all"})
        count = sum(self.compare(values, rows[query]) for query, values in per_query.items())
        count += self.compare(mean, rows["all"])
        return count + self.compare(mean_over_judged, self.rows(qrels, run, list(mean), "--complete")["all"])

    def test_collections(self):
        runs = figures = 0
        for path in sorted(COLLECTIONS.rglob("metrics.json")):
            for name, want in json.loads(path.read_text())["runs"].items():
                with self.subTest(collection=str(path.parent.relative_to(COLLECTIONS)), run=name):
                    figures += self.compare_run(path.parent / "qrels.trec", path.parent / "runs" / f"{name}.trec",
                                                want["per_query"], want["mean"], want["mean_over_judged"])
                    runs += 1
        print(f"{figures} figures of {runs} runs are trec_eval's", file=sys.stderr)
        self.assertGreaterEqual(runs, 29)

    def test_judgements_in_beirs_form(self):
        for path in sorted(COLLECTIONS.rglob("qrels.tsv")):
            run = path.parent / "runs" / "bm25.trec"
            self.assertEqual(run_eval(path, run, "--per-query"), run_eval(path.with_suffix(".trec"), run, "--per-query"))

    def test_edge_cases(self):
        figures = 0
        cases = [case["case"] for case in json.loads((EDGES / "cases.json").read_text())]
        for case in cases:
            with self.subTest(case=case):
                files = EDGES / case / "qrels.trec", EDGES / case / "run.trec"
                if case in REFUSED:
                    code, _, err = run_eval(*files)
                    self.assertEqual(code, 3)
                    for part in REFUSED[case]:
                        self.assertIn(part, err)
                    continue
                want = json.loads((EDGES / case / "expected.json").read_text())
                measures = lambda values: {name: value for name, value in values.items() if name not in COUNTS}
                figures += self.compare_run(*files, {qid: measures(values) for qid, values in want["per_query"].items()},
                                            measures(want["mean_over_evaluated"]),
                                            measures(want["mean_over_all_judged_queries"]))
        print(f"{figures} figures of {len(cases) - len(REFUSED)} edge cases are trec_eval's", file=sys.stderr)
        self.assertGreaterEqual(len(cases), 33)

    def test_malformed_files_name_their_line(self):
        plain = EDGES / "plain"
        for folder, good in (("malformed-runs", None), ("malformed-qrels", plain / "run.trec")):
            for path in sorted((EDGES / folder).iterdir()):
                with self.subTest(file=path.name):
                    files = (path, good) if good else (plain / "qrels.trec", path)
                    code, _, err = run_eval(*files)
                    if code == 0:
                        self.assertIn(path.name, READ_AS_TOLD)
                        continue
                    self.assertNotIn(path.name, READ_AS_TOLD)
                    self.assertEqual(code, 3, err)
                    last = err.splitlines()[-1]
                    self.assertTrue(last.startswith("terse: error: "), err)
                    self.assertRegex(last, f"{path.name}:([0-9]+: | )")


# Files of the malformed ones that are well enough: a byte order mark is skipped, and a TSV file may lack its heading.
READ_AS_TOLD = {"bom.trec", "tsv-no-header.txt"}


if __name__ == "__main__":
    index = sys.argv.index("--bin")
    BINARY = os.path.abspath(sys.argv[index + 1])
    del sys.argv[index:index + 2]
    unittest.main()
