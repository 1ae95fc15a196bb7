#!/usr/bin/env python3
"""Sweeps a small layer-wise model over a slice of a collection, kills and resumes it at random, and
runs a cascade with the bounds it wrote. Skipped without the reference data.

    test_sweep_command.py --bin build/terse [unittest arguments]
"""

import csv
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

from tiny_models import read_safetensors, write_safetensors

BINARY = ""
TIMEOUT_S = 300
ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("TERSE_SHARED", ROOT / ".." / "shared"))
TIMING = {"latency_median_ms", "latency_p95_ms", "flops_run_per_pair", "probe_before_gflops", "probe_after_gflops", "peak_rss_mb"}


def untimed(path):
    """The bytes of a table without its timing columns."""
    lines = pathlib.Path(path).read_text().splitlines()
    heading = lines[0].split(",")
    kept = [i for i, name in enumerate(heading) if name not in TIMING]
    return [[line.split(",")[i] for i in kept] for line in lines]


def read_table(path):
    return list(csv.DictReader(pathlib.Path(path).read_text().splitlines()))


def read_json_lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]


def write_settling_model(folder):
    """The small lightweight model with one head for all exits and blocks that add less and less: scores
    settle on their way through the layers, as those of trained models do."""
    source = SHARED / "models" / "tiny-gemma2-lightweight"
    tensors = {}
    for part in sorted(source.glob("*.safetensors")):
        tensors.update(read_safetensors(part))
    for name, (shape, values) in tensors.items():
        parts = name.split(".")
        if parts[-2] in ("post_attention_layernorm", "post_feedforward_layernorm"):
            share = 0.4 ** int(parts[2])
            tensors[name] = (shape, [(1 + value) * share - 1 for value in values])  # stored less 1
        elif parts[0] == "lm_head":
            tensors[name] = tensors["lm_head.0.linear_head.weight"]
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, folder / name)
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


