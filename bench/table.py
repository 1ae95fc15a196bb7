#!/usr/bin/env python3
"""Turns what the benchmarks print as JSON into tables: table.py ops|models < JSON"""
import json
import sys


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def ops(document):
    row("op", "type", "shape", "GFLOP/s", "share of probe", "GB/s")
    row(*["---"] * 6)
    for run in document["benchmarks"]:
        name, dtype, *shape = run["name"].split("/")
        share = f"{100 * run['share']:.0f} %" if "share" in run else ""
        gflops = f"{run['GFLOP/s']:.1f}" if "GFLOP/s" in run else ""
        rate = f"{run['GB/s']:.1f}" if "GB/s" in run else ""
        row(name, dtype, "x".join(shape), gflops, share, rate)


def models(lines):
    row("model", "type", "threads", "workload", "pairs/s", "tokens/s", "share of probe",
        "of processor time", "p50 ms", "p95 ms", "load ms", "tokenize ms", "forward ms", "RSS MB",
        "computed per token", "clean")
    row(*["---"] * 16)
    for line in lines:
        run = json.loads(line)
        row(run["model"].rsplit("/", 1)[-1], run["dtype"], run["threads"], run["workload"],
            f"{run['pairs_per_s']:.2f}", f"{run['tokens_per_s']:.0f}",
            f"{100 * run['share_of_probe']:.1f} %", f"{100 * run['share_of_processor_time']:.1f} %",
            f"{run['latency_p50_ms']:.0f}", f"{run['latency_p95_ms']:.0f}",
            f"{run['load_ms']:.0f}", f"{run['tokenize_ms']:.1f}", f"{run['forward_ms']:.0f}",
            f"{run['peak_rss_mb']:.0f}", f"{run['computed_per_token']:.3f}",
            f"{run['clean']}/{run['rounds']}")


if __name__ == "__main__":
    if sys.argv[1:] == ["ops"]:
        ops(json.load(sys.stdin))
    elif sys.argv[1:] == ["models"]:
        models(sys.stdin)
    else:
        sys.exit(__doc__)
