# shellcheck shell=bash
# Apicurio Registry with its Confluent-compatible API, storing into a file, so that schema ids survive a restart.

REGISTRY_API=/apis/ccompat/v7

registry_url() { printf 'http://127.0.0.1:%s%s\n' "$ANNALS_REGISTRY_PORT" "$REGISTRY_API"; }
registry_ports() { printf '%s\n' ANNALS_REGISTRY_PORT; }
registry_answers() { registry_lists 127.0.0.1 "$ANNALS_REGISTRY_PORT" "$REGISTRY_API"; }
registry_stop_signal() { printf 'TERM\n'; }
registry_kill() { kill -KILL "$1"; }
registry_precheck() { :; }
registry_answered() { touch "$HOME_DIR/registry/complete"; }

registry_prepare() {
  need_java "the schema registry"
  install_once "registry-$REGISTRY_VERSION" registry_fetch
  # The registry creates its tables at the first start and cannot repair an incomplete set of them.
  [[ -e $HOME_DIR/registry/complete ]] || registry_wipe
  mkdir -p "$HOME_DIR/registry"
}

# WRITE_DELAY=0: an issued id is on disk. Otherwise a killed process loses the last half second, and
# issues the same id again for another schema.
registry_launch() {
  local programs=$CACHE/registry-$REGISTRY_VERSION
  # shellcheck disable=SC2086 # several options
  launch registry env "QUARKUS_HTTP_PORT=$ANNALS_REGISTRY_PORT" QUARKUS_HTTP_HOST=127.0.0.1 \
    "REGISTRY_DATASOURCE_URL=jdbc:h2:file:$HOME_DIR/registry/registry;WRITE_DELAY=0" \
    "$JAVA" -Xmx512m ${ANNALS_JAVA_OPTIONS:-} -Djava.awt.headless=true "-Dannals.dev=$HOME_DIR/registry" \
    -jar "$programs/apicurio-registry-app-$REGISTRY_VERSION-runner.jar"
}

registry_fetch() {
  need tar "unpacking the schema registry" "install it, for example: apt-get install tar"
  registry_download "$1/download"
  (cd "$1/download" && verify_all "$CHECKSUMS/registry.sha256")
  tar -xzf "$1"/download/*.tar.gz -C "$1"
  rm -rf "$1/download"
}

registry_download() {
  download registry "the schema registry $REGISTRY_VERSION (142 MB)" "io/apicurio/apicurio-registry-app/$REGISTRY_VERSION" "$1" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy" "-Dartifact=io.apicurio:apicurio-registry-app:$REGISTRY_VERSION:tar.gz:all"
}

registry_wipe() { rm -rf "$HOME_DIR/registry"; }
