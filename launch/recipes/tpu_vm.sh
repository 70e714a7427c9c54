#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice, started from your own machine:
#
#   TPU=name ZONE=us-east5-a bash launch/recipes/tpu_vm.sh --config=... --workdir=/mnt/shared/run
#
# Before, once: the slice exists (gcloud compute tpus tpu-vm create), every host has the checkout in
# ~/mgjax (or in DIRECTORY) with mgjax[tpu] in its .venv, and all mount the disk of --workdir, for
# example a Filestore share. The hosts find each other by themselves. Keep the terminal: start this
# in tmux. SIGTERM to launch.train on any one host stops all of them at the same step, which is
# saved; the same command again goes on from there.
set -eu
: "${TPU:?the name of the slice}" "${ZONE:?the zone of the slice}"
printf -v arguments ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd ${DIRECTORY:-mgjax} && exec .venv/bin/python -m launch.train$arguments"
