#!/usr/bin/env python3
"""Holds the command `terse` to its contract, from outside, on models made here.

    test_command.py --bin build/terse [unittest arguments]
"""

import json
import math
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from tiny_models import read_safetensors, write_embedder, write_reranker, write_safetensors

BINARY = ""
TIMEOUT_S = 120  # for builds with sanitizers on a busy machine
CLASSES = {"io", "truncated", "limit", "json", "utf8", "schema", "type", "missing", "range", "dtype", "shape",
           "overflow", "offsets", "coverage", "duplicate", "path", "missing_tensor", "shape_mismatch",
           "unsupported", "protobuf", "tokenizer", "nonfinite", "busy", "cancelled", "memory", "device"}


class CommandTest(unittest.TestCase):
    """A test with a folder of its own, a reranker and an embedder."""

    @classmethod
    def setUpClass(cls):
        cls.models = pathlib.Path(tempfile.mkdtemp(prefix="terse-command-"))
        cls.reranker = write_reranker(cls.models / "reranker")
        cls.embedder = write_embedder(cls.models / "embedder")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.models)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.models))

    def run_terse(self, *args, stdin=b"", stdout=subprocess.PIPE):
        """(exit code, standard output, standard error)"""
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        r = subprocess.run([BINARY, *map(str, args)], input=data, stdout=stdout, stderr=subprocess.PIPE,
                           timeout=TIMEOUT_S)
        return r.returncode, (r.stdout or b"").decode(), r.stderr.decode("utf-8", "replace")

    def rows(self, *args, items=(), stdin=None, code=0):
        """The lines of standard output as objects."""
        text = stdin if stdin is not None else "".join(json.dumps(item) + "\n" for item in items)
        got, out, err = self.run_terse(*args, stdin=text)
        self.assertEqual(got, code, err)
        return [json.loads(line) for line in out.splitlines()]

    def score(self, *args, **kwargs):
        return self.rows("score", "--model", self.reranker, *args, **kwargs)

    def refused(self, error_class, *args, code=3, stdin=b""):
        """Asserts that a run ends with one line of that class on standard error."""
        got, _, err = self.run_terse(*args, stdin=stdin)
        self.assertEqual(got, code, err)
        last = err.splitlines()[-1]
        self.assertTrue(last.startswith(f"terse: error: {error_class}: "), err)
        self.assertIn(error_class, CLASSES)
        self.assertLessEqual(len(last.encode()), 520)

    def error_class(self, row):
        self.assertEqual(set(row["error"]), {"class", "message"})
        return row["error"]["class"]

    def start(self, *args, **kwargs):
        process = subprocess.Popen([BINARY, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, **kwargs)
        self.addCleanup(self.stop, process)
        return process

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        process.wait()


def pair(query="what is panda", passage="the giant panda is a bear", **more):
    return {"query": query, "passage": passage, **more}


def random_pairs(count, seed=3):
    rng = random.Random(seed)
    words = "what is panda bear the giant china hi cat sat on mat zebra 42".split()

    def text(most):
        return " ".join(rng.choice(words) for _ in range(rng.randint(1, most)))
    return [{"id": i, "query": text(4), "passage": text(12)} for i in range(count)]


class Usage(CommandTest):
    def test_wrong_usage(self):
        for args in ((), ("nonsense",), ("score",), ("score", "--model", self.reranker, "--nonsense"),
                     ("score", "--model", self.reranker, "--threads", "-1"),
                     ("rerank", "--model", self.reranker),
                     ("rerank", "--model", self.reranker, "--query", "q", "--top-n", "0")):
            code, out, err = self.run_terse(*args)
            self.assertEqual((code, out), (2, ""), args)
            self.assertNotEqual(err, "", args)

    def test_values_out_of_range(self):
        for option, value in (("--max-length", "0"), ("--max-length", "-3"), ("--max-length", "8x"),
                              ("--truncation", "sideways"), ("--isa", "z80"), ("--dtype", "f64")):
            self.refused("range", "score", "--model", self.reranker, option, value, code=2)

    def test_help_and_version(self):
        for args in (("--help",), ("score", "--help"), ("--version",), ("version",)):
            code, out, _ = self.run_terse(*args)
            self.assertEqual(code, 0)
            self.assertNotEqual(out, "")
        version = self.rows("version", "--json")[0]
        self.assertLessEqual({"version", "compiler", "isa_found", "isa_used", "cuda", "threads"}, set(version))
        self.assertIn(version["isa_used"], version["isa_found"])
        self.assertGreaterEqual(version["threads"], 1)

    def test_refused_models(self):
        self.refused("io", "score", "--model", self.folder / "absent")
        broken = shutil.copytree(self.reranker, self.folder / "broken")
        (broken / "config.json").write_text("{")
        self.refused("json", "score", "--model", broken)
        cut = shutil.copytree(self.reranker, self.folder / "cut")
        data = (cut / "model.safetensors").read_bytes()
        (cut / "model.safetensors").write_bytes(data[:-1])
        self.refused("truncated", "score", "--model", cut)
        self.refused("io", "score", "--model", self.reranker, self.folder / "absent.jsonl")

    def test_device_and_isa(self):
        cuda = self.rows("version", "--json")[0]["cuda"]
        if cuda.get("devices"):
            self.assertEqual(len(self.score("--device", "cuda", items=[pair()])), 1)
        else:
            self.refused("device", "score", "--model", self.reranker, "--device", "cuda", code=5)
            code, out, err = self.run_terse("score", "--model", self.reranker, "--device", "auto",
                                            stdin=json.dumps(pair()))
            self.assertEqual(code, 0, err)
            self.assertEqual(json.loads(out)["score"], self.score("--device", "cpu", items=[pair()])[0]["score"])
            self.assertIn("terse: device: computing on the CPU: ", err)
        found = self.rows("version", "--json")[0]["isa_found"]
        for isa in ("reference", "avx2", "avx512", "amx"):
            if isa in found:
                self.assertEqual(len(self.score("--isa", isa, items=[pair()])), 1)
            else:
                self.refused("unsupported", "score", "--model", self.reranker, "--isa", isa)


class Score(CommandTest):
    def test_result(self):
        row = self.score("--ids", items=[pair()])[0]
        self.assertEqual(list(row), ["id", "score", "tokens", "truncated", "dtype", "input_ids"])
        self.assertEqual(row["id"], 0)
        self.assertEqual(row["tokens"], len(row["input_ids"]))
        self.assertIs(row["truncated"], False)
        self.assertTrue(math.isfinite(row["score"]))

    def test_nine_digits_give_the_float_back(self):
        for row in self.score(items=random_pairs(50)):
            as_float = struct.unpack("f", struct.pack("f", row["score"]))[0]
            self.assertEqual(float(f"{as_float:.9g}"), row["score"])

    def test_ids_are_echoed_byte_for_byte(self):
        ids = ['"a\\u0062\\n"', "1.0", "1e2", "12345678901234567890123", "null", "true",
               '{ "x": [1,  {"id": 2}] }', '"\u00e4 \u5927"', "[]"]
        lines = "".join('{"query": "q", "other": {"id": 7}, "id" : %s , "passage": "p"}\n' % id for id in ids)
        code, out, err = self.run_terse("score", "--model", self.reranker, stdin=lines)
        self.assertEqual(code, 0, err)
        for id, line in zip(ids, out.splitlines(), strict=True):
            self.assertTrue(line.startswith('{"id": ' + id + ', "score"'), line)

    def test_a_line_stays_a_line(self):
        line_ends = "a\u0085b\u2028c\u2029d\u00e9\u20ac"
        item = json.dumps({"query": "q", "passage": "p", "id": line_ends}, ensure_ascii=False) + "\n"
        code, out, _ = self.run_terse("score", "--model", self.reranker, stdin=item)
        self.assertEqual((code, len(out.splitlines())), (0, 1))
        self.assertEqual(json.loads(out)["id"], line_ends)

    def test_passages_of_one_line(self):
        rows = self.score(items=[{"query": "hi", "passages": ["cat", "mat", "cat"], "id": "x"},
                                 {"query": "hi", "passages": []}, pair("hi", "cat")])
        self.assertEqual([(r["id"], r.get("index")) for r in rows], [("x", 0), ("x", 1), ("x", 2), (2, None)])
        self.assertEqual(rows[0]["score"], rows[2]["score"])
        self.assertEqual(rows[0]["score"], rows[3]["score"])

    def test_a_bad_line_costs_only_itself(self):
        good = json.dumps(pair()).encode()
        bad = [(b"not json", "json"), (b'{"query": "q"}', "missing"), (b'{"passage": "p"}', "missing"),
               (b'{"query": 1, "passage": "p"}', "schema"), (b'{"query": null, "passage": "p"}', "schema"),
               (b'{"query": "q", "passage": "p", "passages": []}', "schema"), (b"[]", "schema"), (b"3", "schema"),
               (b'{"query": "q", "query": "r", "passage": "p"}', "duplicate"),
               (b'{"query": "q", "passage": "\xff"}', "utf8"), (b'{"query": "q", "passage": "\\ud800"}', "json"),
               (b'{"query": "q", "passage": "p", "x": ' + b"[" * 40 + b"]" * 40 + b"}", "limit"),
               (b'{"query": "q", "passage": "p", "x": ' + b"[" * 100000, "limit"),
               (b'{"query": "q", "passages": ["a", 2]}', "schema"),
               (b'{"query": "q", "passage": "p"} {}', "json"), (b'{"query": "q", "passage": "p\0"}', "json")]
        lines = b"".join(good + b"\n" + line + b"\n" for line, _ in bad) + good
        rows = self.score(stdin=lines, code=1)
        self.assertEqual([r["id"] for r in rows], list(range(2 * len(bad) + 1)))
        self.assertEqual([self.error_class(r) for r in rows[1::2]], [error_class for _, error_class in bad])
        self.assertEqual(len({r["score"] for r in rows[::2]}), 1)

    def test_a_bad_line_keeps_its_id(self):
        rows = self.score(items=[{"id": "mine", "query": 1}, pair(id=[2], options={"max_length": "x"})], code=1)
        self.assertEqual([r["id"] for r in rows], ["mine", [2]])

    def test_blank_lines_are_no_pairs(self):
        rows = self.score(stdin="\n  \n" + json.dumps(pair()) + "\r\n\n")
        self.assertEqual([r["id"] for r in rows], [2])

    def test_options_of_a_line(self):
        long = pair("hi", "cat " * 40)
        rows = self.score("--max-length", "30", items=[
            long, {**long, "options": {"max_length": 12}}, {**long, "options": {"max_length": None}}, long,
            {**long, "options": {"normalize": True}}, {**long, "options": {"truncation": "longest_first"}}])
        self.assertEqual([r["tokens"] for r in rows], [30, 12, 30, 30, 30, 30])
        self.assertAlmostEqual(rows[4]["score"], 1 / (1 + math.exp(-rows[0]["score"])), places=7)
        instructed = self.score(items=[pair("hi", "cat"), pair("panda hi", "cat"),
                                       pair("hi", "cat", options={"query_instruction": "panda "}),
                                       pair("hi", "cat", options={"query_instruction": None})])
        self.assertEqual(instructed[1]["score"], instructed[2]["score"])
        self.assertEqual(instructed[0]["score"], instructed[3]["score"])

    def test_bad_options_of_a_line(self):
        bad = [({"max_length": 0}, "range"), ({"max_length": 3}, "range"), ({"max_length": 10**6}, "range"),
               ({"max_length": "8"}, "schema"), ({"max_length": 8.5}, "schema"), ({"max-length": 8}, "schema"),
               ({"nonsense": 1}, "schema"), ({"truncation": "x"}, "range"), ({"normalize": 1}, "schema"),
               ({"cutoff_layers": [8]}, "unsupported"), ({"compress_ratio": 2}, "unsupported"),
               ({"heads": "own"}, "unsupported"), ([], "schema"),
               ({"truncation": "error", "max_length": 6}, "limit")]
        rows = self.score(items=[pair(options=options) for options, _ in bad] + [pair()], code=1)
        self.assertEqual([self.error_class(r) for r in rows[:-1]], [error_class for _, error_class in bad])
        self.assertIn("score", rows[-1])

    def test_query_max_length_where_it_has_no_effect(self):
        for truncation in ("longest-first", "error", "chunk"):
            rows = self.score("--truncation", truncation, "--query-max-length", "8", items=[pair()], code=1)
            self.assertEqual(self.error_class(rows[0]), "unsupported", truncation)

    def test_warnings(self):
        folder = shared("models/tiny-gemma2-lightweight")
        if folder is None:
            self.skipTest("no reference data")
        for command, stdin in ((["score"], json.dumps(pair())), (["rerank", "--query", "hi"], "cat")):
            for options, warning in ((["--compress-layers", "0,100", "--compress-ratio", "2"], "compress_layers 0, 100"),
                                     (["--compress-layers", "2"], "no compress_ratio"),
                                     (["--cutoff-layers", "2,100"], "cutoff_layers 100")):
                code, _, err = self.run_terse(*command, "--model", folder, *options, stdin=stdin + "\n" + stdin)
                self.assertEqual(code, 0, err)
                self.assertEqual(err.count("terse: warning: "), 1, err)
                self.assertIn(warning, err)

    def test_chunks(self):
        rows = self.score("--truncation", "chunk", "--max-length", "20", items=[pair("hi", "cat " * 60), pair()])
        self.assertGreater(rows[0]["chunks"], 1)
        self.assertNotIn("chunks", rows[1])

    def test_tsv_in_and_out(self):
        code, out, err = self.run_terse("score", "--model", self.reranker, "--input-format", "tsv", "--format", "tsv",
                                        stdin="hi\tcat\nno tab\na\tb\tc\nhi\tcat\r\n")
        self.assertEqual(code, 1, err)
        heading, *rows = [line.split("\t") for line in out.splitlines()]
        rows = [dict(zip(heading, row, strict=True)) for row in rows]
        self.assertEqual([r["id"] for r in rows], ["0", "1", "2", "3"])
        self.assertEqual(rows[0]["score"], rows[3]["score"])
        self.assertEqual(float(rows[0]["score"]), self.score(items=[pair("hi", "cat")])[0]["score"])
        self.assertIn("schema", rows[1]["error"])

    def test_table(self):
        code, out, _ = self.run_terse("score", "--model", self.reranker, "--format", "table",
                                      stdin=json.dumps(pair()) + "\nx\n")
        self.assertEqual(code, 1)
        self.assertEqual(len(out.splitlines()), 3)

    def test_order_and_bits_in_any_batch(self):
        pairs = random_pairs(3000)
        first = self.score("--threads", "1", "--batch-tokens", "1", items=pairs[:300])
        for threads, tokens in ((2, 64), (1, 4096), (3, 0)):
            rows = self.score("--threads", threads, "--batch-tokens", tokens, items=pairs)
            self.assertEqual([r["id"] for r in rows], list(range(len(pairs))))
            self.assertEqual([r["score"] for r in rows[:300]], [r["score"] for r in first])

    def test_memory_stays_flat(self):
        def peak_kb(count):
            process = self.start("score", "--model", self.reranker, "--output", self.folder / "scores")
            for item in random_pairs(count):
                process.stdin.write(json.dumps(item).encode() + b"\n")
            process.stdin.close()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            self.assertEqual((self.folder / "scores").read_bytes().count(b"\n"), count)
            return usage.ru_maxrss
        few = peak_kb(4000)
        self.assertLess(peak_kb(40000), few + 16 * 1024)


class Streaming(CommandTest):
    def ask(self, process, text):
        process.stdin.write(text)
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def test_conversation(self):
        for args in (("score", "--model", self.reranker), ("embed", "--model", self.embedder),
                     ("similarity", "--model", self.embedder),
                     ("tokenize", "--model", self.reranker)):
            process = self.start(*args)
            for turn in range(5):
                line = json.dumps({"query": "hi", "passage": "cat", "text": "hi"}).encode() + b"\n"
                self.assertEqual(self.ask(process, line)["id"], turn)
            process.stdin.close()
            self.assertEqual(process.wait(TIMEOUT_S), 0)

    def test_a_line_in_pieces(self):
        process = self.start("score", "--model", self.reranker)
        line = json.dumps(pair()).encode()
        process.stdin.write(line + b"\n" + line[:7])
        process.stdin.flush()
        self.assertEqual(json.loads(process.stdout.readline())["id"], 0)
        self.assertEqual(self.ask(process, line[7:] + b"\n")["id"], 1)
        process.stdin.write(line)  # no newline: complete once the input ends
        process.stdin.close()
        self.assertEqual(json.loads(process.stdout.readline())["id"], 2)
        self.assertEqual(process.wait(TIMEOUT_S), 0)


class Outputs(CommandTest):
    def lines(self, count):
        return "".join(json.dumps(p) + "\n" for p in random_pairs(count)).encode()

    def test_a_file_appears_complete(self):
        path = self.folder / "scores.jsonl"
        code, out, _ = self.run_terse("score", "--model", self.reranker, "--output", path, stdin=self.lines(10))
        self.assertEqual((code, out), (0, ""))
        self.assertEqual(len(path.read_text().splitlines()), 10)
        self.assertEqual(os.listdir(self.folder), ["scores.jsonl"])

    def test_a_signal_leaves_the_old_file(self):
        path = self.folder / "scores.jsonl"
        path.write_text("old")
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            process = self.start("score", "--model", self.reranker, "--output", path)
            process.stdin.write(self.lines(100))
            process.stdin.flush()
            while len(os.listdir(self.folder)) < 2:  # the model is loaded, the file begun
                time.sleep(0.01)
            process.send_signal(number)
            self.assertEqual(process.wait(TIMEOUT_S), code)
            self.assertEqual(path.read_text(), "old")
            self.assertEqual(os.listdir(self.folder), ["scores.jsonl"])

    def test_a_signal_ends_work_soon(self):
        slow = write_reranker(self.folder / "slow", layers=60)
        process = self.start("score", "--model", slow, "--threads", "1")
        line = json.dumps({"query": "hi", "passages": ["cat " * 120] * 20000}).encode() + b"\n"
        process.stdin.write(line)
        process.stdin.flush()
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        self.assertEqual(process.wait(TIMEOUT_S), 143)
        self.assertLess(time.monotonic() - begin, 10)

    def test_a_signal_while_waiting_or_loading(self):
        for wait_s in (0, 0.5):
            process = self.start("score", "--model", self.reranker)
            while not pathlib.Path(f"/proc/{process.pid}/exe").resolve().name == pathlib.Path(BINARY).name:
                time.sleep(0.001)
            time.sleep(wait_s + 0.05)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(TIMEOUT_S), 130)

    def test_a_failure_leaves_the_old_file(self):
        path = self.folder / "scores.jsonl"
        path.write_text("old")
        self.refused("io", "score", "--model", self.reranker, "--output", path, self.folder)
        self.assertEqual(path.read_text(), "old")
        self.refused("io", "score", "--model", self.reranker, "--output", self.folder / "absent" / "x",
                     stdin=self.lines(1))
        self.refused("io", "score", "--model", self.reranker, "--output", self.folder, stdin=self.lines(1))

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_a_full_disk(self):
        with open("/dev/full", "wb") as full:
            code, _, err = self.run_terse("score", "--model", self.reranker, stdin=self.lines(10), stdout=full)
        self.assertEqual(code, 3)
        self.assertTrue(err.splitlines()[-1].startswith("terse: error: io: "), err)

    def test_a_reader_that_leaves(self):
        process = self.start("score", "--model", self.reranker)
        process.stdin.write(self.lines(1))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        try:
            process.stdin.write(self.lines(5000))
            process.stdin.close()
        except BrokenPipeError:
            pass
        self.assertEqual(process.wait(TIMEOUT_S), 3)
        self.assertIn(b"terse: error: io: ", process.stderr.read())

    def test_progress(self):
        _, out, err = self.run_terse("score", "--model", self.reranker, stdin=self.lines(10))
        self.assertEqual(err, "")
        process = self.start("score", "--model", self.reranker, "--progress", "always")
        time.sleep(0.5)
        out, err = process.communicate(self.lines(2000), timeout=TIMEOUT_S)
        self.assertEqual(out.count(b"\n"), 2000)
        self.assertIn(b"pairs", err)


