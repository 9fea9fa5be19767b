#!/usr/bin/env bash
# Runs a command under the host name of its network namespace: in a rig all hosts share one name otherwise, and a fabric
# file knows hosts by their names. "rails-12-34-h3" is h3.
#   railccl run --netns "$(rig_hosts ...)" tests/rails/as_host.sh COMMAND...
space=$(ip netns identify)
exec unshare -u bash -c 'hostname "$1" && shift && exec "$@"' as_host "${space##*-}" "$@"
