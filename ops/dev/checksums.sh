# shellcheck shell=bash
# Writes the checksum lists anew from fresh downloads. Read the difference before you commit it.

write_checksums() {
  local scratch version
  scratch=$(mktemp -d)
  # shellcheck disable=SC2064 # the directory of now is meant
  trap "rm -rf '$scratch'" EXIT
  mkdir -p "$CHECKSUMS"
  for version in "$KAFKA_VERSION" "${KAFKA_OTHER_VERSIONS[@]}"; do
    (kafka_download "$version" "$scratch/kafka-$version")
    write_list "$scratch/kafka-$version" "kafka-$version"
  done
  for version in "$REGISTRY_VERSION" "$REGISTRY_OTHER_VERSION"; do
    (registry_download "$version" "$scratch/registry-$version")
    write_list "$scratch/registry-$version" "registry-$version"
  done
  (registry_java_package "$scratch/registry-java")
  write_list "$scratch/registry-java" registry-java
  (avro_download "$scratch/avro")
  write_list "$scratch/avro" avro
  write_postgres_list "$scratch"
  write_pgbouncer_list "$scratch/pgbouncer"
  (postgres_upgrade_package "$scratch/upgrade")
  write_list "$scratch/upgrade" postgres-upgrade
}

write_list() {
  (cd "$1" && LC_ALL=C sha256sum -- *) >"$CHECKSUMS/$2.sha256"
  say "$2" "$(wc -l <"$CHECKSUMS/$2.sha256") checksums"
}

write_postgres_list() {
  local version platform
  for version in "${POSTGRES_VERSIONS[@]}" "$POSTGRES_TOO_OLD_VERSION"; do
    for platform in "${POSTGRES_PLATFORMS[@]}"; do
      # Not every version was built for every platform.
      (postgres_download "$version" "$platform" "$1/postgres/postgres-$version-$platform") ||
        say postgres "no build of $version for $platform, left out"
    done
  done
  (cd "$1/postgres" && LC_ALL=C sha256sum -- */*) >"$CHECKSUMS/postgres.sha256"
  say postgres "$(wc -l <"$CHECKSUMS/postgres.sha256") checksums"
}

write_pgbouncer_list() {
  mkdir "$1"
  pgbouncer_download "$1" "$LOGS/download-pgbouncer.log" || die "could not download PgBouncer: see $LOGS/download-pgbouncer.log"
  write_list "$1" pgbouncer
}