class Rerank(CommandTest):
    DOCUMENTS = ["hi", "the giant panda is a bear", "cat sat on the mat", "hi", "china"]

    def rerank(self, *args, model=None, **kwargs):
        return self.rows("rerank", "--model", model or self.reranker, "--query", "what is panda", *args, **kwargs)

    def test_best_first_and_ties_in_order(self):
        for model in (self.reranker, self.embedder):
            rows = self.rerank(model=model, stdin="\n".join(self.DOCUMENTS))
            self.assertEqual(list(rows[0]), ["rank", "id", "index", "score", "text"])
            self.assertEqual([r["rank"] for r in rows], [1, 2, 3, 4, 5])
            scores = [r["score"] for r in rows]
            self.assertEqual(scores, sorted(scores, reverse=True))
            self.assertEqual([r["text"] for r in rows], [self.DOCUMENTS[r["index"]] for r in rows])
            self.assertEqual([r["index"] for r in rows if r["text"] == "hi"], [0, 3])

    def test_scores_are_those_of_score(self):
        scores = self.score(items=[pair(passage=d) for d in self.DOCUMENTS])
        for row in self.rerank(stdin="\n".join(self.DOCUMENTS)):
            self.assertEqual(row["score"], scores[row["index"]]["score"])

    def test_json_documents(self):
        rows = self.rerank(items=[{"_id": "d1", "title": "giant", "text": " panda "}, {"id": 7, "text": "cat"},
                                  {"text": "mat", "title": None}])
        by_id = {r["id"]: r["text"] for r in rows}
        self.assertEqual(by_id, {"d1": "giant  panda", 7: "cat", 2: "mat"})

    def test_a_bad_document_comes_last(self):
        rows = self.rerank(stdin=b'{"text": "cat"}\nx\n{"text": "mat"}\n', code=1)
        self.assertEqual(len(rows), 3)
        self.assertEqual((rows[2]["id"], self.error_class(rows[2])), (1, "json"))
        rows = self.rerank("--input-format", "text", stdin=b"cat\n\xff\xfe\nmat", code=1)
        self.assertEqual((rows[2]["id"], self.error_class(rows[2])), (1, "utf8"))

    def test_top_n_and_no_text(self):
        rows = self.rerank("--top-n", "2", "--no-text", stdin="\n".join(self.DOCUMENTS))
        self.assertEqual(list(rows[0]), ["rank", "id", "index", "score"])
        self.assertEqual(len(rows), 2)
        self.assertEqual(len(self.rerank("--top-n", "99", stdin="\n".join(self.DOCUMENTS))), 5)
        self.assertEqual(self.rerank(stdin=""), [])

    def test_other_forms(self):
        text = "\n".join(self.DOCUMENTS)
        common = ("rerank", "--model", self.reranker, "--query", "what is panda")
        _, table, _ = self.run_terse(*common, "--format", "table", stdin=text + "\n\u5927" + "\u718a" * 200 + "\x1b[2J")
        self.assertEqual(len(table.splitlines()), 6)
        self.assertNotIn("\x1b", table)
        self.assertTrue(all(len(line) <= 100 for line in table.splitlines()))
        _, run, _ = self.run_terse(*common, "--format", "trec", "--tag", "t", stdin=text)
        self.assertEqual([line.split()[:2] + line.split()[5:] for line in run.splitlines()], [["0", "Q0", "t"]] * 5)
        _, tsv, _ = self.run_terse(*common, "--format", "tsv", stdin=text)
        self.assertEqual(len(tsv.splitlines()), 6)

    def test_several_queries(self):
        queries = self.folder / "queries.jsonl"
        queries.write_text('{"_id": "a", "text": "hi"}\n{"_id": "b", "text": "what is panda"}\n')
        rows = self.rows("rerank", "--model", self.reranker, "--queries", queries, stdin="\n".join(self.DOCUMENTS))
        self.assertEqual([r["query_id"] for r in rows], ["a"] * 5 + ["b"] * 5)
        self.assertEqual([r["score"] for r in rows[5:]],
                         [r["score"] for r in self.rerank(stdin="\n".join(self.DOCUMENTS))])

    def test_embedder_instructions(self):
        plain = self.rerank(model=self.embedder, stdin="cat\nmat")
        same = self.rerank("--passage-instruction", "", model=self.embedder, stdin="cat\nmat")
        prefixed = self.rerank("--passage-instruction", "the ", model=self.embedder, stdin="cat\nmat")
        spelled = self.rerank(model=self.embedder, stdin="the cat\nthe mat")
        self.assertEqual([r["score"] for r in plain], [r["score"] for r in same])
        self.assertEqual([r["score"] for r in prefixed], [r["score"] for r in spelled])

    def test_options_without_effect_are_refused(self):
        for option in (("--normalize",), ("--truncation", "error"), ("--query-max-length", "8"), ("--prompt", "p"),
                       ("--cutoff-layers", "8"), ("--compress-layers", "8"), ("--compress-ratio", "2"),
                       ("--heads", "own"), ("--attention-softcap", "on"), ("--gelu", "erf")):
            with self.subTest(option=option):
                self.refused("unsupported", "rerank", "--model", self.embedder, "--query", "q", *option, stdin="cat")
        code, _, err = self.run_terse("rerank", "--model", self.reranker, "--query", "q", "--tag", "x", stdin="cat")
        self.assertEqual(code, 2, err)


