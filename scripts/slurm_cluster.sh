#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, to try things on: no systemd, nothing outside its
# folder, which should have a short path (it holds a socket).
#
#   apt-get install -y --no-install-recommends slurm-wlm munge
#   scripts/slurm_cluster.sh start FOLDER [PORT]     then: export SLURM_CONF=FOLDER/slurm.conf; sinfo
#   scripts/slurm_cluster.sh nodedown FOLDER n1      as a power cut would
#   scripts/slurm_cluster.sh nodeup FOLDER n1
#   scripts/slurm_cluster.sh stop FOLDER
set -euo pipefail
usage="usage: $0 start|stop FOLDER, or nodedown|nodeup FOLDER NODE"
command=${1:?$usage} folder=$(realpath -m "${2:?$usage}")
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin

start() {
  local port=${1:-17000} host
  host=$(hostname -s)
  mkdir -p "$folder"/{state,n1,n2}
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  munged --force --num-threads=2 --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  # What makes it quick: a dead node is noticed after 10 seconds rather than 300, a requeued job
  # starts when its old credential has expired, after 10 seconds rather than 120.
  cat >"$SLURM_CONF" <<CONF
ClusterName=seqbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=10
SlurmctldPort=$port
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
StateSaveLocation=$folder/state
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
SlurmdSpoolDir=$folder/%n
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=5
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
  slurmctld -c
  nodeup n1
  nodeup n2
  for _ in $(seq 100); do
    if [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ]; then return; fi
    sleep 0.1
  done
  sinfo
  tail -n 20 "$folder"/*.log
  stop
  exit 1
}

nodeup() {
  slurmd -N "$1"
}

nodedown() {
  local processes
  processes=$(of_node "$1" | sort -u) || true
  # All stand still before the first dies: else one of them could report the death of another.
  for signal in STOP KILL; do
    for process in $processes; do kill -$signal "$process" 2>/dev/null || true; done
  done
  rm -f "$folder/$1.pid"
}

# Processes of a node: its daemons write its log, and what they start is told its name.
of_node() {
  find /proc/[0-9]*/fd -lname "$folder/$1.log" 2>/dev/null | cut -d/ -f3
  grep -lsxz "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ |
    xargs -r grep -lsxz "SLURMD_NODENAME=$1" | cut -d/ -f3
}

stop() {
  local file
  nodedown n1
  nodedown n2
  for file in "$folder"/{slurmctld,munged}.pid; do
    if [ -f "$file" ]; then
      kill -KILL "$(cat "$file")" 2>/dev/null || true
      rm -f "$file"
    fi
  done
}

case $command in
start | nodeup | nodedown | stop) "$command" "${@:3}" ;;
*) echo "$usage" >&2 && exit 2 ;;
esac
