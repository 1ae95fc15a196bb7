#!/usr/bin/env python3
"""Holds the evaluation commands of `terse` to their contract, from outside.

    test_eval_command.py --bin build/terse [unittest arguments]
"""

import gzip
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

from tiny_models import write_embedder, write_reranker

BINARY = ""
SANITIZED = False
TIMEOUT_S = 120  # for builds with sanitizers on a busy machine
WORDS = "what is panda bear the giant china hi cat sat on mat zebra 42".split()


def jsonl(items):
    return "".join(json.dumps(item) + "\n" for item in items)


class CommandTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="terse-eval-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run_terse(self, *args, stdin=""):
        """(exit code, standard output, standard error)"""
        r = subprocess.run([BINARY, *map(str, args)], input=stdin.encode(), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=TIMEOUT_S)
        return r.returncode, r.stdout.decode(), r.stderr.decode("utf-8", "replace")

    def output(self, *args, **kwargs):
        code, out, err = self.run_terse(*args, **kwargs)
        self.assertEqual(code, 0, err)
        return out

    def rows(self, *args, **kwargs):
        return [json.loads(line) for line in self.output(*args, **kwargs).splitlines()]

    def refused(self, message, *args, code=3):
        got, _, err = self.run_terse(*args)
        self.assertEqual(got, code, err)
        last = err.splitlines()[-1]
        self.assertTrue(last.startswith("terse: error: "), err)
        self.assertIn(message, last)


