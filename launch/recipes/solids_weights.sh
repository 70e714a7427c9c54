#!/usr/bin/env bash
# Trains the small models of mgjax/weights/solids again and writes them, on one CPU core in a night;
# then judges each beside the one that ships. What is trained already is not trained again.
#
#   bash launch/recipes/solids_weights.sh [OUT]      OUT=out/weights/solids
set -euo pipefail
out=${1:-out/weights/solids}
export JAX_PLATFORMS=cpu

python() { command "${PYTHON:-python}" "$@"; }
train() { python -m launch.train --config="$1" --workdir="$2" "${@:3}"; }
encode() { python -m launch.data encode --config="$1" --output="$2" "${@:3}"; }
ship() { python -m launch.weights export --format=workdir --workdir="$1" --out="$out/$2" "${@:3}"; }
judge() {  # the new one, and how far its numbers are from those of the one that ships
  python -m launch.evaluate --workdir="solids/$1" "${@:2}"
  python -m launch.evaluate --workdir="$out/$1" --against="solids/$1" "${@:2}"
}

# Text to video: the models of `make quickstart WORLD=solids`, 14,000 steps more, then few steps.
train configs/quickstart.py:solids runs/solids
solids=(--config.autoencoder=runs/solids/autoencoder)
train configs/solids/video.py runs/solids_long/video "${solids[@]}" \
  --config.data.latents=runs/solids/latents --config.start_from=runs/solids/video \
  --config.train.steps=14000 --config.optimizer.learning_rate=1.5e-3
train configs/solids/few_steps.py runs/solids_long/few_steps "${solids[@]}" \
  --config.data.latents=runs/solids/latents --config.start_from=runs/solids_long/video \
  --config.objective.few_steps.teacher=runs/solids_long/video

# Twice as large.
up=runs/solids_upsampler
pairs=(--config.pairs.temporal_autoencoder=runs/solids/autoencoder)
train configs/solids/upsampler.py:autoencoder $up/autoencoder
encode configs/solids/upsampler.py $up/latents "${pairs[@]}"
train configs/solids/upsampler.py $up/model "${pairs[@]}"

# Sound, and the same in few steps.
train configs/solids/codec.py runs/solids_sound/codec
encode configs/solids/audio.py runs/solids_sound/latents
train configs/solids/audio.py runs/solids_sound/audio
train configs/solids/few_steps.py:sound runs/solids_sound/few_steps

ship runs/solids/autoencoder autoencoder
ship runs/solids_long/video video --weights=int8
ship runs/solids_long/few_steps few_steps --weights=int8
ship $up/autoencoder upsampler/autoencoder
ship $up/model upsampler --weights=int8
ship runs/solids_sound/codec codec
ship runs/solids_sound/few_steps audio --weights=int8

judge video
judge few_steps --steps=4
judge upsampler
judge audio --steps=4
