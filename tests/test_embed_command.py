#!/usr/bin/env python3
"""Holds `terse embed`, `similarity` and `tokenize` to their contract, from outside.

    test_embed_command.py --bin build/terse [unittest arguments]
"""

import math
import struct

import command_test
from command_test import CommandTest, pair, shared


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


if __name__ == "__main__":
    command_test.main()
