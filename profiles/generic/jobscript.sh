#!/usr/bin/env bash
# properties = {properties}
# A scheduler warns this shell alone before a time limit: all of its processes are told, and waited for, since
# healing then saves a checkpoint.
trap 'trap : TERM; kill -TERM 0' TERM
(
  trap : TERM # this shell stays until its job has ended
  {exec_job}
) &
wait $!
code=$?
wait
exit $code