class Eval(CommandTest):
    def setUp(self):
        super().setUp()
        self.qrels = self.write("qrels", "q1 0 a 1\nq1 0 b 2\nq2 0 c 1\nq3 0 d 1\n")
        self.run_file = self.write("run", "q1 Q0 b 1 3 t\nq1 Q0 x 2 2 t\nq1 Q0 a 3 1 t\nq2 Q0 y 1 1 t\nq2 Q0 c 2 1 t\n")

    def eval(self, *args):
        return self.rows("eval", "--qrels", self.qrels, "--run", self.run_file, *args)

    def test_figures(self):
        rows = self.eval("--per-query", "--metrics", "ndcg@10,mrr,p@2")
        self.assertEqual([row["qid"] for row in rows], ["q1", "q2", "all"])
        ideal = 2 + 1 / math.log2(3)
        self.assertAlmostEqual(rows[0]["ndcg@10"], (2 + 1 / 2) / ideal, places=8)
        self.assertEqual(rows[1]["mrr"], 0.5)  # y before c: descending id
        self.assertEqual(rows[2]["mrr"], 0.75)
        self.assertEqual(rows[2]["p@2"], 0.5)
        self.assertEqual(rows[2]["queries"], 2)
        self.assertEqual(self.eval("--complete")[-1]["queries"], 3)

    def test_default_metrics(self):
        row, = self.eval()
        self.assertEqual(list(row)[:5], ["qid", "ndcg@10", "map", "mrr@10", "recall@100"])

    def test_ties(self):
        self.assertEqual(self.eval("--ties", "input", "--metrics", "mrr")[-1]["mrr"], 0.75)
        self.run_file.write_text("q2 Q0 c 1 1 t\nq2 Q0 y 1 1 t\n")
        for rule, mrr in (("trec", 0.5), ("input", 1), ("average", 0.75)):
            row, = self.eval("--ties", rule, "--metrics", "mrr,p@1")
            self.assertEqual(row["mrr"], mrr)
            self.assertEqual(row["ties@1"], 1)

    def test_compressed_and_piped(self):
        want = self.eval()
        self.qrels = self.write("qrels.gz", gzip.compress(self.qrels.read_bytes()))
        self.run_file = self.write("run.gz", gzip.compress(self.run_file.read_bytes()))
        self.assertEqual(self.eval(), want)
        piped = self.rows("eval", "--qrels", self.qrels, "--run", "-",
                          stdin=gzip.decompress(self.run_file.read_bytes()).decode())
        self.assertEqual(piped, want)

    def test_compare(self):
        other = self.write("other", "q1 Q0 x 1 3 t\nq1 Q0 b 2 2 t\nq2 Q0 c 2 1 t\n")
        rows = self.eval("--compare", other, "--metrics", "mrr", "--per-query")
        self.assertEqual(rows[0]["compare"], {"mrr": 0.5})
        comparison = rows[-1]["compare"]["mrr"]
        self.assertEqual(comparison["difference"], 0)
        self.assertEqual(comparison["p"], 1)
        self.assertEqual([q["qid"] for q in comparison["gained"]], ["q1"])
        self.assertEqual([q["qid"] for q in comparison["lost"]], ["q2"])
        self.assertLessEqual(comparison["low"], 0)
        self.assertEqual(rows, self.eval("--compare", other, "--metrics", "mrr", "--per-query"))

    def test_table(self):
        out = self.output("eval", "--qrels", self.qrels, "--run", self.run_file, "--metrics", "mrr", "--format", "table",
                          "--compare", self.run_file)
        lines = [line.split() for line in out.splitlines() if line]
        self.assertEqual(lines[0], ["qid", "mrr"])
        self.assertEqual(lines[1], ["all", "0.7500"])
        self.assertEqual(lines[3][:3], ["mrr", "0.7500", "0.7500"])

    def test_bad_files_are_named_with_their_line(self):
        self.run_file.write_text("q1 Q0 b 1 3 t\nq1 Q0 b 2 2 t\n")
        self.refused(f"duplicate: {self.run_file}:2: ", "eval", "--qrels", self.qrels, "--run", self.run_file)
        self.run_file.write_text("q1 Q0 b 1 nan t\n")
        self.refused(f"nonfinite: {self.run_file}:1: ", "eval", "--qrels", self.qrels, "--run", self.run_file)
        self.run_file.write_text("q9 Q0 b 1 1 t\n")
        self.refused("missing: no query of the run", "eval", "--qrels", self.qrels, "--run", self.run_file)
        self.qrels.write_text("")
        self.refused(f"missing: {self.qrels}: ", "eval", "--qrels", self.qrels, "--run", self.run_file)
        self.refused("io: ", "eval", "--qrels", self.folder / "absent", "--run", self.run_file)

    def test_wrong_usage(self):
        for args in (("--metrics", "nonsense"), ("--metrics", ""), ("--ties", "x"), ("--seed", "3")):
            code, _, _ = self.run_terse("eval", "--qrels", self.qrels, "--run", self.run_file, *args)
            self.assertEqual(code, 2, args)

    def test_a_million_lines(self):
        rng = random.Random(5)
        self.run_file.write_text("".join(f"q{q} Q0 doc{rng.randrange(10**6) * 1000 + d} {d} {rng.random():.9g} t\n"
                                    for q in range(1000) for d in range(1000)))
        self.qrels.write_text("".join(f"q{q} 0 doc{d} 1\n" for q in range(1000) for d in range(20)))
        before = os.times()
        self.eval()
        after = os.times()
        # Processor time: the clock would also measure what else the machine does.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        self.assertLess(spent, 10 if SANITIZED else 2)


