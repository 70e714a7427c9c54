#!/usr/bin/env bash
# Curates raw videos on a Kubernetes cluster that has the KubeRay operator, as a RayJob:
#
#   NAME=curate1 IMAGE=... VOLUME=claim NODES=16 CORES=32 MEMORY=128Gi \
#     bash launch/recipes/curate_kuberay.sh --input=gs://bucket/raw --output=/mnt/shared/curated \
#     --config=configs/curation/high_resolution.py --workers=500
#
# IMAGE is a container with the checkout as its working directory and mgjax[curation] installed.
# VOLUME is a claim that many nodes may write to (ReadWriteMany); it is mounted at /mnt/shared,
# where --output must lie. --workers is how many videos are measured at once, NODES x CORES or a few
# less. The cluster goes when the job has ended; a job of another NAME goes on from there. KUBECTL
# names another kubectl, as 'kubectl --context=...', or 'cat' to see what would be sent.
set -eu
: "${NAME:?a name for this job}" "${IMAGE:?the container image}" "${VOLUME:?the claim to mount}"
: "${NODES:?how many nodes}" "${CORES:?cores of each}" "${MEMORY:?memory of each, as 128Gi}"
printf -v arguments ' %q' "$@"
command="python -m launch.curate --engine=ray --address=auto$arguments"
pod="
          spec:
            containers:
              - name: ray
                image: $IMAGE
                resources:
                  limits: {cpu: '$CORES', memory: $MEMORY}
                  requests: {cpu: '$CORES', memory: $MEMORY}
                volumeMounts: [{name: shared, mountPath: /mnt/shared}]
            volumes: [{name: shared, persistentVolumeClaim: {claimName: $VOLUME}}]"
read -ra kubectl <<<"${KUBECTL:-kubectl apply -f -}"
[[ ${kubectl[0]} == kubectl && " ${kubectl[*]} " != *' apply '* ]] && kubectl+=(apply -f -)
"${kubectl[@]}" <<YAML
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: $NAME
spec:
  # A string of YAML in single quotes, in which a quote is written twice.
  entrypoint: '${command//\'/\'\'}'
  shutdownAfterJobFinishes: true
  backoffLimit: 3
  rayClusterSpec:
    rayVersion: '2.60.0'
    headGroupSpec:
      rayStartParams: {}
      template:$pod
    workerGroupSpecs:
      - groupName: workers
        replicas: $((NODES - 1))
        minReplicas: $((NODES - 1))
        maxReplicas: $((NODES - 1))
        rayStartParams: {}
        template:$pod
YAML
