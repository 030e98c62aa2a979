#!/usr/bin/env bash
# Starts a broker: KAFKA_LOG_DIRS becomes log.dirs, and so on; '__' is '_' and '___' is '-'.
set -euo pipefail

: "${CLUSTER_ID:?any 16 bytes in base64, the same for all brokers}"
properties=/etc/kafka/server.properties

while IFS='=' read -r name value; do
    case "$name" in
    KAFKA_HEAP_OPTS) continue ;;
    KAFKA_*) ;;
    *) continue ;;
    esac
    name=${name#KAFKA_}
    name=${name//___/-}
    name=${name//__/+}
    name=${name//_/.}
    name=${name//+/_}
    echo "${name,,}=$value"
done < <(env) >"$properties"

java=(java ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} -XX:+UseG1GC
    -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties -cp '/opt/kafka/libs/*')
[ -e "${KAFKA_LOG_DIRS:?where the broker keeps its data}/meta.properties" ] ||
    "${java[@]}" kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$properties"
exec "${java[@]}" kafka.Kafka "$properties"