class Calibrate(CommandTest):
    def test_scores(self):
        examples = [{"score": s, "label": l} for s, l in ((2, 1), (2, True), (-2, 0), (-2, False))]
        row, = self.rows("calibrate", stdin=jsonl(examples))
        self.assertEqual((row["count"], row["relevant"], row["threshold"], row["f1"]), (4, 2, 0, 1))
        self.assertAlmostEqual(row["slope"], math.log(3) / 2, places=7)
        self.assertEqual(len(row["bins"]), 10)
        plot = self.folder / "reliability.svg"
        self.rows("calibrate", "--plot", plot, stdin=jsonl(examples))
        picture = xml.etree.ElementTree.parse(plot).getroot()
        self.assertEqual(len(picture.findall(".//{*}path")), sum(bin["count"] > 0 for bin in row["bins"]))

    def test_a_judged_run(self):
        run = self.write("run", "q1 Q0 a 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 unjudged 3 1 t\nq2 Q0 a 1 1 t\n")
        qrels = self.write("qrels", "q1 0 a 2\nq1 0 b 0\n")
        row, = self.rows("calibrate", "--run", run, "--qrels", qrels)
        self.assertEqual((row["count"], row["relevant"], row["threshold"]), (2, 1, 2.5))

    def test_pairs_scored_by_a_model(self):
        model = write_reranker(self.folder / "reranker")
        pairs = [{"query": "hi", "passage": f"cat {i}", "label": i % 2} for i in range(8)]
        row, = self.rows("calibrate", "--model", model, stdin=jsonl(pairs))
        scores = self.rows("score", "--model", model, stdin=jsonl(pairs))
        given, = self.rows("calibrate", stdin=jsonl({"score": s["score"], "label": p["label"]}
                                                    for s, p in zip(scores, pairs)))
        for name in ("slope", "intercept", "threshold"):
            self.assertAlmostEqual(row[name], given[name], places=4)

    def test_refused(self):
        one_kind = self.write("one", jsonl([{"score": 1, "label": 1}]))
        self.refused("missing: ", "calibrate", one_kind)
        self.refused(":1: ", "calibrate", self.write("bad", '{"label": 1}\n'))
        code, _, _ = self.run_terse("calibrate", "--run", one_kind)
        self.assertEqual(code, 2)


class Convert(CommandTest):
    def test_lists(self):
        lists = self.write("lists.jsonl", jsonl([
            {"query": "what is panda", "positive": ["a bear", "a zebra"], "negative": ["a cat", "a bear"]},
            {"query": "only positive", "positive": ["x"], "negative": []},
            {"query": ["one", "two"], "pos": ["a cat"], "neg": ["a mat"]}]))
        out = self.folder / "collection"
        self.assertEqual(self.output("convert", lists, "--out", out), "")
        texts = {row["_id"]: row["text"] for row in map(json.loads, (out / "corpus.jsonl").read_text().splitlines())}
        self.assertEqual(sorted(texts.values()), ["a bear", "a cat", "a mat", "a zebra"])
        queries = [json.loads(line) for line in (out / "queries.jsonl").read_text().splitlines()]
        self.assertEqual([q["_id"] for q in queries], ["q0", "q2-0", "q2-1"])
        row, = self.rows("eval", "--qrels", out / "qrels.tsv", "--run", out / "candidates.trec", "--metrics", "map")
        self.assertEqual((row["map"], row["queries"]), (1, 3))

    def test_refused(self):
        self.refused(":1: positive is missing", "convert", self.write("x", '{"query": "q"}'), "--out", self.folder)
        self.refused("missing: ", "convert", self.write("x", ""), "--out", self.folder)


