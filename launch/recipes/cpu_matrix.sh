#!/usr/bin/env bash
# Fills the CPU's tables of docs/results/performance.md: training steps of 22M and 44M parameters on one and on two
# cores, the layers forward and backward, sampling and the autoencoder, in turns with PyTorch, eager and
# compiled, where it is installed (`make oracle`). Writes OUT/NAME.json, OUT/NAME.txt and OUT/matrix.md with
# the machine and the date; about an hour.
#
#   bash launch/recipes/cpu_matrix.sh [OUT] [FLAGS]...     OUT=out/cpu_matrix; FLAGS go to every run of a model
set -uo pipefail
out=${1:-out/cpu_matrix}
shift || true
oracles=tests/oracles
mkdir -p "$out"

python() { command "${PYTHON:-python}" "$@"; }
bench() {  # NAME CORES FLAGS...: one run on these cores
  rm -f "$out/$1.json"
  echo "$1"
  taskset -c "$2" "${PYTHON:-python}" -m launch.bench "${@:3}" --out="$out/$1.json" >"$out/$1.txt" 2>&1
}

backbone=() autoencoder=()
if python -c 'import torch' 2>/dev/null; then
  backbone=(--baseline=$oracles/torch_backbone.py) autoencoder=(--baseline=$oracles/torch_autoencoder.py)
fi
model=configs/bench/cpu.py
for cores in 0 0,1; do
  on=${cores//,/}
  bench "step_22m_cores_$on" $cores --config=$model --layers=4 "${backbone[@]}" "$@"
  bench "step_44m_cores_$on" $cores --config=$model "${backbone[@]}" "$@"
  bench "layers_22m_cores_$on" $cores --config=$model --layers=4 --what=blocks "${backbone[@]}" "$@"
done
bench sample_44m 0 --config=$model --what=sample --latents=1,4,32,32,16 --config.sample.steps=8 \
  --rounds=3 "${backbone[@]}" "$@"
bench sample_digits 0 --config=configs/digits/video.py --what=sample --latents=1,2,8,8,16 --rounds=20 \
  "${backbone[@]}"
for what in encode decode; do
  bench "$what" 0 --config=configs/bench/tae_cpu.py --what=$what --rounds=3 "${autoencoder[@]}"
done

python -m launch.bench --table="$out" | tee "$out/matrix.md"
compgen -G "$out/*.json" >/dev/null  # nothing measured is a failure
