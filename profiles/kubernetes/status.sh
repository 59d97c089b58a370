#!/usr/bin/env bash
# Says whether a Kubernetes Job is running, success or failed: status.sh job.batch/NAME
if ! conditions=$(kubectl get "$1" --ignore-not-found \
  -o jsonpath='{.metadata.name} {.status.conditions[?(@.status=="True")].type}'); then
  echo running # the API server did not answer: ask again
elif [ -z "$conditions" ]; then
  echo failed # deleted
else
  case " ${conditions#* } " in
    *" Complete "*) echo success ;;
    *" Failed "*) echo failed ;;
    *) echo running ;;
  esac
fi