@unittest.skipUnless(SHARED.is_dir(), f"skipped: no reference data at {SHARED}")
class SweepCommandTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="terse-sweep-"))
        cls.model = write_settling_model(cls.folder / "model")
        cls.whole = cls.folder / "whole.csv"
        code, err = cls.sweep(cls.whole, "--plot", cls.folder / "plot.svg", "--report", cls.folder / "report.html",
                              "--bounds", cls.folder / "bounds.json")
        if code != 0:
            raise AssertionError(err)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def command(cls, output, *more, model=None, grid=True):
        collection = SHARED / "collections" / "xquad" / "en"
        command = [BINARY, "sweep", "--model", model or cls.model, "--corpus", collection / "corpus.jsonl",
                   "--queries", collection / "queries.jsonl", "--qrels", collection / "qrels.tsv",
                   "--run", collection / "runs" / "bm25.trec", "--top-k", 12, "--max-queries", 6,
                   "--latency-queries", 1, "--max-length", 128, "-o", output, *more]
        if grid:
            command += ["--ratios", "1,2,4", "--compress-layers", "2;2,4", "--cutoff-layers", "3,5,8",
                        "--heads", "own"]
        return [str(part) for part in command]

    @classmethod
    def sweep(cls, output, *more, **kwargs):
        r = subprocess.run(cls.command(output, *more, **kwargs), stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=TIMEOUT_S)
        return r.returncode, r.stderr.decode()

    def test_rows(self):
        rows = read_table(self.whole)
        keys = [(row["ratio"], row["compress_layers"], row["cutoff_layer"]) for row in rows]
        self.assertEqual(keys[:4], [("1", "", "3"), ("1", "", "5"), ("1", "", "8"), ("2", "2", "3")])
        self.assertEqual(len(set(keys)), 15)
        full = rows[2]
        self.assertEqual((full["kendall_tau"], full["top10_overlap"]), ("1", "1"))
        for row in rows:
            self.assertLessEqual(float(row["flops_causal_per_pair"]), float(row["flops_dense_per_pair"]))
            self.assertLessEqual(float(row["ndcg@10_low"]), float(row["ndcg@10"]))
            self.assertEqual(float(row["cascade_exact_overlap"]), 1)
            self.assertGreater(float(row["latency_median_ms"]), 0)
        self.assertGreater(float(full["cascade_risk_saved"]), 0)

    def test_manifest_and_scores(self):
        manifest = json.loads((self.folder / "whole.csv.json").read_text())
        self.assertEqual(len(manifest["reproduces"]["model"]["config.json"]), 64)
        self.assertEqual(manifest["command"][1], "sweep")
        dump = self.folder / "whole.csv.scores" / "ratio-2-layers-2-4.csv.gz"
        rows = list(csv.DictReader(gzip.decompress(dump.read_bytes()).decode().splitlines()))
        self.assertEqual(len(rows), 6 * 12 * 3)
        self.assertEqual(rows[0]["compress_layers"], "2;4")
        self.assertLess(int(rows[-1]["tokens_after"]), int(rows[-1]["tokens_in"]))

    def test_pictures(self):
        for suffix in ("", "-latency", "-layers", "-trajectories", "-lengths"):
            tree = xml.etree.ElementTree.parse(self.folder / f"plot{suffix}.svg")
            self.assertTrue(tree.getroot().tag.endswith("svg"))
        report = (self.folder / "report.html").read_text()
        self.assertEqual(report.count("<svg"), 5)
        for word in ("src=", "<link", "@import", "url("):
            self.assertNotIn(word, report)

    def test_kill_and_resume(self):
        """Killed at random, again and again: the same table in the end, no row twice."""
        started = time.monotonic()
        self.assertEqual(self.sweep(self.folder / "timed.csv")[0], 0)
        whole_s = time.monotonic() - started
        output = self.folder / "killed.csv"
        rng, kills = random.Random(7), 0
        while kills < 20:
            process = subprocess.Popen(self.command(output), stderr=subprocess.DEVNULL)
            try:
                process.wait(rng.uniform(0.02, 0.5) * whole_s)
            except subprocess.TimeoutExpired:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                process.wait(TIMEOUT_S)
                kills += 1
            else:  # finished before it could be killed: break it as a crash would
                self.assertEqual(process.returncode, 0)
                self.assertEqual(untimed(output), untimed(self.whole))
                data = output.read_bytes()
                output.write_bytes(data[:rng.randrange(len(data))])
        self.assertEqual(self.sweep(output)[0], 0)
        self.assertEqual(untimed(output), untimed(self.whole))

    def test_other_sweeps_are_refused(self):
        output = self.folder / "other.csv"
        shutil.copy(self.whole, output)
        shutil.copy(self.folder / "whole.csv.json", self.folder / "other.csv.json")
        code, err = self.sweep(output, "--seed", 2)
        self.assertEqual(code, 3)
        self.assertIn("error: schema", err)
        self.assertEqual(output.read_bytes(), self.whole.read_bytes())
        run = self.folder / "unknown.trec"
        run.write_text((SHARED / "collections" / "xquad" / "en" / "runs" / "bm25.trec").read_text(encoding="utf-8")
                       .replace(" Q0 ", " Q0 no-", 1))
        command = self.command(self.folder / "unknown.csv")
        command[command.index("--run") + 1] = str(run)
        r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(r.returncode, 3)
        self.assertIn(f'missing: {run}:1: document "no-', r.stderr.decode())
        notes = self.folder / "notes.csv"
        notes.write_text("shopping list")
        self.assertEqual(self.sweep(notes)[0], 3)
        self.assertEqual(notes.read_text(), "shopping list")

    def test_models_without_exits(self):
        output = self.folder / "encoder.csv"
        code, err = self.sweep(output, model=SHARED / "models" / "tiny-xlmr-reranker", grid=False)
        self.assertEqual(code, 0, err)
        rows = read_table(output)
        self.assertEqual([row["cutoff_layer"] for row in rows], ["4"])
        self.assertEqual(self.sweep(self.folder / "no.csv", "--ratios", "2", model=SHARED / "models" / "tiny-xlmr-reranker",
                                    grid=False)[0], 3)

    def test_cascade(self):
        """With the bounds of the sweep: the same best passages, the same scores."""
        collection = SHARED / "collections" / "xquad" / "en"
        documents = read_json_lines(collection / "corpus.jsonl")[:30]
        query = read_json_lines(collection / "queries.jsonl")[0]["text"]
        line = json.dumps({"query": query, "passages": [d["text"] for d in documents]})
        options = ["--model", self.model, "--max-length", "128", "--heads", "own",
                   "--compress-ratio", "2", "--compress-layers", "2"]

        def score(*more, code=0):
            r = subprocess.run([BINARY, "score", *map(str, options), *map(str, more)], input=line.encode(),
                               capture_output=True, timeout=TIMEOUT_S)
            self.assertEqual(r.returncode, code, r.stderr)
            return [json.loads(row) for row in r.stdout.splitlines()]

        full = [row["scores"] for row in score("--cutoff-layers", "3,5,8")]
        best = sorted(range(len(full)), key=lambda i: -full[i]["8"])
        for risk in ("0", "0.2"):
            rows = score("--cascade", self.folder / "bounds.json", "--top-k", 3, "--risk", risk)
            for row, scores in zip(rows, full):
                self.assertEqual(row["score"], scores[str(row["layer"])])
                self.assertEqual(row["dropped"], row["layer"] != 8)
        exact = score("--cascade", self.folder / "bounds.json", "--top-k", 3)
        kept = {i for i, row in enumerate(exact) if not row["dropped"]}
        self.assertLessEqual(set(best[:3]), kept)
        self.assertLess(len(kept), len(full))
        score("--cascade", self.folder / "bounds.json", "--cutoff-layers", "3", code=2)
        score("--top-k", 3, code=2)
        options[-1] = "5"  # a layer that was not swept
        score("--cascade", self.folder / "bounds.json", code=3)


if __name__ == "__main__":
    index = sys.argv.index("--bin")
    BINARY = sys.argv[index + 1]
    del sys.argv[index:index + 2]
    unittest.main()
