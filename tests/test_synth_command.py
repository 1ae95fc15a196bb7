#!/usr/bin/env python3
"""Holds `terse synth`, `terse flops` and `terse verify` to their contract, from outside.

    test_synth_command.py --bin build/terse [unittest arguments]
"""

import hashlib
import json
import math
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BINARY = ""
TIMEOUT_S = 240  # for builds with sanitizers on a busy machine

LIGHTWEIGHT = {"model_type": "cost_wise_gemma", "hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16,
               "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 14336, "vocab_size": 256000,
               "max_position_embeddings": 8192, "query_pre_attn_scalar": 256, "layer_wise": True, "start_layer": 8,
               "layer_sep": 1, "torch_dtype": "bfloat16"}


def read_tensors(path):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    raw = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length:]
    return {name: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for name, e in header.items()}


def values(tensor):
    """The first elements of a BF16 or F32 tensor."""
    dtype, _, data = tensor
    data = data[:200000]
    if dtype == "F32":
        return struct.unpack(f"<{len(data) // 4}f", data)
    halves = struct.unpack(f"<{len(data) // 2}H", data)
    return struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(h << 16 for h in halves)))


def mean_and_deviation(sample):
    mean = sum(sample) / len(sample)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in sample) / len(sample))


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


class SynthTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="terse-synth-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_terse(self, *args, stdin=""):
        """(exit code, standard output, standard error)"""
        r = subprocess.run([BINARY, *map(str, args)], input=stdin.encode(), capture_output=True, timeout=TIMEOUT_S)
        return r.returncode, r.stdout.decode(), r.stderr.decode("utf-8", "replace")

    def synth(self, name, *args, like="bge-small-zh-v1.5", layers=1, dtype="bf16"):
        out = self.folder / name
        code, stdout, err = self.run_terse("synth", "--like", like, "--layers", layers, "--dtype", dtype, "--out", out,
                                           *args)
        self.assertEqual((code, stdout), (0, ""), err)
        return out

    def refused(self, code, error_class, *args):
        got, out, err = self.run_terse(*args)
        self.assertEqual((got, out), (code, ""), err)
        self.assertIn(error_class, err.splitlines()[-1])


