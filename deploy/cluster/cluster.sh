#!/usr/bin/env bash
# The cluster of deploy/compose.yaml on this machine.
#
#   cluster.sh up [SERVICE...]   makes what is missing (certificates, nodes' files, Sanso's image), starts, waits until ready
#   cluster.sh down              stops it; what it holds stays
#   cluster.sh erase             stops it and removes what it holds, its certificates too
#   cluster.sh compose ...       any command of docker compose, for example: compose logs node-1
#
# OFFLINE=1       images from deploy/offline/build.sh instead of a registry
# PROFILE=grafana with Grafana
# APPLICATION=    a folder with app.sql and what it reads; deploy/apps/demo without its output topic when absent
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
run=${SANSO_CLUSTER:-$here/run}
export SANSO_CLUSTER="$run"
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-sanso}
nodes=(1 2 3 4 5)

say() { echo "cluster: $*"; }
fail() { say "$*" >&2; exit 1; }

compose() {
    local command=(docker compose)
    docker compose version >/dev/null 2>&1 || command=(docker-compose)
    [ -z "${PROFILE:-}" ] || command+=(--profile "$PROFILE")
    [ -z "${OFFLINE:-}" ] || command+=(--env-file "$deploy/offline/images.env")
    "${command[@]}" -f "$deploy/compose.yaml" "$@"
}

# The demo's application without its output topic, which a cluster can't write yet.
application() {
    local to=$1
    mkdir -p "$to"
    cp -R "${APPLICATION:-$deploy/apps/demo}/." "$to/"
    [ -n "${APPLICATION:-}" ] || sed -i -E "s/ WITH \(output_topic = '[^']*'\)//" "$to/app.sql"
}

# Folders that only their owner enters; what is in a node's is for the container's user as well.
files() {
    umask 077
    mkdir -p "$run"
    "$here/certificates.sh" "$run/certificates" sanso "${nodes[@]}"
    for node in "${nodes[@]}"; do
        local own="$run/node-$node"
        mkdir -p "$own"
        sed "s/@NODE@/$node/" "$here/node.toml" >"$own/node.toml"
        cp "$run/certificates/ca.pem" "$own/ca.pem"
        cp "$run/certificates/node-$node.pem" "$own/node.pem"
        cp "$run/certificates/node-$node.key" "$own/node.key"
        application "$own/application"
        chmod -R u=rwX,go=rX "$own"
    done
    if [ ! -e "$run/objects.env" ]; then
        local secret
        secret=$(openssl rand -hex 24)
        printf 'AWS_ACCESS_KEY_ID=sanso\nAWS_SECRET_ACCESS_KEY=%s\n' "$secret" >"$run/node.env"
        printf 'ROOT_ACCESS_KEY=sanso\nROOT_SECRET_KEY=%s\n' "$secret" >"$run/objects.env"
    fi
}

# Sanso's image, from the binary that is built already, on the Debian that it was built on.
image() {
    [ -z "${SANSO_IMAGE:-}" ] || return 0
    local bin="$deploy/../bin" base=debian:bookworm-slim
    [ -x "$bin/sanso" ] || fail "bin/sanso is missing: make build"
    if [ -n "${OFFLINE:-}" ]; then
        base=sanso-offline/debian
    elif [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
        base="debian:$(. /etc/os-release && echo "$VERSION_CODENAME")-slim"
    fi
    docker build -q -f "$deploy/images/sanso.Dockerfile" -t sanso --build-arg BASE="$base" "$bin" >/dev/null
}

ready() { curl -fsS -m 2 -o /dev/null "http://127.0.0.1:707$1/readyz" 2>/dev/null; }

await() {
    local patience=$((SECONDS + 300))
    for node in "${nodes[@]}"; do
        until ready "$node"; do
            if [ $SECONDS -ge $patience ]; then
                compose ps
                fail "node $node is not ready: $(curl -sS -m 2 "http://127.0.0.1:707$node/readyz" 2>&1); see $0 compose logs node-$node"
            fi
            sleep 1
        done
    done
    say "ready: http://127.0.0.1:7071/ to :7075/ (any answers), Prometheus http://127.0.0.1:9090/"
    [ -z "${PROFILE:-}" ] || say "Grafana http://127.0.0.1:3000/"
}

docker info >/dev/null 2>&1 || fail "no Docker daemon answers: deploy/setup/install.sh cluster installs one; is it started, and may you use it?"

case "${1:-}" in
up)
    files
    image
    compose up -d "${@:2}"
    await
    ;;
down | erase)
    [ -e "$run/node.env" ] || { say "there is none: $run is missing"; exit 0; }
    export PROFILE=grafana # so that Grafana is stopped, too
    if [ "$1" = down ]; then
        compose down
    else
        compose down --volumes
        rm -rf "${nodes[@]/#/$run/node-}" "$run/certificates" "$run/node.env" "$run/objects.env"
        rmdir --ignore-fail-on-non-empty "$run"
    fi
    ;;
compose) compose "${@:2}" ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