class RerankRun(CommandTest):
    def setUp(self):
        super().setUp()
        self.queries = self.folder / "queries.jsonl"
        self.corpus = self.folder / "corpus.jsonl"
        self.run = self.folder / "in.trec"
        self.queries.write_text("".join(json.dumps({"_id": f"q{i}", "text": f"hi {i}"}) + "\n" for i in range(4)))
        self.corpus.write_text("".join(json.dumps({"_id": f"d{i}", "title": "cat", "text": f"sat {i}"}) + "\n"
                                       for i in range(20)))
        self.run.write_text("".join(f"q{q} Q0 d{d} {d + 1} {20 - d} bm25\n" for q in range(4) for d in range(20)))
        self.args = ("rerank", "--model", self.reranker, "--run", self.run, "--corpus", self.corpus,
                     "--queries", self.queries, "--top-k", "7")

    def test_a_run(self):
        code, out, err = self.run_terse(*self.args, "--tag", "mine")
        self.assertEqual(code, 0, err)
        lines = [line.split() for line in out.splitlines()]
        self.assertEqual(len(lines), 28)
        for query in range(4):
            own = [line for line in lines if line[0] == f"q{query}"]
            self.assertEqual({line[2] for line in own}, {f"d{d}" for d in range(7)})
            self.assertEqual([line[3] for line in own], [str(rank) for rank in range(1, 8)])
            scores = [float(line[4]) for line in own]
            self.assertEqual(scores, sorted(scores, reverse=True))
            self.assertEqual({line[5] for line in own}, {"mine"})

    def test_resume(self):
        _, whole, _ = self.run_terse(*self.args)
        out = self.folder / "out.trec"
        lines = whole.splitlines(keepends=True)
        # Two queries are there (one with scores of its own, to see that it is kept), a third in part.
        kept = [line.replace(" terse", " kept") for line in lines[:7]] + lines[7:14] + lines[14:16]
        out.write_text("".join(kept))
        code, stdout, err = self.run_terse(*self.args, "--resume", out)
        self.assertEqual((code, stdout), (0, ""), err)
        self.assertEqual(out.read_text(), "".join(kept[:14] + lines[14:]))

    def test_bad_runs(self):
        for text, error_class in (("q0 Q0 d0 1 2.0\n", "schema"), ("q0 Q0 d0 1 x t\n", "schema"),
                                  ("q0 Q0 d0 1 nan t\n", "nonfinite"), ("q0 Q0 d0 1 1 t\nq0 Q0 d0 2 1 t\n", "duplicate")):
            self.run.write_text(text)
            self.refused(error_class, *self.args)

    def test_what_is_missing_is_said(self):
        self.run.write_text("q0 Q0 d0 1 2 t\nq0 Q0 gone 2 1 t\nq9 Q0 d1 1 1 t\n")
        code, out, err = self.run_terse(*self.args)
        self.assertEqual(code, 1)
        self.assertEqual(len(out.splitlines()), 1)
        self.assertIn("gone", err)
        self.assertIn("q9", err)


