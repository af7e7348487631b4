#!/bin/bash
# What each container of the cluster runs: munge, and the daemon that its host name asks for.
set -euo pipefail
mkdir -p /run/munge /var/lib/slurm/slurmctld /var/lib/slurm/slurmd
chown munge: /run/munge
setpriv --reuid=munge --regid=munge --clear-groups munged
case $(hostname) in
    controller) exec slurmctld -D ;;
    *) exec slurmd -D ;;
esac
