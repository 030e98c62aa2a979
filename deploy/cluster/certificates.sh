#!/usr/bin/env bash
# Makes a cluster's authority, and a certificate for each of its nodes.
#
#   certificates.sh FOLDER NAME NODE...     for example: certificates.sh ./certificates sanso 1 2 3
#
# NAME is cluster.name of the nodes' files. The authority (ca.pem, ca.key) is made once and used again, so
# a node can be added later. A certificate that is there is left alone: remove it to have it renewed.
# ca.pem, node-N.pem and node-N.key go to node N. ca.key goes nowhere: who has it may speak for any node.
set -euo pipefail

fail() { echo "certificates: $*" >&2; exit 2; }

[ $# -ge 3 ] || fail "usage: certificates.sh FOLDER NAME NODE..."
folder=$1 name=$2
shift 2
[[ "$name" =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] || fail "'$name' is no cluster's name: a-z, 0-9 and '-'"
for node in "$@"; do
    [[ "$node" =~ ^[1-9][0-9]*$ ]] || fail "'$node' is no node's number"
done

umask 077
mkdir -p "$folder"
cd "$folder"

# Each file appears whole or not at all.
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.new" && mv "$1.new" "$1"; }

[ -e ca.pem ] && [ ! -e ca.key ] && fail "$folder has ca.pem without ca.key: nothing can be signed for it"
if [ ! -e ca.pem ]; then
    key ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=authority of $name" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -out ca.pem.new
    mv ca.pem.new ca.pem
fi

for node in "$@"; do
    [ -e "node-$node.pem" ] && continue
    host="node-$node.$name.sanso" # both ends of a connection check it
    [ ${#host} -le 64 ] && subject="/CN=$host" || subject="/CN=node-$node"
    key "node-$node.key"
    openssl req -new -key "node-$node.key" -subj "$subject" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -sha256 -days 730 -out "node-$node.pem.new" -extfile <(
            printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
                "extendedKeyUsage=serverAuth,clientAuth" "subjectAltName=DNS:$host"
        ) 2>openssl.log || { cat openssl.log >&2; fail "openssl refused to sign for node $node"; }
    rm -f openssl.log
    mv "node-$node.pem.new" "node-$node.pem"
    echo "certificates: node-$node.pem is for $host"
done