class Embed(CommandTest):
    def embed(self, *args, **kwargs):
        return self.rows("embed", "--model", self.embedder, *args, **kwargs)

    def test_result(self):
        row = self.embed("--ids", items=[{"text": "hi cat"}])[0]
        self.assertEqual(list(row), ["id", "dense", "tokens", "truncated", "dtype", "input_ids"])
        self.assertEqual((len(row["dense"]), row["tokens"]), (16, 4))
        self.assertAlmostEqual(sum(x * x for x in row["dense"]), 1, places=5)

    def test_text_lines_and_errors(self):
        rows = self.embed("--input-format", "text", stdin=b"hi\n\n\xff\ncat\r\n", code=1)
        self.assertEqual([r["id"] for r in rows], [0, 1, 2, 3])
        self.assertEqual(self.error_class(rows[2]), "utf8")
        rows = self.embed(items=[{"text": "hi"}, {"id": 5}, {"text": "hi", "kind": "title"}, {"text": "hi"}], code=1)
        self.assertEqual([r["id"] for r in rows], [0, 5, 2, 3])
        self.assertEqual([self.error_class(r) for r in rows[1:3]], ["missing", "range"])
        self.assertEqual(rows[0]["dense"], rows[3]["dense"])

    def test_instruction_is_for_queries(self):
        rows = self.embed("--query-instruction", "panda ", items=[
            {"text": "hi"}, {"text": "hi", "kind": "query"}, {"text": "panda hi"},
            {"text": "hi", "kind": "query", "options": {"query_instruction": None}},
            {"text": "hi", "kind": "query", "options": {"query_instruction": "cat",
                                                       "query_instruction_format": "{} {}"}}, {"text": "cat hi"}])
        self.assertEqual(rows[1]["dense"], rows[2]["dense"])
        self.assertEqual(rows[0]["dense"], rows[3]["dense"])
        self.assertEqual(rows[4]["dense"], rows[5]["dense"])
        self.assertNotEqual(rows[0]["dense"], rows[1]["dense"])

    def test_lengths_and_columns(self):
        rows = self.embed(items=[{"text": "cat " * 50, "options": {"max_length": 10}}, {"text": "cat"}])
        self.assertEqual((rows[0]["tokens"], rows[0]["truncated"]), (10, True))
        cut = self.embed("--truncate-dim", "4", "--no-normalize", items=[{"text": "cat"}])[0]["dense"]
        whole = self.embed("--no-normalize", items=[{"text": "cat"}])[0]["dense"]
        self.assertEqual(cut, whole[:4])
        mean = self.embed("--pooling", "mean", items=[{"text": "cat"}])[0]["dense"]
        self.assertNotEqual(mean, rows[1]["dense"])

    def test_what_a_numpy_file_does_not_hold(self):
        for option in (("--outputs", "dense,sparse"), ("--ids",)):
            code, _, err = self.run_terse("embed", "--model", self.embedder, "--npy", self.folder / "x", *option)
            self.assertEqual(code, 2, err)

    def test_npy(self):
        path = self.folder / "x.npy"
        rows = self.embed("--npy", path, stdin='{"text": "hi"}\nbad\n{"text": "cat"}\n', code=1)
        self.assertEqual([(r["id"], self.error_class(r)) for r in rows], [(1, "json")])
        raw = path.read_bytes()
        self.assertEqual(raw[:8], b"\x93NUMPY\x01\x00")
        (length,) = struct.unpack("<H", raw[8:10])
        self.assertEqual((10 + length) % 64, 0)
        self.assertEqual(eval(raw[10:10 + length]), {"descr": "<f4", "fortran_order": False, "shape": (3, 16)})
        values = struct.unpack("<48f", raw[10 + length:])
        self.assertEqual([float(f"{v:.9g}") for v in values[32:]], self.embed(items=[{"text": "cat"}])[0]["dense"])
        self.assertTrue(all(math.isnan(v) for v in values[16:32]))

    def test_outputs_of_other_models(self):
        self.refused("unsupported", "embed", "--model", self.embedder, "--outputs", "dense,sparse",
                     stdin='{"text": "hi"}\n')
        self.refused("range", "embed", "--model", self.embedder, "--outputs", "dense,x", code=2)


