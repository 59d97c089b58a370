#!/usr/bin/env bash
# Stops what up.sh started: down.sh ROOT
ROOT=${1:?usage: down.sh ROOT}
for pid in slurmd.pid slurmctld.pid munge/pid; do
  if [ -f "$ROOT/$pid" ]; then kill "$(cat "$ROOT/$pid")" 2> /dev/null; fi
  sleep 1
done
for file in slurm gres; do
  if [ "$(readlink /etc/slurm/$file.conf)" = "$ROOT/etc/$file.conf" ]; then rm -f /etc/slurm/$file.conf; fi
done
exit 0
