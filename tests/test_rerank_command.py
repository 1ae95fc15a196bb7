#!/usr/bin/env python3
"""Holds `terse rerank` to its contract, from outside.

    test_rerank_command.py --bin build/terse [unittest arguments]
"""

import json

import command_test
from command_test import CommandTest, pair


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


if __name__ == "__main__":
    command_test.main()