class Similarity(CommandTest):
    def test_dot_products(self):
        vectors = self.rows("embed", "--model", self.embedder, items=[{"text": t} for t in ("hi", "cat", "mat")])
        dots = [sum(a * b for a, b in zip(vectors[0]["dense"], v["dense"])) for v in vectors]
        rows = self.rows("similarity", "--model", self.embedder,
                         items=[{"query": "hi", "passages": ["hi", "cat"]}, {"query": "hi"}, pair("hi", "mat")], code=1)
        self.assertEqual([(r["id"], r.get("index")) for r in rows], [(0, 0), (0, 1), (1, None), (2, None)])
        for row, dot in zip([rows[0], rows[1], rows[3]], dots):
            self.assertAlmostEqual(row["score"], dot, places=6)

    def test_query_length(self):
        args = ("similarity", "--model", self.embedder)
        rows = self.rows(*args, "--query-max-length", "4", items=[pair("hi cat mat sat on", "hi")])
        same = self.rows(*args, items=[pair("hi cat", "hi")])
        self.assertEqual(rows[0]["score"], same[0]["score"])
        self.assertIs(rows[0]["truncated"], True)

    def test_modes_of_bge_m3(self):
        folder = shared("models/tiny-bge-m3")
        if folder is None:
            self.skipTest("no reference data")
        args = ("similarity", "--model", folder, "--weights", "0.4,0.2,0.4")
        scores = self.rows(*args, items=[pair()])[0]["scores"]
        self.assertEqual(list(scores), ["dense", "sparse", "colbert", "sparse+dense", "colbert+sparse+dense"])
        mixed = (0.4 * scores["dense"] + 0.2 * scores["sparse"] + 0.4 * scores["colbert"]) / 1.0
        self.assertAlmostEqual(scores["colbert+sparse+dense"], mixed, places=6)
        self.refused("range", "similarity", "--model", folder, "--weights", "1,2", code=2)
        self.refused("unsupported", "similarity", "--model", self.embedder, "--weights", "1,1,1")


