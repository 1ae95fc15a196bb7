#!/usr/bin/env python3
"""Retrieval by the dense, sparse and multi-vector outputs of bge-m3: `terse retrieve` against brute force over the vectors
that the reference computed for the same texts. Skipped without the reference data.

    test_m3_retrieve_command.py --bin build/terse [unittest arguments]
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from tiny_models import read_safetensors

BINARY = ""
TIMEOUT_S = 300
ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("TERSE_SHARED", ROOT / ".." / "shared"))
MODEL = SHARED / "models" / "tiny-bge-m3"
# What the reference's own f32 differs from its f64 by at most in scores of pairs, 8.8e-6 (stats.json), times four.
TOLERANCE = 4e-5
DEFAULT = {"max_length": 256}


def rows_of(flat, shape):
    return [flat[i * shape[1]:(i + 1) * shape[1]] for i in range(shape[0])]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def scores(query, passage, weights=(1, 1, 1)):
    """The five scores of a pair, from the reference's vectors by the definitions of its compute_score."""
    dense = dot(query["dense"], passage["dense"])
    sparse = sum(weight * passage["sparse"].get(token, 0) for token, weight in query["sparse"].items())
    colbert = sum(max(dot(a, b) for b in passage["colbert"]) for a in query["colbert"]) / len(query["colbert"])
    w = weights
    return {"dense": dense, "sparse": sparse, "colbert": colbert,
            "sparse+dense": (w[1] * sparse + w[0] * dense) / (w[0] + w[1]),
            "colbert+sparse+dense": (w[2] * colbert + w[1] * sparse + w[0] * dense) / sum(w)}


@unittest.skipUnless(MODEL.is_dir(), f"skipped: no reference data at {SHARED}")
class M3RetrieveTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        goldens = MODEL / "goldens"
        tensors = read_safetensors(goldens / "embeddings.safetensors")
        dense = rows_of(tensors["dense_f64"][1], tensors["dense_f64"][0])
        cls.queries, cls.passages = {}, {}
        for line, row in zip((goldens / "cases.jsonl").read_text(encoding="utf-8").splitlines(), dense):
            case = json.loads(line)
            shape, values = tensors["colbert_f64/" + case["id"]]
            case.update(dense=row, sparse=case["sparse_f64"], colbert=rows_of(values, shape))
            # A corpus is read without blanks at the ends of its texts, and without texts of nothing else.
            if not case["text"] or case["text"] != case["text"].strip():
                continue
            if case["settings"] == {**DEFAULT, "role": "query"}:
                cls.queries[case["id"]] = case
            elif case["settings"] == {**DEFAULT, "role": "passage"}:
                cls.passages[case["id"]] = case
        cls.folder = tempfile.TemporaryDirectory(prefix="terse-m3-")
        for name, cases in (("queries", cls.queries), ("corpus", cls.passages)):
            path = pathlib.Path(cls.folder.name) / f"{name}.jsonl"
            path.write_text("".join(json.dumps({"_id": case["id"], "text": case["text"]}) + "\n" for case in cases.values()))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def retrieve(self, method, *more):
        folder = pathlib.Path(self.folder.name)
        r = subprocess.run([BINARY, "retrieve", "--model", MODEL, "--method", method, "--dtype", "f32", "--corpus",
                            folder / "corpus.jsonl", "--queries", folder / "queries.jsonl", "--max-length", "256", *more],
                           capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(r.returncode, 0, r.stderr)
        ranking = {}
        for line in r.stdout.decode().splitlines():
            query, _, document, _, score, _ = line.split()
            ranking.setdefault(query, []).append((document, float(score)))
        return ranking

    def check(self, method, top_k, weights=(1, 1, 1), *more):
        """Every score is the brute-force one, and whoever was left out scores no better than the last."""
        ranking = self.retrieve(method, "--top-k", str(top_k), *more)
        self.assertEqual(set(ranking), set(self.queries))
        compared = 0
        for query, found in ranking.items():
            want = {i: scores(self.queries[query], passage, weights)[method] for i, passage in self.passages.items()}
            self.assertEqual(len(found), min(top_k, len(want)))
            for document, score in found:
                self.assertAlmostEqual(score, want[document], delta=TOLERANCE, msg=f"{method} {query} {document}")
                compared += 1
            self.assertEqual([score for _, score in found], sorted((score for _, score in found), reverse=True))
            left_out = set(want) - {document for document, _ in found}
            worst = min(score for _, score in found)
            self.assertLessEqual(max((want[i] for i in left_out), default=worst), worst + 2 * TOLERANCE)
        return compared

    def test_every_method(self):
        self.assertGreaterEqual(len(self.queries), 10)
        self.assertGreaterEqual(len(self.passages), 30)
        for method in ("dense", "sparse", "colbert", "sparse+dense", "colbert+sparse+dense"):
            with self.subTest(method=method):
                for top_k in (1, 5, 100):
                    compared = self.check(method, top_k)
                print(f"{method}: {compared} scores", file=sys.stderr)

    def test_weights(self):
        self.check("colbert+sparse+dense", 7, (0.4, 0.2, 0.4), "--weights", "0.4,0.2,0.4")
        self.check("sparse+dense", 7, (1, 0.3, 0), "--weights", "1,0.3,0")


if __name__ == "__main__":
    index = sys.argv.index("--bin")
    BINARY = os.path.abspath(sys.argv[index + 1])
    del sys.argv[index:index + 2]
    unittest.main()
