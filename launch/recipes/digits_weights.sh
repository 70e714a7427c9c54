#!/usr/bin/env bash
# Trains the small models of mgjax/weights/digits again and writes them, on one CPU core in three and a
# half hours; then judges each beside the one that ships. What is trained already is not trained again.
#
#   bash launch/recipes/digits_weights.sh [OUT]      OUT=out/weights/digits
set -euo pipefail
out=${1:-out/weights/digits}
export JAX_PLATFORMS=cpu

python() { command "${PYTHON:-python}" "$@"; }
train() { python -m launch.train --config="$1" --workdir="$2" "${@:3}"; }
encode() { python -m launch.data encode --config="$1" --output="$2" "${@:3}"; }
ship() {
  python -m launch.weights export --format=workdir --weights=int8 --workdir="$1" --out="$out/$2"
}
judge() {  # the new one, and how far its numbers are from those of the one that ships
  python -m launch.evaluate --workdir="digits/$1" "${@:2}"
  python -m launch.evaluate --workdir="$out/$1" --against="digits/$1" "${@:2}"
}

# Text to video: the models of `make quickstart` with one motion more, which can be heard.
train configs/digits/autoencoder.py runs/quickstart/autoencoder
train configs/digits/autoencoder.py:decoder runs/quickstart/decoder
video=(--config.autoencoder=runs/quickstart/autoencoder --config.data.latents=runs/bounce/latents)
encode configs/digits/video.py:bounce runs/bounce/latents "${video[@]}"
train configs/digits/video.py:bounce runs/bounce/first "${video[@]}"
train configs/digits/video.py:bounce runs/bounce/video "${video[@]}" --config.seed=1 \
  --config.start_from==runs/bounce/first --config.optimizer.learning_rate=1.5e-3
train configs/digits/few_steps.py:bounce runs/bounce/few_steps

# Personalization goes on from the quickstart's own.
encode configs/digits/video.py runs/quickstart/latents --config.autoencoder=runs/quickstart/autoencoder
train configs/digits/video.py runs/quickstart/video --config.autoencoder=runs/quickstart/autoencoder \
  --config.data.latents=runs/quickstart/latents
train configs/digits/clip.py runs/clip_turned --config.data.digits.turns=30 \
  --config.data.digits.weights=1 --config.objective.identity_weight=0.5 --config.train.steps=8000
encode configs/digits/personalization.py runs/personalization/latents
train configs/digits/personalization.py runs/personalization/first
train configs/digits/personalization.py runs/personalization/model \
  --config.start_from==runs/personalization/first --config.train.steps=30000

# Sound. A codec of 1,000 steps may click at the edges of silence, loud enough to be heard by the judge.
train configs/digits/codec.py runs/sound/codec --config.seed=1 --config.train.steps=1500
encode configs/digits/audio.py runs/sound/latents --config.autoencoder=runs/sound/codec
train configs/digits/audio.py runs/sound/audio --config.autoencoder=runs/sound/codec \
  --config.data.latents=runs/sound/latents

train configs/digits/upsampler.py:autoencoder runs/upsampler/autoencoder
upsampler=(--config.autoencoder=runs/upsampler/autoencoder --config.data.latents=runs/upsampler/latents)
encode configs/digits/upsampler.py runs/upsampler/latents "${upsampler[@]}"
train configs/digits/upsampler.py runs/upsampler/model "${upsampler[@]}"

# Editing, in the report's stages.
edit=configs/digits/editing.py
train "$edit:autoencoder" runs/editing/autoencoder
encode "$edit:video" runs/editing/latents
train "$edit:video" runs/editing/video
train "$edit:clip" runs/editing/clip
for stage in images frames; do
  encode "$edit:$stage" "runs/editing/latents_$stage"
  train "$edit:$stage" "runs/editing/$stage"
done
python -m launch.data pairs --config="$edit:backtranslation" \
  --output=runs/editing/latents_backtranslation
train "$edit:backtranslation" runs/editing/backtranslation

ship runs/quickstart/decoder autoencoder
ship runs/bounce/video video
ship runs/bounce/few_steps few_steps
ship runs/personalization/model personalization
ship runs/sound/codec codec
ship runs/sound/audio audio
ship runs/upsampler/model upsampler
ship runs/upsampler/autoencoder upsampler/autoencoder
ship runs/editing/backtranslation editing
ship runs/editing/autoencoder editing/autoencoder

judge video
judge few_steps --steps=1
judge personalization --samples=216
judge audio
judge upsampler
judge editing
