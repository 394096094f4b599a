# The programs of ci/preload.sh: what each does, in the current folder. Sourced, not run.

# What a program prints is compared, so none of these may print times, addresses or process numbers.

is_long() {
    [ -n "${PRELOAD_LONG:-}" ]
}

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

program_git_here() {
    export GIT_CONFIG_NOSYSTEM=1 HOME=$PWD
    git config --global safe.directory '*'
    git clone -q --no-local --bare "$PRELOAD_ROOT" copy 2>/dev/null
    git -C copy gc -q --prune=now
    git -C copy fsck --full --strict --no-progress
    # What is committed here meanwhile is left out.
    git -C copy log --stat --no-color "$PRELOAD_HEAD" | md5sum
    git -C copy rev-list --objects "$PRELOAD_HEAD" | sort | md5sum
}

sources() {
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
}

program_gcc() {
    sources
    gcc -O2 -Wall sum.c -o sum -lm
    ./sum
    g++ -std=c++17 -O2 -c map.cpp -o map.o
    md5sum <map.o
    g++ map.o -o map
    ./map
    gcc -O2 -flto -c sum.c -o sum.o
    gcc -O2 -flto=2 sum.o -o sum -lm
    ./sum
    is_long || return 0
    g++ -std=c++17 -O2 -flto -c map.cpp -o map.o
    g++ -std=c++17 -O2 -flto=2 map.o -o map
    ./map
}

program_clang() {
    sources
    clang -O2 -Wall sum.c -o sum -lm
    ./sum
    clang++ -std=c++17 -O2 -c map.cpp -o map.o
    md5sum <map.o
    clang++ map.o -o map
    ./map
}

# Small objects of Python come from its own allocator otherwise.
export PYTHONMALLOC=malloc

