#!/usr/bin/env bash
# Starts a real Slurm of one node with four CPUs and one GPU on this machine, whatever it has: up.sh ROOT.
# As root; without systemd, cgroups and accounting. Needs:
# apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
set -euo pipefail
ROOT=${1:?usage: up.sh ROOT}
HOST=$(hostname -s)
MEMORY=$(slurmd -C | sed -n 's/.*RealMemory=\([0-9]*\).*/\1/p')

for file in slurm gres; do
  link=/etc/slurm/$file.conf
  # A link without a Slurm is of a run of ours that was killed.
  if [ -L "$link" ] && ! pgrep -x slurmctld > /dev/null; then rm "$link"; fi
  if [ -e "$link" ] && [ "$(readlink "$link")" != "$ROOT/etc/$file.conf" ]; then
    echo "$link exists and is not ours: not touched" >&2
    exit 1
  fi
done
mkdir -p "$ROOT"/{etc,log,state,spool,munge}
chmod 0755 "$ROOT" "$ROOT/munge"

# Munge, with a key and a socket of our own.
[ -s "$ROOT/munge/key" ] || dd if=/dev/urandom of="$ROOT/munge/key" bs=1024 count=1 status=none
chmod 0600 "$ROOT/munge/key"
munged --force --key-file="$ROOT/munge/key" --socket="$ROOT/munge/socket" --pid-file="$ROOT/munge/pid" \
  --log-file="$ROOT/munge/log" --seed-file="$ROOT/munge/seed"

# The GPU is a character device (that of /dev/null): only then does Slurm set CUDA_VISIBLE_DEVICES.
[ -c "$ROOT/gpu0" ] || mknod "$ROOT/gpu0" c 1 3
cat > "$ROOT/etc/gres.conf" << CONF
AutoDetect=off
NodeName=$HOST Name=gpu Type=fake File=$ROOT/gpu0
CONF

cat > "$ROOT/etc/slurm.conf" << CONF
ClusterName=onebox
SlurmctldHost=$HOST
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOT/munge/socket
CredType=cred/munge
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool
SlurmctldPidFile=$ROOT/slurmctld.pid
SlurmdPidFile=$ROOT/slurmd.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MinJobAge=300
KillWait=10
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
JobCompType=jobcomp/filetxt
JobCompLoc=$ROOT/log/jobs
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$HOST CPUs=4 RealMemory=$MEMORY Gres=gpu:fake:1 State=UNKNOWN
PartitionName=DEFAULT Nodes=$HOST MaxTime=1-0 DefaultTime=10 State=UP PreemptMode=OFF
PartitionName=cpu Default=YES
PartitionName=gpu
PartitionName=spare PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent PriorityTier=100
CONF

# Snakemake's job steps drop SLURM_CONF, so the configuration must be where Slurm looks by itself.
mkdir -p /etc/slurm
for file in slurm gres; do ln -sfn "$ROOT/etc/$file.conf" "/etc/slurm/$file.conf"; done

slurmctld
slurmd
for _ in $(seq 30); do
  sinfo -h -o %T 2> /dev/null | grep -q idle && exit 0
  sleep 1
done
echo "the node does not become idle" >&2
sinfo -N -l >&2
exit 1
