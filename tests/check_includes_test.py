#!/usr/bin/env python3
"""Shows that check_includes.py finds what it is there to find, and nothing else."""
import unittest

from check_includes import breaches


def found_in(path, *lines):
    return breaches(path, "\n".join(("#pragma once", *lines)))


class CheckIncludes(unittest.TestCase):
    def assert_breach(self, path, *lines):
        self.assertEqual(len(found_in(path, *lines)), 1, (path, lines))

    def assert_clean(self, path, *lines):
        self.assertEqual(found_in(path, *lines), [])

    def test_layers(self):
        self.assert_clean("include/terse/tensor.h", '#include "terse/dtype.h"')
        self.assert_breach("include/terse/dtype.h", '#include "terse/tensor.h"')
        self.assert_breach("include/terse/ops/backend.h", '#include "terse/layers/linear.h"')
        self.assert_clean("include/terse/layers/norm.h", '#include "terse/layers/linear.h"')
        self.assert_breach("include/terse/layers/linear.h", '#include "terse/layers/norm.h"')
        self.assert_breach("include/terse/weights.h", '#include "terse/rerank.h"')

    def test_models(self):
        self.assert_clean("include/terse/models/bert_reranker.h", '#include "terse/models/bert.h"')
        self.assert_breach("include/terse/models/gemma2.h", '#include "terse/models/bert.h"')
        self.assert_breach("include/terse/models/gemma2.h", '#include "terse/models/gemma.h"')
        self.assert_breach("include/terse/models/input.h", '#include "terse/models/bert.h"')
        self.assert_clean("include/terse/models/gemma2.h", '#include "terse/models/input.h"')
        self.assert_clean("include/terse/models/registry.h", '#include "terse/models/bert.h"')
        self.assert_breach("include/terse/models/bert.h", '#include "terse/models/registry.h"')
        self.assert_clean("include/terse/rerank.h", '#include "terse/models/registry.h"')

    def test_tokenizer(self):
        self.assert_clean("include/terse/tokenizer/bpe.h", '#include "terse/json.h"')
        self.assert_breach("include/terse/tokenizer/bpe.h", '#include "terse/tensor.h"')

    def test_public(self):
        self.assert_clean("include/terse/embed.h", '#include "terse/rerank.h"')
        self.assert_breach("include/terse/rerank.h", '#include "terse/terse.h"')
        self.assert_clean("include/terse/terse.h", '#include "terse/rerank.h"')
        self.assert_breach("include/terse/rerank.h", '#include "options.h"')

    def test_restricted(self):
        self.assert_breach("include/terse/layers/linear.h", "#include <Eigen/Core>")
        self.assert_breach("include/terse/tensor.h", "#include <immintrin.h>")
        self.assert_clean("include/terse/ops/avx512.h", "#include <immintrin.h>")
        self.assert_clean("include/terse/ops/vector/common.h", "#include <xmmintrin.h>")
        self.assert_breach("include/terse/ops/cuda.h", "#include <cuda_runtime.h>")
        self.assert_breach("include/terse/json.h", "#include <iostream>")
        self.assert_breach("include/terse/json.h", "inline void f() { std::abort(); }")
        self.assert_breach("include/terse/json.h", 'inline auto f() { return std::getenv("X"); }')
        self.assert_breach("tools/main.cpp", "std::regex pattern;")
        self.assert_clean("tools/main.cpp", 'std::cout << "abort()";')
        self.assert_clean("include/terse/json.h", "// never calls abort() or printf()")

    def test_pragma_once(self):
        self.assertEqual(len(breaches("include/terse/json.h", "")), 1)


if __name__ == "__main__":
    unittest.main()