program_python() {
    "${PRELOAD_PYTHON:-python3}" - <<'END'
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

# Some of Python's own tests; what it prints of time and order is left out.
python_tests() { # tests
    local code=0
    "${PRELOAD_PYTHON:-python3}" -m test "$@" >tests.log 2>&1 || code=$?
    grep -E '^(Result: |All [0-9]+ tests OK|[0-9]+ tests? |    test_|FAIL: |ERROR: )' tests.log
    [ $code = 0 ] || tail -n 60 tests.log >&2
    return $code
}

program_python_tests() {
    python_tests test_json test_dict test_list test_zlib test_array test_re test_fork1
}

program_python_threads() {
    # The one that is left out fails on pythons that were built from source, whatever the malloc.
    python_tests -i test_import_from_another_thread test_threading test_subprocess test_io test_gc
}

# The files that run these tests by each way to start a process are not in all packages of Python.
python_processes() { # way to start
    cat >"processes_$1.py" <<END
import unittest
from test import _test_multiprocessing
_test_multiprocessing.install_tests_in_module_dict(globals(), '$1')
if __name__ == '__main__':
    unittest.main()
END
    local code=0
    "${PRELOAD_PYTHON:-python3}" "processes_$1.py" -k WithProcessesTestPool \
        -k WithProcessesTestQueue -k WithProcessesTestSharedCTypes >processes.log 2>&1 || code=$?
    grep -E '^(OK|FAIL|ERROR)' processes.log
    [ $code = 0 ] || tail -n 60 processes.log >&2
    return $code
}

program_python_rest() {
    python_tests test_ctypes
    python_processes fork
    python_processes spawn
}

program_redis() {
    redis-server --port 0 --unixsocket "$PWD/socket" --save '' --dir "$PWD" >server.log 2>&1 &
    local server=$! count=10000
    [ -z "${PRELOAD_LONG:-}" ] || count=200000
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
    local ops=3000
    ! is_long || ops=50000
    # Bounds for what it holds: it would fill the machine.
    set -- --quiet --malloc 2 --malloc-max 100 --malloc-ops $ops --verify --timeout 500s
    stress-ng "$@" --malloc-bytes 16m 2>&1
    stress-ng "$@" --malloc-bytes 2m --malloc-pthreads 3 --malloc-touch 2>&1
    for kind in fork vfork pthread; do
        stress-ng --quiet --$kind 2 --$kind-ops $((ops / 10)) --timeout 500s 2>&1
    done
}

program_archive() {
    local last=100000
    ! is_long || last=1500000
    mkdir files
    for n in {1..50}; do
        seq "$n" $((last / n + n)) >files/$n
    done
    tar --sort=name --mtime=@0 --owner=0 --group=0 -c files | xz -T2 --block-size=1MiB >files.tar.xz
    md5sum <files.tar.xz
    xz -dc -T2 files.tar.xz | tar -x -O | md5sum
}

program_java() {
    cat >Main.java <<'END'
import java.nio.ByteBuffer;
import java.util.*;
import java.util.concurrent.*;
import java.util.zip.*;

public class Main {
    static long work(int seed) {
        long sum = 0;
        ByteBuffer[] buffers = new ByteBuffer[100];
        for (int n = 0; n < 5000; n++) {
            buffers[n % 100] = ByteBuffer.allocateDirect(100 + n * seed % 5000);
            sum += buffers[n % 100].capacity();
        }
        Deflater deflater = new Deflater();
        deflater.setInput(new byte[100000 + seed]);
        deflater.finish();
        sum += deflater.deflate(new byte[10000]);
        deflater.end();
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<Long>> sums = new ArrayList<>();
        for (int n = 0; n < 64; n++) {
            int seed = n;
            sums.add(threads.submit(() -> work(seed)));
        }
        for (Future<Long> sum : sums) System.out.println(sum.get());
        threads.shutdown();
    }
}
END
    javac Main.java
    java Main
}

# A server of several processes, which share memory; it refuses to run as root.
program_postgres() {
    local server=() tools
    tools=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
    if [ "$(id -u)" = 0 ]; then
        chmod 711 .. && chown postgres .
        server=(runuser -u postgres --)
    fi
    "${server[@]}" "$tools/initdb" --no-sync -D data >initdb.log
    "${server[@]}" "$tools/pg_ctl" -D data -o "-k '$PWD' -h ''" -l server.log -w start >/dev/null
    run_sql() { "${server[@]}" "$tools/psql" -h "$PWD" -At postgres; }
    "${server[@]}" "$tools/pgbench" -h "$PWD" -i -s 3 postgres 2>/dev/null
    "${server[@]}" "$tools/pgbench" -h "$PWD" -c 4 -j 2 -t 500 postgres 2>/dev/null | grep processed
    run_sql <<'END'
SELECT count(*), sum(length(repeat(md5(g::text), g % 50))) FROM generate_series(1, 200000) g;
SELECT md5(string_agg(md5(g::text), '' ORDER BY -g)) FROM generate_series(1, 200000) g;
END
    "${server[@]}" "$tools/pg_ctl" -D data -m fast stop >/dev/null
}

program_openssl() {
    # It prints how quick it was; that it came to its end is what is compared.
    openssl speed -seconds 1 -evp aes-128-gcm >/dev/null 2>&1
    openssl speed -seconds 1 rsa1024 >/dev/null 2>&1
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -subj /CN=host -days 1 2>&1 |
        grep -v '^[.+*-]*$' || true
    openssl verify -CAfile certificate certificate
    seq 100000 | openssl enc -aes-256-cbc -pbkdf2 -pass pass:word -out sealed
    openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:word -in sealed | md5sum
}

program_node() {
    cat >main.js <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { gzipSync, gunzipSync } = require('zlib');
const { createHash } = require('crypto');
const rounds = process.env.PRELOAD_LONG ? 20 : 3;
function work(seed) {
  let sum = createHash('md5');
  for (let round = 0; round < rounds; round++) {
    const list = [];
    for (let n = 0; n < 20000; n++) list.push({ n, text: 'x'.repeat((n * seed) % 50) });
    const text = JSON.stringify(list);
    sum.update(gunzipSync(gzipSync(text)));
    for (let n = 0; n < 300; n++) sum.update(Buffer.alloc(1 + ((n * 7919) % 100000), n));
  }
  return sum.digest('hex');
}
if (isMainThread) {
  const results = [];
  let left = 4;
  for (let n = 0; n < 4; n++) {
    const worker = new Worker(__filename, { workerData: n + 1 });
    worker.on('message', (m) => (results[n] = m));
    worker.on('exit', () => { if (--left === 0) console.log(results.join('\n')); });
  }
} else parentPort.postMessage(work(workerData));
END
    node main.js
}

program_cargo() {
    # Into a folder of its own; what a build prints has times.
    (cd "$PRELOAD_ROOT" && cargo build --offline --target-dir "$OLDPWD/target") \
        >build.log 2>&1 || { tail -n 40 build.log >&2; return 1; }
    find target/debug -maxdepth 1 -name '*.rlib' -printf '%f\n' | sort
}
