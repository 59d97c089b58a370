#!/usr/bin/env bash
# Says whether a cluster job is running, success or failed: status.sh ID
# Slurm's accounting is asked, or where there is none its memory of the last jobs.
state=$(sacct -X -n -P -o State -j "$1" 2> /dev/null | head -n 1)
state=${state:-$(scontrol show job "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')}
case $state in
  COMPLETED*) echo success ;;
  "" | PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED | STOPPED | SIGNALING | STAGE_OUT) echo running ;;
  REQUEUE* | RESIZING) echo running ;;
  *) echo failed ;;
esac