class Tokenize(CommandTest):
    def tokenize(self, *args, model=None, **kwargs):
        return self.rows("tokenize", "--model", model or self.reranker, *args, **kwargs)

    def test_result(self):
        for model in (self.reranker, self.reranker / "tokenizer.json"):
            row = self.tokenize(model=model, items=[{"text": "what is"}])[0]
            self.assertEqual(row["tokens"], ["<s>", "\u2581what", "\u2581is", "</s>"])
            self.assertEqual(row["ids"], [0, 5, 6, 2])
            self.assertEqual(row["type_ids"], [0, 0, 0, 0])

    def test_pairs_and_lengths(self):
        rows = self.tokenize(items=[{"text": "hi", "pair": "cat cat cat"},
                                    {"text": "hi", "pair": "cat cat cat", "max_length": 6},
                                    {"text": "hi", "pair": "cat cat cat", "max_length": 6, "strategy": "only_second"},
                                    {"text": "hi", "max_length": 0}, {"text": "hi", "pair": None, "strategy": None},
                                    {"query": "hi", "passage": "cat"}], code=1)
        self.assertEqual([len(r.get("ids", [])) for r in rows], [8, 6, 6, 0, 3, 6])
        self.assertEqual(self.error_class(rows[3]), "range")
        row = self.tokenize(model=self.embedder, items=[{"text": "hi", "pair": "cat"}])[0]
        self.assertEqual(row["type_ids"], [0, 0, 0, 1, 1])
        rows = self.tokenize(model=self.reranker / "tokenizer.json", items=[{"query": "a", "passage": "b"}], code=1)
        self.assertEqual(self.error_class(rows[0]), "unsupported")

    def test_options_that_a_model_layout_does_not_take(self):
        for option in ("--no-special", "--special-as-text"):
            rows = self.tokenize(option, items=[{"query": "hi", "passage": "cat"}], code=1)
            self.assertEqual(self.error_class(rows[0]), "unsupported")

    def test_model_layout(self):
        row = self.tokenize(items=[pair()])[0]
        self.assertEqual(row["ids"], self.score("--ids", items=[pair()])[0]["input_ids"])

    def test_special_tokens(self):
        self.assertEqual(self.tokenize("--no-special", items=[{"text": "hi"}])[0]["tokens"], ["\u2581hi"])
        for option, tokens in ((), ["hi", "[SEP]"]), (("--special-as-text",), ["hi", "[UNK]", "s", "##e", "##p", "[UNK]"]):
            row = self.tokenize("--no-special", *option, model=self.embedder, items=[{"text": "hi[SEP]"}])[0]
            self.assertEqual(row["tokens"], tokens)

    def test_whole_input(self):
        rows = self.tokenize("--input-format", "whole", stdin="hi\ncat\0x\n")
        self.assertEqual(len(rows), 1)
        rows = self.tokenize("--input-format", "text", stdin="hi\n\ncat")
        self.assertEqual(len(rows), 3)
        rows = self.tokenize("--input-format", "whole", stdin=b"hi \xc3", code=1)
        self.assertEqual(self.error_class(rows[0]), "utf8")
        rows = self.tokenize("--input-format", "whole", stdin=b"a" * (1 + (16 << 20)), code=1)
        self.assertEqual(self.error_class(rows[0]), "limit")


