#!/usr/bin/env bash
# Trains on TPU slices or GPU nodes of a GKE cluster that xpk made:
#
#   export CLUSTER=name ZONE=us-east5-a IMAGE=... DEVICES='--tpu-type=v5p-128 --num-slices=2'
#   WORKLOAD=run1 bash launch/recipes/gke_xpk.sh --config=... --workdir=/mnt/shared/run
#
# DEVICES is what to run on as xpk calls it; GPUs are '--device-type=h100-mega-80gb-8 --num-nodes=4'
# or the like. IMAGE is a container with the checkout as its working directory and mgjax[tpu] or
# mgjax[cuda] installed. --workdir must lie on a volume that all pods mount (xpk storage attach).
# Processes find each other by what xpk puts into their environment. xpk starts pods again that
# crash, not those that end with an exit code of ours, which is 0 after SIGTERM, the state saved: a
# workload of another name goes on from there.
set -eu
: "${CLUSTER:?the name of the cluster}" "${ZONE:?its zone}" "${WORKLOAD:?a name for this run}"
: "${IMAGE:?the container image}" "${DEVICES:?what to run on, as xpk calls it}"
printf -v arguments ' %q' "$@"
read -ra devices <<<"$DEVICES"
exec xpk workload create --cluster="$CLUSTER" --zone="$ZONE" --workload="$WORKLOAD" \
  --docker-image="$IMAGE" "${devices[@]}" --max-restarts=100 \
  --command="python -m launch.train$arguments"
