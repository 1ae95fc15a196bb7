"""What the tests of the command share: a base class, and models and pairs made here."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

from tiny_models import write_embedder, write_reranker

TIMEOUT_S = 120  # for builds with sanitizers on a busy machine
CLASSES = {"io", "truncated", "limit", "json", "utf8", "schema", "type", "missing", "range", "dtype", "shape",
           "overflow", "offsets", "coverage", "duplicate", "path", "missing_tensor", "shape_mismatch",
           "unsupported", "protobuf", "tokenizer", "nonfinite", "busy", "cancelled", "memory", "device"}


class CommandTest(unittest.TestCase):
    """A test with a folder of its own, a reranker and an embedder."""
    binary = ""

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
        r = subprocess.run([self.binary, *map(str, args)], input=data, stdout=stdout, stderr=subprocess.PIPE,
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
        process = subprocess.Popen([self.binary, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
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


def shared(name):
    """A file or folder of the reference data, or None."""
    root = os.environ.get("TERSE_SHARED") or pathlib.Path(__file__).resolve().parent.parent.parent / "shared"
    path = pathlib.Path(root) / name
    return path if path.exists() else None


def main():
    """Runs the tests of the program that was started: --bin and unittest's arguments."""
    arguments = sys.argv[1:]
    at = arguments.index("--bin")
    CommandTest.binary = os.path.abspath(arguments[at + 1])
    unittest.main(argv=[sys.argv[0], *arguments[:at], *arguments[at + 2:]])
