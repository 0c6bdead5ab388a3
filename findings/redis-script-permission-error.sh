#!/usr/bin/env bash
# Redis 7.0.15 (Debian 12, package redis-tools 5:7.0.15-1~deb12u10): inside a script a missing permission is no NOPERM.
#
# Expected: a command that a user's ACL forbids fails with the error code NOPERM, whether it is sent
#   alone or called by a script; so a client that tells "not allowed" from other errors looks for that
#   code, as the documentation of ACLs suggests.
# Seen: sent alone, each of these is NOPERM:
#     PUBLISH to a channel that is not allowed, RPUSH to a key that is not, a command that is not.
#   Called by a script of the same user they are plain ERR, and only the text tells them apart:
#     ERR The user executing the script can't publish to the channel mentioned in the command script: …
#     ERR The user executing the script can't access at least one of the keys mentioned in the command …
#     ERR The user executing the script can't run this command or subcommand script: …
#   The script's writes before the refused command stay. `redis.pcall` gives the same text.
# Why it matters: a program that does its work by scripts, as job queues do, takes a missing right for
#   a fault of the server and retries for ever; and an ACL user has no channel rights by default, so a
#   script that pushes and then publishes fails after the push was done, and the retry pushes twice.
# Exits 0 if it is still so, 1 if something changed, 2 if it could not be tried.
set -euo pipefail
version='5:7.0.15-1~deb12u10'
work=$(mktemp -d)
server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
cd "$work"
for package in "redis-tools=$version" libatomic1 libjemalloc2 liblzf1; do
    apt-get download -q "$package" >apt.log 2>&1 || { cat apt.log >&2; echo "cannot get $package" >&2; exit 2; }
done
for deb in *.deb; do dpkg-deb -x "$deb" root; done
library=$(dirname "$(find root -name 'liblzf.so*' | head -1)")
export LD_LIBRARY_PATH="$work/$library"
cp root/usr/bin/redis-check-rdb redis-server
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
./redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >server.log 2>&1 &
server=$!
admin() { root/usr/bin/redis-cli -p "$port" "$@" 2>&1; }
for _ in $(seq 100); do [ "$(admin ping || true)" = PONG ] && break; sleep 0.1; done
[ "$(admin ping)" = PONG ] || { cat server.log >&2; exit 2; }
admin ACL SETUSER few on '>secret' '+@all' '-incr' '~mine' >/dev/null
few() { root/usr/bin/redis-cli -p "$port" --user few --pass secret --no-auth-warning "$@" 2>&1 || true; }

changed=0
expect() { # WHAT BEGINNING TEXT
    echo "$1: $3"
    case $3 in "$2"*) ;; *) echo "  changed: it began with \`$2\`"; changed=1 ;; esac
}
expect 'channel, sent alone' 'NOPERM' "$(few PUBLISH news hello)"
expect 'key, sent alone' 'NOPERM' "$(few RPUSH other x)"
expect 'command, sent alone' 'NOPERM' "$(few INCR mine)"
says="ERR The user executing the script can't"
push_then_tell="redis.call('RPUSH', KEYS[1], 'job'); redis.call('PUBLISH', 'news', 'hello'); return 'done'"
expect 'channel, in a script' "$says publish to the channel" "$(few EVAL "$push_then_tell" 1 mine)"
expect 'key, in a script' "$says access at least one of the keys" "$(few EVAL "return redis.call('RPUSH', 'other', 'x')" 0)"
expect 'command, in a script' "$says run this command" "$(few EVAL "return redis.call('INCR', KEYS[1])" 1 mine)"
expect 'the push before the refused publish stays' '1' "$(admin LLEN mine)"
exit "$changed"