class Retrieve(CommandTest):
    def setUp(self):
        super().setUp()
        rng = random.Random(1)
        texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 12))) for _ in range(30)]
        self.corpus = self.write("corpus.jsonl", jsonl({"_id": f"d{i}", "text": t} for i, t in enumerate(texts)))
        self.queries = self.write("queries.jsonl", jsonl({"_id": f"q{i}", "text": w} for i, w in enumerate(WORDS[:4])))
        self.files = ("--corpus", self.corpus, "--queries", self.queries)

    def lines(self, *args):
        return [line.split() for line in self.output(*args).splitlines()]

    def test_words(self):
        lines = self.lines("retrieve", *self.files, "--top-k", "5")
        self.assertTrue(lines)
        self.assertLessEqual(max(int(line[3]) for line in lines), 5)
        self.assertEqual({line[5] for line in lines}, {"bm25"})
        packed = self.write("corpus.gz", gzip.compress(self.corpus.read_bytes()))
        self.assertEqual(self.lines("retrieve", "--corpus", packed, "--queries", self.queries, "--top-k", "5"), lines)

    def test_vectors(self):
        model = write_embedder(self.folder / "embedder")
        lines = self.lines("retrieve", *self.files, "--model", model, "--top-k", "3")
        self.assertEqual(len(lines), 12)
        self.assertEqual({line[5] for line in lines}, {"dense"})
        vectors = {}
        for path, kind in ((self.corpus, "passage"), (self.queries, "query")):
            rows = self.rows("embed", "--model", model, "--kind", kind,
                             stdin="".join(line + "\n" for line in path.read_text().splitlines()))
            ids = [json.loads(line)["_id"] for line in path.read_text().splitlines()]
            vectors.update({i: row["dense"] for i, row in zip(ids, rows)})
        for query, _, document, _, score, _ in lines:
            dot = sum(a * b for a, b in zip(vectors[query], vectors[document]))
            self.assertAlmostEqual(float(score), dot, places=5)
        self.refused("unsupported: ", "retrieve", *self.files, "--model", model, "--method", "sparse")

    def test_refused(self):
        self.corpus.write_text('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n')
        self.refused(f"duplicate: {self.corpus}:2: ", "retrieve", *self.files)
        self.corpus.write_text('{"_id": "a", "text": "x"}\n{"_id": \n')
        self.refused(f"json: {self.corpus}:2: ", "retrieve", *self.files)
        code, _, _ = self.run_terse("retrieve", *self.files, "--method", "dense")
        self.assertEqual(code, 2)
        model = write_embedder(self.folder / "embedder")
        for unread in (("--max-length", "8"), ("--query-instruction", "x"), ("--weights", "1,1,1"),
                       ("--model", model, "--k1", "1"), ("--model", model, "--words", "english"),
                       ("--model", model, "--weights", "1,1,1"), ("--model", model, "--method", "bm25")):
            code, _, _ = self.run_terse("retrieve", *self.files, *unread)
            self.assertEqual(code, 2, unread)

    def test_fuse(self):
        one = self.write("one", "q Q0 a 1 2 t\nq Q0 b 2 1 t\n")
        two = self.write("two", "q Q0 b 1 9 t\n")
        lines = self.lines("fuse", one, two)
        self.assertEqual([(line[2], line[5]) for line in lines], [("b", "fused"), ("a", "fused")])
        self.assertAlmostEqual(float(lines[0][4]), 1 / 61 + 1 / 62, places=8)
        lines = self.lines("fuse", one, two, "--method", "sum", "--scale", "none", "--weights", "2,1", "--tag", "x")
        self.assertEqual([(line[2], float(line[4])) for line in lines], [("b", 11), ("a", 4)])
        code, _, _ = self.run_terse("fuse", one)
        self.assertEqual(code, 2)


