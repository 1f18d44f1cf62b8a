# shellcheck shell=bash
# Prometheus and promtool: not components; tests check metrics, alert rules and dashboards with them, and `make up` lets a
# Prometheus watch the relay of this machine.
# Uses the machine's, else unpacks Debian's package, which the machine's own apt downloads, with the packages that its pages
# need in a browser.

# prometheus_program NAME
prometheus_program() {
  if command -v "$1" 2>/dev/null; then return 0; fi
  make_home
  install_once prometheus-with-pages prometheus_download
  printf '%s\n' "$CACHE/prometheus-with-pages/$1"
}

# prometheus_download DIRECTORY
prometheus_download() {
  local work=$1/work log=$LOGS/prometheus-download.log start=$EPOCHREALTIME
  command -v apt-get >/dev/null 2>&1 || prometheus_missing "there is no apt-get here to download it with"
  need dpkg-deb "unpacking Prometheus" "install it, for example: apt-get install dpkg"
  say prometheus "downloading Debian's package"
  mkdir "$work"
  pgbouncer_apt "$work" update >"$log" 2>&1 || prometheus_missing "the lists of apt could not be downloaded: see $log"
  pgbouncer_apt "$work" download prometheus >>"$log" 2>&1 || prometheus_missing "it could not be downloaded: see $log"
  dpkg-deb -x "$work"/prometheus_*.deb "$work/package" || prometheus_missing "its package could not be unpacked"
  prometheus_pages "$work" >>"$log" 2>&1 || say prometheus "its pages have no scripts: see $log"
  mv "$work/package/usr/bin/prometheus" "$work/package/usr/bin/promtool" "$work/package/usr/share" "$1"
  rm -rf "$work"
  say prometheus "downloaded in $(seconds_since "$start") s"
}

# prometheus_pages DIRECTORY: unpacks the scripts and fonts beside the package, whose pages have links to them.
prometheus_pages() {
  local packages package
  packages=$(dpkg-deb -f "$1"/prometheus_*.deb Depends | grep -oE '\b(libjs|fonts)-[a-z0-9.-]+') || return 0
  # shellcheck disable=SC2086 # one argument a package
  pgbouncer_apt "$1" download $packages libjs-d3 || return 1
  for package in "$1"/libjs-*.deb "$1"/fonts-*.deb; do dpkg-deb -x "$package" "$1/package" || return 1; done
  # 200 MB, which the script that the pages load has, too.
  rm -rf "$1/package/usr/share/javascript/moment-timezone/data"
}

prometheus_missing() {
  die "prometheus and promtool are missing, and $1; install them, for example: apt-get install prometheus"
}

# command_prometheus up|down|status: one that scrapes the relay on ANNALS_RELAY_HTTP, with the rules of ops/prometheus.
command_prometheus() {
  case ${1:-} in
    up)
      lock_home
      remember_instance
      if [[ $ANNALS_DEV_BACKEND == docker ]]; then prometheus_in_docker; else prometheus_up; fi
      unlock_home
      printf '%-9s %s\n' prometheus "$(prometheus_url), which scrapes a relay on ${ANNALS_RELAY_HTTP:-127.0.0.1:9464}"
      ;;
    down)
      if [[ $ANNALS_DEV_BACKEND == docker ]]; then compose stop prometheus grafana >&2; else native_stop prometheus; fi
      ;;
    status) prometheus_answers && printf '%s\n' "$(prometheus_url)" ;;
    *) die "prometheus: up, down or status" ;;
  esac
}

prometheus_url() { printf 'http://127.0.0.1:%s\n' "$ANNALS_PROMETHEUS_PORT"; }
prometheus_ports() { printf '%s\n' ANNALS_PROMETHEUS_PORT; }
prometheus_stop_signal() { printf 'TERM\n'; }
prometheus_answered() { :; }
prometheus_answers() (
  connect 127.0.0.1 "$ANNALS_PROMETHEUS_PORT" || exit 1
  printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3
  read -r -t 4 _ status _ <&3 && [[ $status == 200 ]]
)

prometheus_up() {
  component_pid prometheus >/dev/null || require_free_ports prometheus
  native_start prometheus
}

prometheus_prepare() {
  local program
  program=$(prometheus_program prometheus)
  mkdir -p "$HOME_DIR/prometheus"
  sed -e "s#127.0.0.1:9464#${ANNALS_RELAY_HTTP:-127.0.0.1:9464}#" -e "s#\\[alerts.yml\\]#[$CHECKOUT/ops/prometheus/alerts.yml]#" \
    "$CHECKOUT/ops/prometheus/prometheus.yml" >"$HOME_DIR/prometheus/prometheus.yml"
  ln -sfn "$program" "$HOME_DIR/prometheus/program"
}

# Prometheus refuses options that it does not know: the mark of our processes is its name instead.
prometheus_launch() {
  local pages options=()
  pages=$(dirname "$(readlink "$HOME_DIR/prometheus/program")")/share/prometheus/web/
  [[ ! -d $pages ]] || options=(--web.local-assets="$pages")
  # shellcheck disable=SC2016 # the inner bash expands these
  launch prometheus bash -c 'exec -a "$0" "$1/program" --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" \
    --storage.tsdb.retention.time=2d --web.listen-address="127.0.0.1:$2" "${@:3}"' \
    "--annals.dev=$HOME_DIR/prometheus" "$HOME_DIR/prometheus" "$ANNALS_PROMETHEUS_PORT" "${options[@]}"
}

prometheus_in_docker() { compose --profile observe up --detach prometheus grafana >&2; }
