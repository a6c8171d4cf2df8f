#!/bin/sh
# Writes store/.sqlx, the answers of Postgres that `query!` is checked against when there is no database, from
# migrations/ and the queries as they are now. With --check it fails when that changes anything: the commit
# misses a run of this script. Needs PostgreSQL's programs; starts a throwaway server and leaves nothing behind.
set -eu

case "${1-}" in
"") check= ;;
--check) check=yes ;;
*) echo "usage: store/prepare.sh [--check]" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."

# PATH first, then where Debian, Fedora and Homebrew keep them; the newest version wins.
bin=
if initdb=$(command -v initdb); then
  bin=$(dirname "$(readlink -f "$initdb")")
else
  for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin; do
    [ ! -x "$dir/initdb" ] || bin=$dir
  done
fi
[ -n "$bin" ] || { echo "prepare.sh: no PostgreSQL found (initdb): install it" >&2; exit 1; }
psql=$bin/psql
[ -x "$psql" ] || psql=$(command -v psql) || { echo "prepare.sh: no psql found: install it" >&2; exit 1; }

# Postgres refuses to be root.
as=
if [ "$(id -u)" = 0 ]; then
  user=postgres
  id "$user" >/dev/null 2>&1 || user=nobody
  as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi

home=$(mktemp -d /tmp/setpoint-prepare.XXXXXX)
server=
finish() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$server" ]; then
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$home"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ -z "$as" ] || chown "$user" "$home"

unset PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGDATABASE PGOPTIONS PGSERVICE PGDATA
export LC_ALL=C PGHOST="$home" PGUSER=postgres
(cd / && exec $as "$bin/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$home/initdb.log") ||
  { cat "$home/initdb.log" >&2; exit 1; }
(cd / && exec $as "$bin/postgres" -D "$home/data" -k "$home" -c listen_addresses= -c fsync=off \
  -c autovacuum=off >"$home/log" 2>&1) &
server=$!
tries=0
until "$psql" -X -q -d postgres -c 'CREATE DATABASE setpoint' >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
    cat "$home/log" >&2
    exit 1
  fi
  sleep 0.1
done

# Each file in a transaction of its own, as the server applies it.
for file in migrations/*.sql; do
  PGOPTIONS='-c client_min_messages=warning' "$psql" -X -q -v ON_ERROR_STOP=1 -1 -d setpoint -f "$file"
done

# Written aside, so that a query that does not compile leaves the present ones alone.
mkdir "$home/sqlx"
# Cargo compiles (and sqlx asks) only what looks changed.
find store/src -name '*.rs' -exec touch {} +
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$home/sqlx" \
  DATABASE_URL="postgres://postgres@localhost/setpoint?host=$home" \
  cargo check --quiet -p setpoint-store --all-features

mkdir -p store/.sqlx
if [ -z "$check" ]; then
  rm -f store/.sqlx/query-*.json
  find "$home/sqlx" -name 'query-*.json' -exec cp {} store/.sqlx/ \;
elif ! diff -rq store/.sqlx "$home/sqlx" >&2 ||
  [ -n "$(git status --porcelain --untracked-files=all -- store/.sqlx)" ]; then
  git status --short --untracked-files=all -- store/.sqlx >&2
  echo "prepare.sh: store/.sqlx is out of date: run store/prepare.sh and commit the change" >&2
  exit 1
fi