class Inspect(CommandTest):
    def inspect(self, *args):
        return self.rows("inspect", "--json", *args)

    def test_folder(self):
        row = self.inspect(self.reranker)[0]
        self.assertEqual((row["kind"], row["role"], row["model_type"]), ("model folder", "reranker", "xlm-roberta"))
        self.assertEqual((row["num_hidden_layers"], row["hidden_size"], row["unread"]), (2, 16, []))
        tensors = read_safetensors(self.reranker / "model.safetensors")
        self.assertEqual(row["parameters"], sum(len(values) for _, values in tensors.values()))
        self.assertEqual(row["bytes"], 4 * row["parameters"])
        self.assertEqual(self.inspect(self.embedder)[0]["role"], "embedder")

    def test_single_files(self):
        copies = {"tokenizer.json": "t.json", "config.json": "c.json", "model.safetensors": "weights"}
        for name, copy in copies.items():
            shutil.copy(self.reranker / name, self.folder / copy)
        kinds = {"tokenizer.json": "tokenizer", "config.json": "config", "model.safetensors": "tensors"}
        for name, kind in kinds.items():
            rows = self.inspect(self.reranker / name, self.folder / copies[name])
            self.assertEqual([r["kind"] for r in rows], [kind, kind])

    def test_human_text(self):
        code, out, _ = self.run_terse("inspect", self.reranker, self.embedder)
        self.assertEqual(code, 0)
        self.assertIn("xlm-roberta", out)

    def test_faults(self):
        self.refused("io", "inspect", self.folder / "absent")
        tensors = read_safetensors(self.reranker / "model.safetensors")
        folder = shutil.copytree(self.reranker, self.folder / "m")
        name = "roberta.encoder.layer.1.output.dense.weight"
        shape, values = tensors[name]
        write_safetensors(folder / "model.safetensors", {**tensors, "extra": ([1], [0.0])})
        self.assertEqual(self.inspect(folder)[0]["unread"], ["extra"])
        write_safetensors(folder / "model.safetensors", {k: v for k, v in tensors.items() if k != name})
        self.refused("missing_tensor", "inspect", folder)
        write_safetensors(folder / "model.safetensors", {**tensors, name: (shape[::-1], values)})
        self.refused("shape_mismatch", "inspect", folder)
        write_safetensors(folder / "model.safetensors", {**tensors, name: (shape, [math.nan] + values[1:])})
        self.assertEqual(len(self.inspect(folder)), 1)
        self.refused("nonfinite", "inspect", "--check-weights", folder)
        rows = self.rows("score", "--model", folder, items=[pair()], code=1)
        self.assertEqual(self.error_class(rows[0]), "nonfinite")
        self.assertIn("encoder.layer.1.output", rows[0]["error"]["message"])

    def test_one_bad_path_of_several(self):
        code, out, err = self.run_terse("inspect", "--json", self.folder / "absent", self.reranker)
        self.assertEqual((code, len(out.splitlines())), (3, 1))
        self.assertTrue(err.startswith("terse: error: io: "))


