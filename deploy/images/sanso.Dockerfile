# Sanso from a binary that is built already: docker build -f deploy/images/sanso.Dockerfile -t sanso bin
# BASE is the Debian that the binary was built on, or a later one.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates libssl3 libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 7070 --no-create-home --shell /usr/sbin/nologin sanso \
    && install -d -o sanso -g sanso /var/lib/sanso

COPY sanso /usr/local/bin/sanso

USER sanso
VOLUME /var/lib/sanso
EXPOSE 7070 7171

# Alive, not ready: a node that waits for the others must not be taken for broken. Bash speaks TCP
# itself, so the image needs no other client.
HEALTHCHECK --interval=5s --timeout=10s --start-period=120s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/7070; printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3; read -r status <&3; [[ $status == *' 200 '* ]]"]

ENTRYPOINT ["sanso"]
CMD ["node", "--config", "/etc/sanso/node.toml", "--json"]