class RerankRun(CommandTest):
    def setUp(self):
        super().setUp()
        rng = random.Random(2)
        self.texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 30))) for _ in range(60)]
        self.corpus = self.write("corpus.jsonl", jsonl({"_id": f"d{i}", "text": t} for i, t in enumerate(self.texts)))
        self.queries = self.write("queries.jsonl", jsonl({"_id": f"q{i}", "text": f"{WORDS[i % 14]} {i}"}
                                                         for i in range(40)))
        self.run_file = self.write("in.trec", "".join(
            f"q{q} Q0 d{d} 1 {rng.random():.6f} bm25\n" for q in range(40) for d in rng.sample(range(60), 12)))
        self.reranker = write_reranker(self.folder / "reranker")

    def args(self, **changes):
        files = {"model": self.reranker, "run": self.run_file, "corpus": self.corpus, "queries": self.queries, **changes}
        return ["rerank", "--top-k", "8", *(part for name, path in files.items() for part in (f"--{name}", path))]

    def test_scores_are_those_of_score(self):
        lines = [line.split() for line in self.output(*self.args()).splitlines()]
        self.assertEqual(len(lines), 320)
        queries = {json.loads(line)["_id"]: json.loads(line)["text"] for line in self.queries.read_text().splitlines()}
        pairs = [{"query": queries[line[0]], "passage": self.texts[int(line[2][1:])]} for line in lines]
        scores = self.rows("score", "--model", self.reranker, stdin=jsonl(pairs))
        self.assertEqual([float(line[4]) for line in lines], [score["score"] for score in scores])

    def test_compressed_and_piped_files(self):
        want = self.output(*self.args())
        packed = {name: self.write(f"{name}.gz", gzip.compress(path.read_bytes()))
                  for name, path in (("run", self.run_file), ("corpus", self.corpus), ("queries", self.queries))}
        self.assertEqual(self.output(*self.args(**packed)), want)
        self.assertEqual(self.output(*self.args(corpus="-"), stdin=self.corpus.read_text()), want)

    def test_killed_anywhere_and_continued(self):
        for model in (self.reranker, write_embedder(self.folder / "embedder")):
            want = self.output(*self.args(model=model))
            out = self.folder / f"out-{model.name}.trec"
            rng = random.Random(4)
            start = time.monotonic()
            self.output(*self.args(model=model), "--threads", "1")
            whole_s = time.monotonic() - start
            kept = ""
            for sent in [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT] * 3:
                process = subprocess.Popen([BINARY, *map(str, self.args(model=model)), "--threads", "1", "--resume", out],
                                           stderr=subprocess.DEVNULL)
                time.sleep(rng.uniform(0, whole_s))
                process.send_signal(sent)
                self.assertIn(process.wait(TIMEOUT_S), (0, -sent, 128 + sent))
                now = out.read_text() if out.exists() else ""
                self.assertTrue(now.startswith(kept))
                self.assertTrue(want.startswith(now))
                self.assertEqual(len(now.splitlines()) % 8, 0)  # whole queries
                kept = now
            self.output(*self.args(model=model), "--resume", out)
            self.assertEqual(out.read_text(), want)

    def test_a_torn_end_is_cut_off(self):
        want = self.output(*self.args())
        out = self.folder / "out.trec"
        for size in (0, 10, len(want) // 2, len(want) - 1, len(want)):
            out.write_text(want[:size])
            self.output(*self.args(), "--resume", out)
            self.assertEqual(out.read_text(), want)

    def test_results_of_another_run_are_refused(self):
        out = self.write("out.trec", "q0 Q0 elsewhere 1 1 t\nq1 Q0 d1 1 1 t\n")
        self.refused(f"schema: {out}:1: ", *self.args(), "--resume", out)
        out = self.write("out.trec", "not a run\nq1 Q0 d1 1 1 t\n")
        self.refused(f"schema: {out}:1: ", *self.args(), "--resume", out)

    def test_a_missing_text_is_said_and_left_out(self):
        lines = self.corpus.read_text().splitlines(keepends=True)
        self.corpus.write_text("".join(lines[1:]))
        code, out, err = self.run_terse(*self.args())
        self.assertEqual(code, 1)
        place = re.search(re.escape(str(self.run_file)) + r':(\d+): document "d0" of query "(q\d+)"', err)
        self.assertIsNotNone(place, err)
        self.assertTrue(self.run_file.read_text().splitlines()[int(place[1]) - 1].startswith(f"{place[2]} Q0 d0 "))
        self.assertNotIn(" d0 ", out)

    def test_documents_of_one_text_share_its_score(self):
        model = write_embedder(self.folder / "embedder")
        # Every document has one of three texts.
        self.corpus.write_text(jsonl({"_id": f"d{i}", "text": WORDS[i % 3]} for i in range(60)))
        lines = [line.split() for line in self.output(*self.args(model=model)).splitlines()]
        by_text = {}
        for query, _, document, _, score, _ in lines:
            by_text.setdefault((query, int(document[1:]) % 3), set()).add(score)
        self.assertTrue(all(len(scores) == 1 for scores in by_text.values()))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    at = arguments.index("--bin")
    BINARY = os.path.abspath(arguments[at + 1])
    SANITIZED = bool({"asan", "tsan"} & set(pathlib.Path(BINARY).parts))  # the presets' folders
    unittest.main(argv=[sys.argv[0], *arguments[:at], *arguments[at + 2:]])
