# shellcheck shell=bash
# Apache Kafka, KRaft: one node per home. Node 1 is broker and controller in one process; a node
# that joins another home's cluster (ANNALS_KAFKA_JOINS) is a broker only. HOME/kafka.properties
# overrides the properties below; Java sources in HOME/kafka-classes become classes of the broker.

kafka_url() { printf '127.0.0.1:%s\n' "$ANNALS_KAFKA_PORT"; }
kafka_ports() {
  printf 'ANNALS_KAFKA_PORT\n'
  [[ -n ${ANNALS_KAFKA_JOINS:-} ]] || printf 'ANNALS_KAFKA_CONTROLLER_PORT\n'
}
kafka_answers() { kafka_speaks 127.0.0.1 "$ANNALS_KAFKA_PORT" && kafka_serves 127.0.0.1 "$ANNALS_KAFKA_PORT"; }
kafka_stop_signal() { printf 'TERM\n'; }
kafka_kill() { kill -KILL "$1"; }
kafka_precheck() { :; }
kafka_answered() { :; }

kafka_prepare() {
  need_java "Kafka"
  [[ -z ${ANNALS_KAFKA_VERSION:-} ]] || KAFKA_VERSION=$(kafka_pinned_version "$ANNALS_KAFKA_VERSION")
  install_once "kafka-$KAFKA_VERSION" kafka_fetch "$KAFKA_VERSION"
  KAFKA_CLASS_PATH="$CACHE/kafka-$KAFKA_VERSION/*"
  kafka_share_classes
  mkdir -p "$HOME_DIR/kafka"
  kafka_compile
  if [[ -d $HOME_DIR/kafka/data-$ANNALS_KAFKA_NODE ]]; then kafka_check_version; else kafka_format; fi
  printf '%s\n' "$KAFKA_VERSION" >"$HOME_DIR/kafka/version-$ANNALS_KAFKA_NODE"
  kafka_properties "$HOME_DIR/kafka/data-$ANNALS_KAFKA_NODE" >"$HOME_DIR/kafka/server-$ANNALS_KAFKA_NODE.properties"
}

kafka_launch() {
  # shellcheck disable=SC2086 # several options
  launch kafka "$JAVA" -Xmx1g "${KAFKA_CLASSES[@]}" ${ANNALS_JAVA_OPTIONS:-} -Djava.awt.headless=true "-Dannals.dev=$HOME_DIR/kafka" "-Dannals.log=$LOGS/kafka.log" \
    "-Dlog4j2.configurationFile=$DEV/kafka-log4j2.properties" -cp "$KAFKA_CLASS_PATH" \
    kafka.Kafka "$HOME_DIR/kafka/server-$ANNALS_KAFKA_NODE.properties"
}

