#!/bin/sh
# Puts terse beside the other CPU rerankers, in one run with passes taking turns. The scripts that
# run them are no part of this project: without them, and without the environment that their
# setup.sh makes, this says so and ends.
#
#   bench/compare.sh [base|large] [W1..W5]     [base W1]
#
# TERSE    the command                        [build/release/terse]
# PEERS    folder of the scripts              [../shared/peers]
# NAMES    peers, as the scripts call them    [torch-bf16,ort-int8,ov-bf16,ov-int8]
# DTYPES   types of terse                     [f32 bf16]
# WORK     where models and results go        [/tmp/terse-compare]
set -eu
shape=${1:-base}
workload=${2:-W1}
peers=${PEERS:-../shared/peers}
names=${NAMES:-torch-bf16,ort-int8,ov-bf16,ov-int8}
work=${WORK:-/tmp/terse-compare}

if [ ! -f "$peers/peers.py" ]; then
  echo "skipped: no scripts of the peers at $peers"
  exit 0
fi
if ! python3 -c "import torch, transformers" 2>/dev/null; then
  echo "skipped: no environment of the peers: $peers/setup.sh DIR makes one, activate it"
  exit 0
fi
terse=$(realpath "${TERSE:-build/release/terse}")
mkdir -p "$work"
cd "$peers"
[ -d "$work/$shape" ] || python3 make_model.py --shape "$shape" --out "$work/$shape"
pairs=$work/$workload.jsonl
[ -f "$pairs" ] || python3 workload.py "$workload" --out "$pairs"
case $names in
  *ort*|*ov*) python3 convert.py "$work/$shape" onnx openvino --work "$pairs" ;;
esac
set --
for dtype in ${DTYPES:-f32 bf16}; do
  packed=$work/$shape.$dtype.terse
  [ -f "$packed" ] || "$terse" pack --model "$work/$shape" --dtype "$dtype" --out "$packed"
  set -- "$@" --command "terse-$dtype=$terse score --threads {threads} --model $packed"
done
python3 peers.py bench --model "$work/$shape" --work "$pairs" --peers "$names" \
  --out "$work/$shape-$workload.jsonl" "$@"
