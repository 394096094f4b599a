#!/usr/bin/env bash
# Programs that were written for other purposes, on the malloc override: each must print and return
# what it does on the C library's malloc. About two minutes; with `long`, about ten.
#
#   ci/foreign.sh [long]         all programs
#   ci/foreign.sh program NAME   one of them, in the current folder, on the malloc of the caller

# What a program prints is compared, so none of these may print times, addresses or process numbers.

program_shell() {
    ls -l /usr/bin | awk '{ print $1, $5, $NF }' | sort | md5sum
    for n in {1..60}; do
        (echo "$n" | cat) | tr 1-9 a-i
    done | sort | uniq -c
    printf '%s\n' {1..200000} | shuf --random-source=<(yes) | sort -n | tail -2
}

program_perl() {
    perl -e '
        my (%h, @l);
        for my $n (1 .. 60000) { $h{"key$n"} = "value" x ($n % 30); push @l, $n * 7919 % 10007; }
        delete $h{"key$_"} for grep { $_ % 3 } 1 .. 60000;
        my $s = join ",", sort { $a <=> $b } @l;
        (my $t = $s) =~ s/(\d+),\1/$1/g;
        print scalar(keys %h), " ", length($s), " ", length($t), "\n";
        for (1 .. 20) { my $pid = fork // die; if (!$pid) { my @x = map { "x" x $_ } 1 .. 999; exit @x % 256; }
            waitpid $pid, 0; print $? >> 8, " "; }
        print "\n";'
}

program_sqlite() {
    sqlite3 test.db <<'END'
PRAGMA journal_mode = WAL;
CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, number REAL);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
  INSERT INTO t SELECT x, printf('word %d', x * 7919 % 10007), x * 1.5 FROM n;
CREATE INDEX words ON t (word, number);
UPDATE t SET word = word || word || word WHERE id % 3 = 0;
DELETE FROM t WHERE id % 7 = 0;
SELECT count(*), sum(number), max(length(word)), group_concat(DISTINCT id % 5) FROM t;
SELECT a.word, count(*) FROM t a JOIN t b ON a.word = b.word GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5;
VACUUM;
PRAGMA integrity_check;
END
}

program_git() {
    export GIT_CONFIG_NOSYSTEM=1 HOME=$PWD GIT_AUTHOR_DATE='1700000000 +0000'
    export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
    git config --global user.name someone
    git config --global user.email someone@example.org
    git config --global init.defaultBranch main
    git init -q origin
    for n in {1..25}; do
        for file in {1..12}; do
            seq $((n * file)) $((n * file + 400)) >"origin/file$file"
        done
        git -C origin add -A
        git -C origin commit -qm "commit $n"
    done
    git clone -q --no-local origin copy 2>/dev/null
    git -C copy gc -q --aggressive --prune=now
    git -C copy fsck --full --strict --no-progress
    git -C copy log --stat | md5sum
    git -C copy rev-parse HEAD
    git -C copy count-objects -v | grep -v ^size
    git -C copy blame file3 | md5sum
}