class Synth(SynthTest):
    def test_the_folder_has_the_published_form(self):
        out = self.synth("a", like="bge-small-en-v1.5", layers=2, dtype="f32")
        self.assertEqual(sorted(digests(out)), ["1_Pooling/config.json", "config.json", "model.safetensors",
                                                "modules.json", "tokenizer.json"])
        config = json.loads((out / "config.json").read_text())
        self.assertEqual((config["model_type"], config["hidden_size"], config["num_hidden_layers"],
                          config["torch_dtype"]), ("bert", 384, 2, "float32"))
        tensors = read_tensors(out / "model.safetensors")
        self.assertEqual(tensors["embeddings.word_embeddings.weight"][:2], ("F32", [30522, 384]))
        self.assertEqual(tensors["encoder.layer.1.intermediate.dense.weight"][:2], ("F32", [1536, 384]))
        self.assertNotIn("encoder.layer.2.intermediate.dense.weight", tensors)

    def test_values_have_the_stated_spread(self):
        tensors = read_tensors(self.synth("a", dtype="bf16") / "model.safetensors")
        for name, mean, deviation in (("embeddings.word_embeddings.weight", 0, 0.02),
                                      ("encoder.layer.0.attention.self.query.weight", 0, 512 ** -0.5),
                                      ("encoder.layer.0.output.dense.weight", 0, 2048 ** -0.5)):
            got_mean, got_deviation = mean_and_deviation(values(tensors[name]))
            self.assertAlmostEqual(got_mean, mean, delta=deviation / 50, msg=name)
            self.assertAlmostEqual(got_deviation / deviation, 1, delta=0.02, msg=name)
        norm, _ = mean_and_deviation(values(tensors["encoder.layer.0.output.LayerNorm.weight"]))
        self.assertAlmostEqual(norm, 1, delta=0.01)

    def test_the_same_seed_gives_the_same_bytes(self):
        first = digests(self.synth("a", "--seed", 5, "--threads", 1))
        self.assertEqual(digests(self.synth("b", "--seed", 5, "--threads", 3)), first)
        other = digests(self.synth("c", "--seed", 6))
        self.assertNotEqual(other["model.safetensors"], first["model.safetensors"])
        self.assertEqual(other["tokenizer.json"], first["tokenizer.json"])

    def test_fewer_layers_are_the_first_ones(self):
        one = read_tensors(self.synth("a", layers=1) / "model.safetensors")
        two = read_tensors(self.synth("b", layers=2) / "model.safetensors")
        self.assertEqual({name: two[name] for name in one}, one)

    def test_it_embeds_a_token_a_byte(self):
        out = self.synth("a")
        texts = ["panda", "大熊猫", "", "x" * 100]
        code, stdout, err = self.run_terse("embed", "--model", out,
                                           stdin="".join(json.dumps({"text": t}) + "\n" for t in texts))
        self.assertEqual(code, 0, err)
        rows = [json.loads(line) for line in stdout.splitlines()]
        self.assertEqual([row["tokens"] for row in rows], [len(t.encode()) + 2 for t in texts])
        for row in rows:
            self.assertAlmostEqual(math.fsum(v * v for v in row["dense"]), 1, places=4)
        self.assertNotEqual(rows[0]["dense"], rows[1]["dense"])

    def test_a_tokenizer_is_copied(self):
        given = self.synth("a") / "tokenizer.json"
        changed = self.folder / "given.json"
        changed.write_text(given.read_text().replace("  ", " "))
        out = self.synth("b", "--tokenizer", changed)
        self.assertEqual((out / "tokenizer.json").read_bytes(), changed.read_bytes())

    def test_refusals_leave_nothing(self):
        small = ("synth", "--like", "bge-small-zh-v1.5", "--layers", 1)
        taken = self.folder / "taken"
        taken.mkdir()
        (taken / "file").write_text("mine")
        self.refused(3, "io", *small, "--out", taken)
        self.assertEqual((taken / "file").read_text(), "mine")
        out = self.folder / "out"
        self.refused(3, "io", *small, "--out", out, "--tokenizer", self.folder / "absent.json")
        self.refused(3, "io", *small, "--out", self.folder / "no" / "such" / "place")
        for wrong in (("--layers", 5), ("--layers", -1), ("--dtype", "int8"), ("--seed", "x"), ("--threads", -1)):
            code, _, err = self.run_terse(*small, "--out", out, *wrong)
            self.assertEqual(code, 2, (wrong, err))
        code, _, err = self.run_terse("synth", "--like", "bge-reranker-v3", "--out", out)
        self.assertEqual(code, 2, err)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["taken"])

    def test_an_empty_folder_is_filled(self):
        (self.folder / "a").mkdir()
        self.assertTrue((self.synth("a") / "config.json").is_file())

    def test_a_signal_leaves_nothing(self):
        process = subprocess.Popen([BINARY, "synth", "--like", "bge-reranker-large", "--out", self.folder / "a"],
                                   stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while not list(self.folder.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
        self.assertEqual(process.returncode, 143, err)
        self.assertEqual(list(self.folder.iterdir()), [])


class Flops(SynthTest):
    def flops(self, *args, config=None):
        path = self.folder / "config.json"
        path.write_text(json.dumps(config or LIGHTWEIGHT))
        code, out, err = self.run_terse("flops", "--model", path, "--json", *args)
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def test_the_published_example(self):
        tokens = ("--query-tokens", 24, "--passage-tokens", 488)
        whole = self.flops(*tokens)
        self.assertAlmostEqual(whole["flops_dense"] / 1e12, 8.704, places=3)
        self.assertEqual((whole["token_layers"], whole["prompt_tokens"], whole["exits"]), (42 * 512, 12, [42]))
        less = self.flops(*tokens, "--cutoff-layers", 25, "--compress-layers", 8, "--compress-ratio", 2)
        self.assertAlmostEqual(less["flops_dense"] / 1e12, 3.525, places=3)
        self.assertAlmostEqual(less["saved_dense"], 0.595, delta=0.0005)
        self.assertAlmostEqual(less["saved_causal"], 0.594, delta=0.0005)
        self.assertEqual(less["token_layers"], 8 * 512 + 17 * 274)
        self.assertEqual(less["whole_model"]["flops_dense"], whole["flops_dense"])
        touched = less["weights_touched"]
        self.assertEqual((touched["dtype"], touched["model_bytes"]), ("bf16", 2 * 9241831424))
        self.assertEqual(touched["layer_bytes"], 2 * 25 * (198180864 + 4 * 3584))

    def test_savings_only_save(self):
        cost = self.flops("--query-tokens", 24, "--passage-tokens", 488)
        figures = [cost, cost["last_row_only"], cost["next_passage_last_row_only"]]
        for more, less in zip(figures, figures[1:]):
            self.assertLess(less["flops_causal"], more["flops_causal"])
        self.assertLess(cost["next_passage_of_query"]["token_layers"], cost["token_layers"])
        self.assertGreater(cost["memory_planned"]["bytes"], cost["memory_planned"]["weight_bytes"])

    def test_real_weights_say_their_type(self):
        out = self.synth("a", dtype="bf16")
        code, stdout, err = self.run_terse("flops", "--model", out, "--query-tokens", 0, "--passage-tokens", 100, "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(stdout)["weights_touched"]["dtype"], "bf16")

    def test_refusals(self):
        path = self.folder / "config.json"
        path.write_text(json.dumps(LIGHTWEIGHT))
        base = ("flops", "--model", path, "--query-tokens", 10)
        self.refused(3, "range", *base, "--passage-tokens", 90, "--cutoff-layers", 7)
        self.refused(3, "range", *base, "--passage-tokens", 90, "--prompt-tokens", 91)
        self.refused(3, "range", *base, "--passage-tokens", -5)
        self.refused(3, "unsupported", "flops", "--model", self.synth("a"), "--query-tokens", 10, "--passage-tokens", 90,
                     "--cutoff-layers", 2)
        code, _, _ = self.run_terse(*base)
        self.assertEqual(code, 2)


class Verify(SynthTest):
    def test_without_published_scores(self):
        out = self.synth("a", like="bge-small-zh-v1.5", layers=4)
        code, stdout, err = self.run_terse("verify", "--model", out)
        self.assertEqual(code, 2, err)
        self.assertIn("recognised as bge-small-zh-v1.5", err)
        self.assertIn("NOT the published file", err)
        rows = [json.loads(line) for line in stdout.splitlines()]
        self.assertEqual(len(rows), 3)
        for row in rows:
            self.assertTrue(-1.0001 <= row["score"] <= 1.0001)
            self.assertNotIn("published", row)

    def test_an_unknown_shape(self):
        code, stdout, err = self.run_terse("verify", "--model", self.synth("a", layers=1))
        self.assertEqual(code, 2, err)
        self.assertIn("no published model", err)
        self.assertEqual(len(stdout.splitlines()), 3)

    def test_a_broken_folder(self):
        self.refused(3, "io", "verify", "--model", self.folder)


def main():
    global BINARY
    if len(sys.argv) < 3 or sys.argv[1] != "--bin":
        sys.exit(__doc__)
    BINARY = str(pathlib.Path(sys.argv[2]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])


if __name__ == "__main__":
    main()
