#!/usr/bin/env python3
"""The static checks on kernels whose instructions are known, and on faults that they must find.

    test_static.py --nvcc PROGRAM --ptxas PROGRAM --occupancy PROGRAM --samples PTX
"""
import argparse
import collections
import pathlib
import subprocess
import sys
import tempfile
import unittest

import check_static
import cubin

ARGUMENTS = argparse.Namespace()

LOCAL_MEMORY = """
__global__ void local_memory(const int* in, int* out) {
  int table[64];
  for (int i = 0; i < 64; ++i) table[i] = in[i] * in[i + 64];
  for (int i = 0; i < 64; ++i) out[i] = table[in[128 + i] & 63];
}
"""


class Samples(unittest.TestCase):
    """tests/cuda/ptx/samples.cu: the table of opcodes holds on both architectures."""

    def test_counts_are_those_of_the_ptx(self):
        wanted = cubin.ptx_counts(pathlib.Path(ARGUMENTS.samples).read_text(encoding="utf-8"))
        for architecture in ("80", "90"):
            binary, log = cubin.assemble(ARGUMENTS.ptxas, architecture, ARGUMENTS.samples)
            counts = cubin.instruction_counts(binary)
            self.assertEqual(set(counts), set(wanted))
            self.assertEqual(set(counts), set(cubin.resources(log)))
            total = collections.Counter()
            for name, kernel in counts.items():
                total.update(kernel)
                for opcode in cubin.COUNTERPARTS:
                    self.assertEqual(kernel[opcode], wanted[name][opcode], (name, opcode))
            for opcode in (*cubin.COUNTERPARTS, "LDG", "STG", "LDS", "STS", "FFMA", "MUFU"):
                self.assertGreater(total[opcode], 0, opcode)
            self.assertEqual(total["LDL"] + total["STL"], 0)

    def test_what_the_source_says(self):
        names = cubin.readable(list(cubin.ptx_counts(
            pathlib.Path(ARGUMENTS.samples).read_text(encoding="utf-8"))))
        binary, log = cubin.assemble(ARGUMENTS.ptxas, "80", ARGUMENTS.samples)
        kernels = {names[name]: counts for name, counts in cubin.instruction_counts(binary).items()}
        used = {names[name]: values for name, values in cubin.resources(log).items()}
        matmul = kernels["matmul_kernel<bf16>"]
        # Two steps of 16 a tile, and two barriers; nothing else of the kind.
        self.assertEqual((matmul["HMMA"], matmul["LDSM"], matmul["BAR"]), (2, 4, 2))
        self.assertEqual(used["matmul_kernel<bf16>"]["shared_bytes"], 2 * (64 + 8) * 40 * 2)
        self.assertEqual(kernels["sum_kernel"]["SHFL"], 5)
        self.assertEqual(kernels["sum_kernel"]["BAR"], 1)


class Faults(unittest.TestCase):
    """What must be refused."""

    def test_local_memory(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "local.cu"
            ptx = pathlib.Path(folder) / "local.ptx"
            source.write_text(LOCAL_MEMORY, encoding="utf-8")
            subprocess.run([ARGUMENTS.nvcc, "-ptx", "-arch=compute_80", source, "-o", ptx],
                           check=True)
            with self.assertRaisesRegex(cubin.BadFile, "Local memory"):
                cubin.assemble(ARGUMENTS.ptxas, "80", ptx)

    def test_each_limit(self):
        kernel = {"sass": collections.Counter(HMMA=4, BAR=1), "registers": 40, "shared_bytes": 512,
                  "ptx": collections.Counter(HMMA=4, BAR=1), "local_bytes": 0, "threads": 128,
                  "blocks_per_sm": 4, "dynamic_shared_bytes": 0}
        entry = {"threads": 128, "required": ["HMMA"], "forbidden": [], "dynamic_shared_bytes": 0}
        limit = {"max_registers": 40, "shared_bytes": 512, "min_blocks_per_sm": 4}
        self.assertEqual(list(check_static.faults_of(kernel, entry, limit)), [])
        for change, in_limits, text in (
                ({"registers": 41}, {}, "registers"), ({"shared_bytes": 513}, {}, "shared memory"),
                ({"blocks_per_sm": 3}, {}, "blocks a multiprocessor"),
                ({"local_bytes": 8}, {}, "stack and spills"), ({"threads": 256}, {}, "launch bounds"),
                ({"sass": collections.Counter(HMMA=3, BAR=1)}, {}, "3 HMMA for 4"),
                ({"sass": collections.Counter(HMMA=4, BAR=1, LDL=1)}, {}, "LDL"),
                ({"sass": collections.Counter(HMMA=4, BAR=1, STL=2)}, {}, "STL"),
                ({}, {"required": ["LDGSTS"]}, "no LDGSTS"), ({}, {"forbidden": ["BAR"]}, "1 BAR")):
            faults = list(check_static.faults_of({**kernel, **change}, {**entry, **in_limits}, limit))
            self.assertEqual(len(faults), 1, (change, in_limits))
            self.assertIn(text, faults[0])
        self.assertEqual(list(check_static.faults_of(kernel, entry, None)),
                         ["no limits for this architecture"])
        self.assertEqual(check_static.check({"80": {"a": kernel}}, {"b": entry}),
                         ["a: not in the limits", "b: in the limits, but no such kernel"])

    def test_files_that_are_no_cubin(self):
        for data in (b"", b"\x7fELF", b"x" * 100):
            with self.assertRaises(cubin.BadFile):
                cubin.instruction_counts(data)
        with self.assertRaises(cubin.BadFile):
            cubin.resources("nothing")

    def test_occupancy_by_hand(self):
        # 65,536 registers: 32 a thread fill the 2,048 threads, 128 a quarter of them, and 255 are
        # taken as 256; 164 KiB hold three blocks of 48 KiB with the 1 KiB each that is reserved.
        self.assertEqual(check_static.blocks_per_sm(
            ARGUMENTS.occupancy, [(80, 128, 32, 0, 0), (80, 128, 128, 0, 0), (90, 256, 255, 0, 0),
                                  (80, 128, 32, 0, 49152), (90, 128, 32, 49152, 0)]),
                         [16, 4, 1, 3, 4])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--nvcc", "--ptxas", "--occupancy", "--samples"):
        parser.add_argument(option, required=True)
    parser.parse_args(namespace=ARGUMENTS)
    unittest.main(argv=sys.argv[:1])