program_gcc() {
    cat >sum.c <<'END'
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
static int less(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(void) {
    enum { N = 100000 };
    int *list = malloc(N * sizeof *list);
    for (int n = 0; n < N; n++) list[n] = (int)(n * 7919L % 100003);
    qsort(list, N, sizeof *list, less);
    double sum = 0;
    for (int n = 0; n < N; n += 97) sum += sqrt(list[n]);
    free(list);
    printf("%.6f\n", sum);
}
END
    cat >map.cpp <<'END'
#include <iostream>
#include <map>
#include <regex>
#include <string>
int main() {
    std::map<std::string, int> words;
    std::regex word("[a-z]+");
    std::string text = "one two three two one two";
    for (std::sregex_iterator i(text.begin(), text.end(), word), end; i != end; ++i) words[i->str()]++;
    for (auto &[key, count] : words) std::cout << key << ' ' << count << '\n';
}
END
    gcc -O2 -Wall sum.c -o sum -lm
    ./sum
    ! command -v g++ >/dev/null || {
        g++ -std=c++17 -O2 -c map.cpp -o map.o
        md5sum <map.o
        g++ map.o -o map
        ./map
    }
}

# Small objects of Python come from its own allocator otherwise.
export PYTHONMALLOC=malloc

program_python() {
    python3 - <<'END'
import bz2, collections, concurrent.futures, hashlib, json, re, subprocess, sys, threading, zlib

data = {str(n): [n * k for k in range(n % 50)] for n in range(5000)}
text = json.dumps(data)
assert json.loads(text) == data
print(len(text), hashlib.md5(text.encode()).hexdigest())
for module in zlib, bz2:
    packed = module.compress(text.encode())
    assert module.decompress(packed) == text.encode()
    print(len(packed))
print(collections.Counter(re.findall(r"\d\d", text)).most_common(3))

def run(n):
    out = subprocess.run(["echo", str(n)], capture_output=True, check=True).stdout
    return int(out), len(json.dumps(list(range(n * 100))))

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(list(pool.map(run, range(40))))
threads = [threading.Thread(target=lambda: [bytearray(n * 100) for n in range(500)]) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
grown = bytearray()
for n in range(20000): grown += b"x" * (n % 100)
print(len(grown))
END
}

# Python's own tests; what it prints of time and order is left out.
program_python_tests() {
    local tests=(test_json test_dict test_list test_zlib) code=0
    [ -z "${FOREIGN_LONG:-}" ] || tests+=(test_threading test_subprocess test_io)
    python3 -m test "${tests[@]}" >tests.log 2>&1 || code=$?
    grep -E '^(Result: |All [0-9]+ tests OK|[0-9]+ tests? |    test_|FAIL: |ERROR: )' tests.log
    [ $code = 0 ] || tail -n 60 tests.log >&2
    return $code
}

program_redis() {
    redis-server --port 0 --unixsocket "$PWD/socket" --save '' --dir "$PWD" >server.log 2>&1 &
    local server=$! count=10000
    [ -z "${FOREIGN_LONG:-}" ] || count=200000
    ask() { redis-cli -s "$PWD/socket" "$@"; }
    for _ in {1..1000}; do
        [ "$(ask ping 2>/dev/null)" != PONG ] || break
        sleep 0.1
    done
    redis-benchmark -s "$PWD/socket" -q -n $count -t set,get,incr,lpush,rpush,sadd,hset,mset \
        >benchmark.log 2>&1
    ask eval "for n = 1, $count do redis.call('set', 'k' .. n, string.rep('v', n % 900)) end" 0
    # Forks, and writes all from the child.
    ask bgsave
    ask eval "for n = 1, $count, 3 do redis.call('append', 'k' .. n, 'more') end" 0
    for _ in {1..1000}; do
        [ "$(ask info persistence | grep -c '^rdb_bgsave_in_progress:1')" != 0 ] || break
        sleep 0.1
    done
    ask info persistence | grep '^rdb_last_bgsave_status'
    ask dbsize
    ask llen mylist
    ask get counter:__rand_int__
    ask eval "local sum = '' for n = 1, $count do
        sum = redis.sha1hex(sum .. redis.call('get', 'k' .. n)) end return sum" 0
    ask shutdown nosave
    wait $server
}

program_stress() {
    local ops=5000
    [ -z "${FOREIGN_LONG:-}" ] || ops=50000
    # Bounds for what it holds: it would fill the machine.
    set -- --quiet --malloc 2 --malloc-max 200 --malloc-ops $ops --verify --timeout 250s
    stress-ng "$@" --malloc-bytes 32m 2>&1
    stress-ng "$@" --malloc-bytes 2m --malloc-pthreads 3 --malloc-touch 2>&1
}

if [ "${1:-}" = program ]; then
    set -euo pipefail
    "program_$2"
    exit
fi

source "$(dirname "$0")/lib.sh"
script=$PWD/ci/foreign.sh
export LC_ALL=C
unset LD_PRELOAD FOREIGN_LONG
if [ "${1:-}" = long ]; then
    export FOREIGN_LONG=1
fi

step "the malloc override"
cargo build --quiet --release -p hostmem_malloc
override=$(realpath "${CARGO_TARGET_DIR:-target}/release/libhostmem_malloc.so")
LD_PRELOAD=$override grep -q 'libhostmem_malloc' /proc/self/maps

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs a program in a folder of its own; keeps what it prints and returns.
run_on() { # malloc, program
    local folder=$work/$2.$1 code=0
    mkdir "$folder"
    if [ "$1" = override ]; then
        local -x LD_PRELOAD=$override
    fi
    (cd "$folder" && exec timeout 600 "$BASH" "$script" program "$2") \
        >"$work/$2.$1.out" 2>"$work/$2.$1.err" </dev/null || code=$?
    echo "exit code $code" >>"$work/$2.$1.out"
}

failed=()
compare() { # program
    local began=$EPOCHREALTIME between ended
    run_on libc "$1"
    between=$EPOCHREALTIME
    run_on override "$1"
    ended=$EPOCHREALTIME
    awk -v n="$1" -v a="$began" -v b="$between" -v c="$ended" \
        'BEGIN { printf "%-14s C library %6.2f s, override %6.2f s\n", n, b - a, c - b }'
    if ! diff -u "$work/$1.libc.out" "$work/$1.override.out"; then
        failed+=("$1")
        tail -n 40 "$work/$1.override.err"
    elif ! grep -qx 'exit code 0' "$work/$1.libc.out"; then
        tail -n 5 "$work/$1.libc.err"
        skip "$1 fails on the C library's malloc, too"
    fi
}

# Compares a program, if what it needs is there or can be installed.
try() { # program, command, package
    if command -v "$2" >/dev/null || install_packages "$3"; then
        compare "$1"
    else
        skip "$1: $2 cannot be had"
    fi
}

step "programs"
compare shell
try perl perl perl
try sqlite sqlite3 sqlite3
try git git git
try gcc gcc gcc
try python python3 python3
try stress stress-ng stress-ng
try redis redis-benchmark redis-server
if python3 -c 'import test.test_json, test.test_list' 2>/dev/null ||
    install_packages "lib$(readlink "$(command -v python3)")-testsuite" 2>/dev/null; then
    compare python_tests
else
    skip "python's own tests cannot be had"
fi
if [ ${#failed[@]} != 0 ]; then
    printf 'not as on the C library: %s\n' "${failed[*]}" >&2
    exit 1
fi
