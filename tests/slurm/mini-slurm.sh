#!/usr/bin/env bash
# A Slurm of two nodes on one machine, for tests: Debian's slurmctld, slurmd, slurm-client, munge.
#   mini-slurm.sh start DIR               start it, and print what to export
#   mini-slurm.sh crash-node DIR NODE JOB kill a node's slurmd and that job's processes
#   mini-slurm.sh stop DIR                end everything that was started, by process id
# Needs root, as slurmd does. Listens on the loopback device alone. Everything lies under DIR.
set -euo pipefail
command=${1:?start, crash-node or stop}
mkdir -p "${2:?DIR}"
D=$(cd "$2" && pwd)
HOST=$(hostname -s)
PORT=${MINI_SLURM_PORT:-17800} # of slurmctld; the nodes listen on the next two
NODES="n1 n2"
REAL_SRUN=$(PATH=${PATH//$D\/bin:/} type -P srun)

# A recorded process counts while its output is our log: its id may be another's by now.
alive() { # PIDFILE
  [ -s "$1" ] || return 1
  case $(readlink "/proc/$(cat "$1")/fd/1" 2>/dev/null) in
    "$D"/log/*) return 0 ;;
    *) return 1 ;;
  esac
}

wait_for() { # SECONDS command...
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { echo "mini-slurm: gave up waiting for: $* (logs: $D/log)" >&2; return 1; }
    sleep 0.1
  done
}

daemon() { # NAME command...
  local name=$1
  shift
  setsid "$@" </dev/null >"$D/log/$name.out" 2>&1 &
  echo $! >"$D/run/$name.pid"
}

configure() {
  mkdir -p "$D"/{bin,log,run,state,spool.n1,spool.n2}
  # slurm-jobstep removes SLURM_CONF before it calls srun: this one puts it back.
  printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$D/slurm.conf" "$REAL_SRUN" >"$D/bin/srun"
  chmod +x "$D/bin/srun"
  # The GPUs of both nodes are null devices: jobs ask for them, and none opens them.
  for gpu in 0 1; do [ -e "$D/run/gpu$gpu" ] || mknod "$D/run/gpu$gpu" c 1 3; done
  echo "Name=gpu Type=fake File=$D/run/gpu[0-1]" >"$D/gres.conf"
  echo "CgroupMountpoint=/sys/fs/cgroup" >"$D/cgroup.conf"
  cat >"$D/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool.%n
SlurmctldPidFile=$D/run/own.slurmctld.pid
SlurmdPidFile=$D/run/own.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
MinJobAge=3600
KillWait=2
SlurmdTimeout=10
GresTypes=gpu
NodeName=DEFAULT CPUs=4 RealMemory=256000 Gres=gpu:fake:2
NodeName=n1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 1))
NodeName=n2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 2))
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
CONF
}

start() {
  configure
  (umask 077 && head -c 128 /dev/urandom >"$D/munge.key")
  daemon munged munged --foreground --force --key-file "$D/munge.key" --socket "$D/munge.socket" \
    --pid-file "$D/run/own.munged.pid" --log-file "$D/log/munged.log" --seed-file "$D/munge.seed"
  wait_for 10 munge --no-input --socket "$D/munge.socket"
  export SLURM_CONF=$D/slurm.conf
  daemon slurmctld slurmctld -D -i
  for node in $NODES; do daemon "$node" slurmd -D -N "$node"; done
  wait_for 30 sh -c "[ \$(sinfo --noheader --Node --states=idle --partition=cpu | wc -l) = 2 ]"
  echo "export SLURM_CONF=$D/slurm.conf"
  echo "export PATH=$D/bin:$PATH"
}

# What Slurm itself lists of the job, and each process's slurmstepd: nothing is found by name.
crash_node() { # NODE JOB
  export SLURM_CONF=$D/slurm.conf
  local pids parents="" pid parent
  pids=$(scontrol listpids "$2" "$1" 2>/dev/null | awk 'NR > 1 && $1 > 1 { print $1 }' | sort -un)
  for pid in $pids; do
    parent=$(ps -o ppid= -p "$pid" | tr -d ' ') || continue
    if [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = slurmstepd ]; then parents+=" $parent"; fi
  done
  alive "$D/run/$1.pid"
  # shellcheck disable=SC2046,SC2086
  kill -9 $(cat "$D/run/$1.pid") $(printf '%s\n' $parents | sort -u) $pids 2>/dev/null || true
}

stop() {
  if alive "$D/run/slurmctld.pid"; then
    SLURM_CONF=$D/slurm.conf timeout 5 scancel --user=root || true
    sleep 0.5
  fi
  for name in $NODES slurmctld munged; do
    if alive "$D/run/$name.pid"; then
      kill "$(cat "$D/run/$name.pid")"
      wait_for 5 eval "! alive '$D/run/$name.pid'" || kill -9 "$(cat "$D/run/$name.pid")"
    fi
  done
}

case $command in
  start) start ;;
  crash-node) crash_node "${3:?NODE}" "${4:?JOB}" ;;
  stop) stop ;;
  *) echo "mini-slurm: unknown command $command" >&2; exit 2 ;;
esac
