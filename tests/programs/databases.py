"""sqlite3 with a database in memory, and redis-server under load."""

import hashlib
import os
import signal
import subprocess
import time

from program import Program
from workplace import ProgramFailed, scaled

SQL = """
PRAGMA cache_size = -400000;
CREATE TABLE event(id INTEGER PRIMARY KEY, kind INTEGER, owner INTEGER, value REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO event SELECT i, (i * 7919) % 97, (i * 104729) % 5003, (i * 31 % 1000) / 8.0,
  printf('%064d-%s-%0128d', i * 2654435761 % 4294967296, hex(i * 40503 % 65536), i % 1000003) FROM n;
CREATE INDEX by_owner ON event(owner, kind);
CREATE INDEX by_note ON event(substr(note, 30, 30));
CREATE TABLE owner AS SELECT owner AS id, count(*) AS events, total(value) AS sum FROM event GROUP BY owner;
SELECT count(*), total(value), max(note) FROM event;
SELECT kind, count(*), round(avg(value), 6), min(note) FROM event GROUP BY kind ORDER BY kind;
SELECT o.id, o.events, o.sum, e.kind, count(*) FROM owner o JOIN event e ON e.owner = o.id
  WHERE o.id % 50 = 0 GROUP BY o.id, e.kind ORDER BY o.id, e.kind LIMIT 500;
SELECT count(DISTINCT substr(note, 40, 20)) FROM event;
DELETE FROM event WHERE id % 3 = 0;
UPDATE event SET note = note || note WHERE id % 10 = 1;
SELECT count(*), sum(length(note)) FROM event;
SELECT note FROM event ORDER BY substr(note, 60, 10), id LIMIT 20;
VACUUM;
PRAGMA integrity_check;
"""


def run_sqlite(place):
    out = place.run(["sqlite3", ":memory:"], stdin_text=SQL.format(rows=scaled(550000, 60000)).encode())
    return {"stdout": out.decode()}


def commands(count):
    """A fixed data set for redis, of all of its types, in its own protocol."""
    def encode(*words):
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            word = str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        return b"".join(parts)

    lines = []
    for i in range(count):
        text = hashlib.md5(str(i).encode()).hexdigest()
        lines.append(encode("SET", f"string:{i}", text * (i % 20 + 1)))
        lines.append(encode("HSET", f"hash:{i % 500}", f"field{i}", text))
        lines.append(encode("RPUSH", f"list:{i % 300}", text))
        lines.append(encode("ZADD", f"sorted:{i % 100}", i * 37 % 1000, text))
        lines.append(encode("SADD", f"set:{i % 200}", text[:8]))
        if i % 3 == 0:
            lines.append(encode("DEL", f"string:{i // 2}"))
        if i % 50 == 0:
            lines.append(encode("SET", f"large:{i}", text * 4000))
    return b"".join(lines)


class Redis:
    """A server on a socket in the folder of the run; nothing of it is reachable from outside."""

    def __init__(self, place):
        self.place = place
        self.socket = place.path("s")
        if len(self.socket) > 100:
            raise ProgramFailed(f"the path of the socket is too long: {self.socket}")
        self.log = open(place.path("log"), "w+b")
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no", "--dir",
                   place.folder, "--enable-debug-command", "local", "--io-threads", "2", "--activedefrag", "no"]
        self.server = place.start(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        for _ in range(500):
            if os.path.exists(self.socket) and self.client("PING", check=False) == "PONG\n":
                return
            if self.server.poll() is not None:
                break
            time.sleep(0.02)
        self.close()
        raise ProgramFailed(f"redis-server does not answer:\n{self.read_log()}")

    def read_log(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]

    def client(self, *words, check=True, stdin_text=None):
        command = ["redis-cli", "-s", self.socket, *words]
        if check:
            return self.place.run(command, stdin_text=stdin_text).decode()
        return subprocess.run(command, env=self.place.environment(), capture_output=True, check=False).stdout.decode()

    def wait_for_save(self):
        for _ in range(1500):
            info = self.client("INFO", "persistence")
            if "rdb_bgsave_in_progress:0" in info:
                if "rdb_last_bgsave_status:ok" not in info:
                    raise ProgramFailed(f"BGSAVE failed:\n{self.read_log()}")
                return
            time.sleep(0.02)
        raise ProgramFailed("BGSAVE does not end")

    def shut_down(self):
        self.client("SHUTDOWN", "SAVE", check=False)
        try:
            code = self.server.wait(60)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"redis-server does not end:\n{self.read_log()}") from None
        log = self.read_log()
        self.place.judge(["redis-server"], code, log.encode(), 0, b"")
        if "bye bye" not in log:
            raise ProgramFailed(f"no clean shutdown:\n{log}")

    def close(self):
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()


def run_redis(place):
    redis = Redis(place)
    try:
        requests = scaled(15000, 3000)
        # The benchmark's keys are random: it is load, and what it leaves is thrown away.
        place.run(["redis-benchmark", "-s", redis.socket, "-n", str(requests), "-c", "20", "-P", "8", "-r", "50000", "-d", "300",
                   "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd,mset", "-q"])
        redis.client("FLUSHALL")
        answer = redis.client("--pipe", stdin_text=commands(scaled(15000, 2000)))
        if "errors: 0" not in answer:
            raise ProgramFailed(answer)
        # A fork whose child reads all of the heap while the parent goes on writing.
        redis.client("BGSAVE")
        place.run(["redis-benchmark", "-s", redis.socket, "-n", str(requests // 4), "-r", "10000", "-d", "100", "-t", "set", "-q"])
        redis.wait_for_save()
        redis.client("EVAL", "for _, k in ipairs(redis.call('keys', 'key:*')) do redis.call('del', k) end", "0")
        outputs = {"digest": redis.client("DEBUG", "DIGEST"), "size": redis.client("DBSIZE")}
        # Written by the parent, read back: an end that loses nothing.
        outputs["after reload"] = redis.client("DEBUG", "RELOAD") + redis.client("DEBUG", "DIGEST")
        redis.shut_down()
    finally:
        redis.close()
        redis.log.close()
    return outputs


PROGRAMS = [
    Program("sqlite3", run_sqlite, {"sqlite3": "sqlite3"}, large=True),
    Program("redis", run_redis, {"redis-server": "redis-server", "redis-cli": "redis-tools", "redis-benchmark": "redis-tools"},
            large=True),
]
