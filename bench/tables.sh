#!/bin/sh
# Prints every table of bench/README.md, as measured on this machine now.
#
#   bench/tables.sh [BUILD]     BUILD: a build folder with TERSE_BUILD_BENCH=ON [build/bench];
#                               MODELS: where made-up models are kept [/tmp/terse-bench]
set -eu
build=${1:-build/bench}
models=${MODELS:-/tmp/terse-bench}
terse=$build/terse
here=$(dirname "$0")
mkdir -p "$models"

model() {  # NAME OPTIONS...: makes it once
  name=$1
  shift
  [ -d "$models/$name" ] || "$terse" synth --out "$models/$name" "$@" >&2
}
packed() {  # NAME DTYPE
  [ -f "$models/$1.$2.terse" ] || "$terse" pack --model "$models/$1" --dtype "$2" \
    --out "$models/$1.$2.terse" >&2
}

echo "## Machine"
echo
"$terse" version --json
grep -m1 "model name" /proc/cpuinfo || true
echo "load: $(cut -d' ' -f1-3 /proc/loadavg), processors: $(nproc)"

echo
echo "## GEMM ladder"
echo
"$build/bench/bench_gemm_ladder"
echo
echo "## Attention ladder"
echo
"$build/bench/bench_attention_ladder"

echo
echo "## Ops"
echo
"$build/bench/bench_ops" --benchmark_min_time=0.2 --benchmark_format=json 2>/dev/null |
  python3 "$here/table.py" ops

echo
echo "## Whole models"
echo
tokenizer=${TOKENIZER:+--tokenizer $TOKENIZER}
# shellcheck disable=SC2086  # the option and its value are two words
for name in bge-reranker-base bge-reranker-large; do
  model $name --like $name $tokenizer
  for dtype in f32 bf16; do
    for threads in 1 2; do
      for workload in W1 W2 W3; do
        "$terse" bench --model "$models/$name" --dtype $dtype --threads $threads \
          --workload $workload --rounds 5 --json
      done
    done
  done
done | python3 "$here/table.py" models

echo
echo "## Start"
echo
for name in bge-reranker-base bge-reranker-large; do
  for dtype in f32 bf16; do
    packed $name $dtype
    python3 "$here/start.py" --terse "$terse" --dtype $dtype "$models/$name" \
      "$models/$name.$dtype.terse"
  done
done
