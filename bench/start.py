#!/usr/bin/env python3
"""Time from starting the command to its end with one score of one pair of about 128 tokens.

    start.py --terse BINARY [--dtype f32] [--runs 20] MODEL...

Wall time, processor time (user and system) and peak memory of whole processes, the page cache
warm: of each the least and the median of the runs, which take turns over the models.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

PAIR = json.dumps({"query": "what is panda?", "passage": "The giant panda" + " is a bear species"
                   " endemic to China" * 12}) + "\n"


def run(command):
    """Seconds of wall and processor time, and MB of peak memory."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(PAIR.encode())
    process.stdin.close()
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status) != 0 or b'"score"' not in answer:
        raise SystemExit(f"{command}: {answer!r}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--terse", required=True)
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    samples = {model: [] for model in args.models}
    for turn in range(args.runs + 1):
        for model in args.models:
            sample = run([args.terse, "score", "--model", model, "--dtype", args.dtype,
                          "--threads", args.threads])
            if turn > 0:  # the first fills the page cache
                samples[model].append(sample)
    print("| model | wall ms: least, median | processor ms: least, median | peak MB |")
    print("|---|---|---|---|")
    for model, runs in samples.items():
        wall, processor, memory = zip(*runs)
        print(f"| {os.path.basename(model)} | {1e3 * min(wall):.0f}, "
              f"{1e3 * statistics.median(wall):.0f} | {1e3 * min(processor):.0f}, "
              f"{1e3 * statistics.median(processor):.0f} | {max(memory):.0f} |")


if __name__ == "__main__":
    main()
