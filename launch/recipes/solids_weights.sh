#!/usr/bin/env bash
# Trains the small models of mgjax/weights/solids again and writes them, in half a day of one CPU core
# and an hour of one GPU (twenty minutes of an H200; without one, weeks); then judges each beside the one
# that ships. What is trained already is not trained again. DEVICE=cpu where there is no GPU.
#
#   bash launch/recipes/solids_weights.sh [OUT]      OUT=out/weights/solids
set -euo pipefail
out=${1:-out/weights/solids}
export JAX_PLATFORMS=cpu
device=${DEVICE:-cuda}

python() { command "${PYTHON:-python}" "$@"; }
train() { python -m launch.train --config="$1" --workdir="$2" "${@:3}"; }
encode() { python -m launch.data encode --config="$1" --output="$2" "${@:3}"; }
ship() {
  python -m launch.weights export --format=workdir --weights=int8 --workdir="$1" --out="$out/$2"
}
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

# The objects that personalization knows references by, and four models that one GPU teaches. Of the
# first's 24,000 steps 11,567 were taken; the editor began again at the full rate after 3,000.
gpu=runs/solids_gpu
on_gpu() { JAX_PLATFORMS=$device train "configs/solids/one_gpu.py:$1" "$gpu/$1" "${@:2}"; }
train configs/solids/clip.py:objects runs/solids_objects
encode configs/solids/one_gpu.py $gpu/latents
on_gpu video --config.start_from=runs/solids_long/video
on_gpu few_steps
for part in editing personalization; do
  encode configs/solids/one_gpu.py:$part $gpu/latents_$part
  on_gpu $part
done

# The editor goes on with more of what it gets wrong most, twice.
for part in weak cameras; do
  encode configs/solids/editing.py:$part runs/solids_editing/latents_$part
  train configs/solids/editing.py:$part runs/solids_editing/$part
done

# Twice as large, by the mean: first of inputs that are worn, then of clean ones.
up=runs/solids_upsampler
train configs/solids/upsampler.py:autoencoder $up/autoencoder
encode configs/solids/upsampler.py $up/latents_worn --config.pairs.noise=0.7 \
  --config.pairs.degradation.first.blur=0.7 --config.pairs.degradation.first.noise=1.0
train configs/solids/upsampler.py:regression $up/worn --config.data.latents=$up/latents_worn \
  --config.pairs.noise=0.7 --config.pairs.degradation.first.blur=0.7 \
  --config.pairs.degradation.first.noise=1.0 --config.train.steps=3000
encode configs/solids/upsampler.py $up/latents --config.encode.train=2560
train configs/solids/upsampler.py:regression $up/model --config.start_from=$up/worn \
  --config.optimizer.learning_rate=1.2e-3 --config.train.steps=1500

# Sound: a codec, a model that sees how pictures move, and its student.
sound=runs/solids_sound
train configs/solids/codec.py $sound/codec
encode configs/solids/audio.py $sound/latents --config.autoencoder=$sound/codec
train configs/solids/audio.py $sound/first
train configs/solids/audio.py $sound/audio --config.start_from=$sound/first \
  --config.optimizer.learning_rate=1e-3 --config.train.steps=14000
train configs/solids/few_steps.py:sound $sound/few_steps --config.train.steps=5000

ship runs/solids/autoencoder autoencoder
ship runs/solids_objects objects
ship $sound/codec codec
ship $sound/few_steps audio
for part in few_steps personalization; do ship $gpu/$part $part; done
ship runs/solids_editing/cameras editing
ship $up/autoencoder upsampler/autoencoder
ship $up/model upsampler

judge few_steps --steps=4 --samples=100
judge editing --steps=16 --samples=300
judge personalization --steps=16 --samples=100 --clip=solids/objects
judge upsampler --samples=8
judge audio --steps=4 --samples=256