class Trace(CommandTest):
    def test_tensors(self):
        path = self.folder / "trace.safetensors"
        code, _, err = self.run_terse("trace", "--model", self.reranker, "--query", "hi", "--passage", "cat",
                                      "--output", path)
        self.assertEqual(code, 0, err)
        tensors = read_safetensors(path)
        self.assertEqual(tensors["embeddings"][0], [6, 16])
        self.assertIn("encoder.layer.1.output", tensors)
        code, _, err = self.run_terse("trace", "--model", self.embedder, "--text", "hi cat", "--output", path)
        self.assertEqual(code, 0, err)
        self.assertEqual(read_safetensors(path)["embeddings"][0], [4, 16])

    def test_options_without_effect_are_refused(self):
        for option in (("--prompt", "p"), ("--query-instruction", "x"), ("--normalize",)):
            self.refused("unsupported", "trace", "--model", self.embedder, "--text", "hi", *option,
                         "--output", self.folder / "x")

    def test_wrong_usage(self):
        for args in (("--text", "hi"), ("--query", "hi"), ()):
            code, _, _ = self.run_terse("trace", "--model", self.reranker, "--output", self.folder / "x", *args)
            self.assertEqual(code, 2, args)


def shared(name):
    """A file or folder of the reference data, or None."""
    root = os.environ.get("TERSE_SHARED") or pathlib.Path(__file__).resolve().parent.parent.parent / "shared"
    path = pathlib.Path(root) / name
    return path if path.exists() else None


if __name__ == "__main__":
    arguments = sys.argv[1:]
    at = arguments.index("--bin")
    BINARY = os.path.abspath(arguments[at + 1])
    unittest.main(argv=[sys.argv[0], *arguments[:at], *arguments[at + 2:]])
