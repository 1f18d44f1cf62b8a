# shellcheck shell=bash
# Avro's Java library: not a component; the tests print schemas with it, as a registry in Java does.

command_avro() {
  make_home
  need_java "Avro's Java library"
  install_once "avro-$AVRO_VERSION" avro_fetch
  printf '%s\n' "$CACHE/avro-$AVRO_VERSION/*"
}

avro_fetch() {
  avro_download "$1"
  (cd "$1" && verify_all "$CHECKSUMS/avro.sha256")
}

avro_download() {
  download avro "Avro $AVRO_VERSION for Java (4 MB)" org/apache/avro "$1" \
    --file "$DEV/avro-pom.xml" "-Davro.version=$AVRO_VERSION" "-Dslf4j.version=$AVRO_SLF4J_VERSION" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies"
}
