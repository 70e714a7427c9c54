#!/usr/bin/env bash
# Fills docs/results/performance.md on one GPU, in at most 40 minutes: attention alone, blocks, a training step and
# sampling of the 30B model with as many layers as fit, the autoencoder, and PyTorch beside them where it is
# installed. Writes OUT/NAME.json, OUT/NAME.txt and the table OUT/matrix.md; what fails stands in it as well.
#
#   bash launch/recipes/gpu_matrix.sh [OUT] [FLAGS]...     OUT=out/gpu_matrix
# WAN=1.3b measures Wan beside diffusers in place of the 30B model: STEPS=4 guided steps, decoding, and training steps
# of adapters, also of 14b with as many layers as fit.
#
# FLAGS go to every run of a model. A rehearsal without a GPU: LONG=configs/bench/cpu.py
# SHORT=configs/bench/cpu.py AUTOENCODER=configs/digits/autoencoder.py, and flags that make it small.
set -uo pipefail
out=${1:-out/gpu_matrix}
shift || true
flags=("$@")
long=${LONG:-configs/bench/h200.py:73728}
short=${SHORT:-configs/bench/h200.py:8192}
autoencoder=${AUTOENCODER:-configs/tae/tae.py}
oracles=tests/oracles
mkdir -p "$out"

python() { command "${PYTHON:-python}" "$@"; }
bench() {  # NAME SECONDS CONFIG FLAGS...: one run, in no more than so many seconds
  local name=$1 seconds=$2 config=$3
  rm -f "$out/$name.json"
  echo "$name"
  timeout "$seconds" "${PYTHON:-python}" -m launch.bench --config="$config" "${@:4}" \
    --out="$out/$name.json" >"$out/$name.txt" 2>&1
  local outcome=$?
  if [[ $outcome == 124 ]]; then echo "took more than $seconds seconds" >>"$out/$name.txt"; fi
}

visible=${CUDA_VISIBLE_DEVICES:-0}
export CUDA_VISIBLE_DEVICES=${visible%%,*}  # of several GPUs one: PyTorch beside ours has one too
# Memory of one process: all of it where JAX is alone, what it needs where it shares with PyTorch.
export XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_CLIENT_MEM_FRACTION=.95
torch=()
if python -c 'import torch' 2>/dev/null; then torch=(yes); fi
attention=(--what=attention --baseline=jax.nn ${torch:+--baseline=$oracles/torch_attention.py})
beside=(${torch:+--baseline=$oracles/torch_backbone.py})

if [[ ${WAN:-} ]]; then
  wan=configs/wan/text_to_video.py
  diffusers=()
  if python -c 'import diffusers' 2>/dev/null; then diffusers=(--baseline=$oracles/diffusers_wan_speed.py); fi
  export XLA_CLIENT_MEM_FRACTION=.5
  bench wan_1_sample 400 "$wan:$WAN" --what=sample --config.sample.steps="${STEPS:-4}" --rounds=2 "${diffusers[@]}" \
    "${flags[@]}"
  bench wan_2_decode 200 configs/wan/autoencoder.py --what=decode --rounds=2 --video="${VIDEO:-1,81,480,832}" \
    "${diffusers[@]}"
  export XLA_CLIENT_MEM_FRACTION=.95
  bench wan_3_adapters 150 "$wan:$WAN,lora" --what=step --config.lora.weights=bfloat16 "${flags[@]}"
  bench wan_4_adapters_14b 200 "$wan:${LARGE:-14b},lora" --what=step --layers=0 --config.lora.weights=bfloat16 \
    "${flags[@]}"
  python -m launch.bench --table="$out" | tee "$out/matrix.md"
  compgen -G "$out/*.json" >/dev/null
  exit
fi

bench 01_attention_long 200 "$long" "${attention[@]}" "${flags[@]}"
bench 02_attention_short 120 "$short" "${attention[@]}" "${flags[@]}"
bench 03_step_long 420 "$long" --what=step --layers=0 "${flags[@]}"
bench 04_step_short 320 "$short" --what=step --layers=0 "${flags[@]}"
bench 05_blocks_long 360 "$long" --what=blocks --layers=0 "${flags[@]}"
export XLA_CLIENT_MEM_FRACTION=.5
bench 06_blocks_two 300 "$long" --what=blocks --layers=2 "${beside[@]}" "${flags[@]}"
bench 07_sample_two 300 "$long" --what=sample --layers=2 --config.sample.steps=4 "${beside[@]}" "${flags[@]}"
bench 08_encode 150 "$autoencoder" --what=encode --rounds=3 ${VIDEO:+--video=$VIDEO}
bench 09_decode 150 "$autoencoder" --what=decode --rounds=3 ${VIDEO:+--video=$VIDEO}

python -m launch.bench --table="$out" | tee "$out/matrix.md"
compgen -G "$out/*.json" >/dev/null  # nothing measured is a failure
