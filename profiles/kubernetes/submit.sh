#!/usr/bin/env bash
# Makes a Kubernetes Job that runs a job script of Snakemake and prints its name:
#   submit.sh --image IMAGE --claim PVC --mount PATH --node-selector LABEL=VALUE --cpus N --gpus N
#             --memory 8000M --minutes N SCRIPT
set -euo pipefail
while [ $# -gt 1 ]; do
  declare "$(echo "${1#--}" | tr - _)=$2"
  shift 2
done

gpu_limit="" gpu_nodes=""
if [ "$gpus" -gt 0 ]; then
  gpu_limit="nvidia.com/gpu: $gpus"
  gpu_nodes="nodeSelector: {\"${node_selector%%=*}\": \"${node_selector#*=}\"}"
fi

# The job script passes SIGTERM on to all of its processes, and healing has five minutes to save.
kubectl create -o name -f - << YAML
apiVersion: batch/v1
kind: Job
metadata:
  generateName: deeper-layers-
  labels: {app: deeper-layers}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: $((60 * minutes))
  ttlSecondsAfterFinished: 86400
  template:
    metadata:
      labels: {app: deeper-layers}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 300
      $gpu_nodes
      containers:
        - name: job
          image: $image
          workingDir: $PWD
          command: [bash, $1]
          env:
            - {name: HF_HOME, value: "${HF_HOME:-$HOME/.cache/huggingface}"}
          resources:
            requests: {cpu: $cpus, memory: $memory}
            limits:
              memory: $memory
              $gpu_limit
          volumeMounts:
            - {name: studies, mountPath: $mount}
      volumes:
        - name: studies
          persistentVolumeClaim: {claimName: $claim}
YAML
