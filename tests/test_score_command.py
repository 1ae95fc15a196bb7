#!/usr/bin/env python3
"""Holds `terse score`, and what commands do with streams, files and signals, to its contract, from outside.

    test_score_command.py --bin build/terse [unittest arguments]
"""

import json
import math
import os
import pathlib
import signal
import struct
import time
import unittest

import command_test
from command_test import CommandTest, TIMEOUT_S, pair, random_pairs, shared
from tiny_models import write_reranker


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
            while not pathlib.Path(f"/proc/{process.pid}/exe").resolve().name == pathlib.Path(self.binary).name:
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


if __name__ == "__main__":
    command_test.main()