kafka_compile() {
  local classes=$HOME_DIR/kafka-classes
  [[ -d $classes ]] || return 0
  # Only the launcher of Java itself expands the wildcard of KAFKA_CLASS_PATH.
  "$JAVA" -XX:TieredStopAtLevel=1 --module jdk.compiler/com.sun.tools.javac.Main \
    -cp "$(printf '%s:' "$CACHE/kafka-$KAFKA_VERSION"/*.jar)" \
    -d "$classes" "$classes"/*.java >"$LOGS/kafka-compile.log" 2>&1 ||
    die "could not compile $classes: $(head -n1 "$LOGS/kafka-compile.log") (all of it: $LOGS/kafka-compile.log)"
  KAFKA_CLASS_PATH+=:$classes
}

# Sets KAFKA_CLASSES: options by which the JVM maps Kafka's classes from an archive instead of
# parsing them. That halves the processor time of a start. An archive belongs to one JVM and one
# version of Kafka, and is made once.
kafka_share_classes() {
  local name
  # Not the third line: it also says whether the archive of the JVM's own classes is in use just now.
  # Without the variables that the JVM takes options from: it would print them first.
  name=kafka-$KAFKA_VERSION-classes-$(env -u JDK_JAVA_OPTIONS -u JAVA_TOOL_OPTIONS -u _JAVA_OPTIONS "$JAVA" -version 2>&1 |
    sed -n 1,2p | cksum | cut -d ' ' -f 1)
  KAFKA_CLASSES=()
  install_once "$name" kafka_archive_classes
  [[ ! -s $CACHE/$name/classes.jsa ]] || KAFKA_CLASSES=("-XX:SharedArchiveFile=$CACHE/$name/classes.jsa")
}

# kafka_archive_classes DIRECTORY: starts a Kafka in the directory, and ends it. Without an archive
# Kafka starts all the same: a failure is only reported.
kafka_archive_classes() (
  HOME_DIR=$1 LOGS=$1 ANNALS_KAFKA_JOINS='' ANNALS_KAFKA_NODE=1
  ANNALS_KAFKA_PORT=$(free_port) ANNALS_KAFKA_CONTROLLER_PORT=$(free_port)
  say kafka "archiving its classes, once"
  mkdir "$1/kafka"
  (kafka_format) 2>/dev/null && kafka_properties "$1/kafka/data-1" >"$1/kafka/server.properties" || return 0
  timeout --kill-after "$START_SECONDS_MAX" "$START_SECONDS_MAX" "$JAVA" "-XX:ArchiveClassesAtExit=$1/classes.jsa" -Xmx1g \
    -XX:TieredStopAtLevel=1 "-Dannals.log=$1/kafka.log" "-Dlog4j2.configurationFile=$DEV/kafka-log4j2.properties" \
    -cp "$KAFKA_CLASS_PATH" kafka.Kafka "$1/kafka/server.properties" </dev/null >"$1/kafka.out" 2>&1 9>&- &
  local pid=$!
  until kafka_answers || ! kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || true
  [[ -s $1/classes.jsa ]] || say kafka "its classes could not be archived: each start takes longer ($(tail -n1 "$1/kafka.out"))"
  rm -rf "$1"/kafka*
)

# kafka_pinned_version 3.9|3.9.1: the full pinned version.
kafka_pinned_version() {
  local version
  for version in "$KAFKA_VERSION" "${KAFKA_OTHER_VERSIONS[@]}"; do
    [[ $version != "$1" && $version != "$1".* ]] || {
      printf '%s\n' "$version"
      return 0
    }
  done
  die "ANNALS_KAFKA_VERSION=$1 is not pinned; pinned are: $KAFKA_VERSION ${KAFKA_OTHER_VERSIONS[*]} (ops/dev/versions.sh)"
}

# kafka_fetch VERSION DIRECTORY
kafka_fetch() {
  kafka_download "$1" "$2"
  (cd "$2" && verify_all "$CHECKSUMS/kafka-$1.sha256")
}

# kafka_download VERSION DIRECTORY
kafka_download() {
  download kafka "Kafka $1 (some 46 jars, 43 MB)" org/apache/kafka "$2" \
    --file "$DEV/kafka-pom.xml" "-Dkafka.version=$1" "-Dlog4j.version=$LOG4J_VERSION" \
    "$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies"
}

# kafka_properties DATA_DIRECTORY
kafka_properties() {
  local roles=broker,controller listeners=,CONTROLLER://127.0.0.1:$ANNALS_KAFKA_CONTROLLER_PORT
  [[ -z $ANNALS_KAFKA_JOINS ]] || roles=broker listeners=
  cat <<PROPERTIES
process.roles=$roles
node.id=$ANNALS_KAFKA_NODE
controller.quorum.bootstrap.servers=127.0.0.1:$(kafka_controller_port)
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$ANNALS_KAFKA_PORT$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$ANNALS_KAFKA_PORT,CONTROLLER://127.0.0.1:$ANNALS_KAFKA_CONTROLLER_PORT
log.dirs=$1

# One broker has every replica; with few internal partitions the first transaction and the first
# group are quick.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0

# A killed broker may rejoin only when its last session has expired: five missed heartbeats are
# enough here.
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=5000

# An undeclared topic is a mistake, here as in production.
auto.create.topics.enable=false
PROPERTIES
  # The last one of a repeated property applies.
  if [[ -e $HOME_DIR/kafka.properties ]]; then cat "$HOME_DIR/kafka.properties"; fi
}

# The controller of the cluster: this node, or node 1 of the home whose cluster this node joins.
kafka_controller_port() {
  if [[ -z $ANNALS_KAFKA_JOINS ]]; then
    printf '%s\n' "$ANNALS_KAFKA_CONTROLLER_PORT"
  else
    sed -n 's/^ANNALS_KAFKA_CONTROLLER_PORT=//p' "$ANNALS_KAFKA_JOINS/instance"
  fi
}

# Created beside its final path and renamed, so that a killed start leaves no incomplete log
# directory.
kafka_format() {
  local data=$HOME_DIR/kafka/data-$ANNALS_KAFKA_NODE part log=$LOGS/kafka-format.log cluster
  part=$data.part.$BASHPID
  rm -rf "$data".part.*
  mkdir "$part"
  kafka_properties "$part" >"$HOME_DIR/kafka/format-$ANNALS_KAFKA_NODE.properties"
  cluster=(--standalone -t "$(kafka_new_cluster_id)")
  [[ -z $ANNALS_KAFKA_JOINS ]] || cluster=(-t "$(sed -n 's/^cluster.id=//p' "$ANNALS_KAFKA_JOINS/kafka/data-1/meta.properties")")
  say kafka "creating the log directory"
  "$JAVA" "${KAFKA_CLASSES[@]}" -XX:TieredStopAtLevel=1 "-Dannals.log=$LOGS/kafka-format-details.log" \
    "-Dlog4j2.configurationFile=$DEV/kafka-log4j2.properties" -cp "$KAFKA_CLASS_PATH" kafka.tools.StorageTool \
    format "${cluster[@]}" -c "$HOME_DIR/kafka/format-$ANNALS_KAFKA_NODE.properties" >"$log" 2>&1 ||
    die "could not format Kafka's log directory: $(tail -n1 "$log") (all of it: $log)"
  mv "$part" "$data"
}

# An earlier Kafka cannot read the data of a later one, and reports it only deep in its log.
kafka_check_version() {
  local written_by latest
  written_by=$(cat "$HOME_DIR/kafka/version-$ANNALS_KAFKA_NODE" 2>/dev/null || printf 'unknown\n')
  latest=$(printf '%s\n' "$written_by" "$KAFKA_VERSION" | sort -V | tail -n1)
  [[ $latest == "$KAFKA_VERSION" ]] ||
    die "$HOME_DIR/kafka was written by Kafka $written_by, and this is $KAFKA_VERSION, which cannot read it: delete it with make reset"
}

# 16 random bytes in the URL alphabet. One that began with "-" would be read as an option.
kafka_new_cluster_id() {
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')
  printf 'A%s\n' "${id:1:21}"
}

kafka_wipe() { rm -rf "$HOME_DIR/kafka"; }
