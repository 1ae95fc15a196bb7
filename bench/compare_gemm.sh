#!/bin/sh
# The library's matrix products and oneDNN's (as PyTorch calls it with packed weights), one thread,
# shape by shape in turn. Needs the peers' scripts and environment, as compare.sh does.
#
#   bench/compare_gemm.sh [BUILD]     a build folder with TERSE_BUILD_BENCH=ON [build/bench]
#
# SHAPES   N x K of the weights   [768x768,3072x768,768x3072,1024x1024,4096x1024,1024x4096]
# HEIGHTS  M                      [64,256,512]
# PEERS    folder of the scripts  [../shared/peers]
set -eu
build=${1:-build/bench}
peers=${PEERS:-../shared/peers}
shapes=${SHAPES:-768x768,3072x768,768x3072,1024x1024,4096x1024,1024x4096}
heights=${HEIGHTS:-64,256,512}
if [ ! -f "$peers/gemm.py" ] || ! python3 -c "import torch" 2> /dev/null; then
  echo "skipped: no scripts of the peers at $peers, or not their environment"
  exit 0
fi
for shape in $(echo "$shapes" | tr , ' '); do
  "$build/bench/bench_gemm" "$shape" "$heights"
  python3 "$peers/gemm.py" --shapes "$shape" --m "$heights" \
    --kinds f32-onednn,bf16-onednn,int8-onednn | grep '^| [0-9N]'
done
