#!/usr/bin/env python3
"""Holds the command `terse` to its contract, from outside: usage, inspect and trace.

    test_command.py --bin build/terse [unittest arguments]
"""

import json
import math
import shutil

import command_test
from command_test import CommandTest, pair
from tiny_models import read_safetensors, write_safetensors


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


if __name__ == "__main__":
    command_test.main()
