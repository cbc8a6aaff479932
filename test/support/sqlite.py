"""A database as Orthanc keeps its index, and the look at restored copies of it.

    python3 sqlite.py write FILE SECONDS    rows without pause, each commit told as "ROWS MILLISECONDS" on standard output
    python3 sqlite.py look DIRECTORY...     for each: what integrity_check says, how many rows, the lowest and highest

The writer holds one connection in EXCLUSIVE + WAL mode all the time: the log is overwritten in place at constant size, nothing is
ever closed, and nobody else can ask the database for a copy.
"""
import json
import os
import sqlite3
import sys
import time

NAME = "index"


def write(path, seconds):
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=400"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("CREATE TABLE instances (id INTEGER PRIMARY KEY, uid TEXT NOT NULL, tags BLOB NOT NULL)")
    db.execute("CREATE INDEX uids ON instances (uid)")
    print(f"0 {time.time() * 1000:.3f}", flush=True)
    row = 0
    end = time.time() + seconds
    while time.time() < end:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(1 + row % 3):
            row += 1
            db.execute("INSERT INTO instances VALUES (?, ?, ?)", (row, f"1.2.{row * 7919 % 100003}.{row}", os.urandom(200 + row % 900)))
        db.execute("COMMIT")
        print(f"{row} {time.time() * 1000:.3f}", flush=True)
        # Two hundred commits a second, with a short rest now and then, as a modality sends.
        time.sleep(0.2 if row % 500 < 3 else 0.005)
    # As a crash would: never closed.
    os._exit(0)


def look(directory):
    try:
        db = sqlite3.connect(os.path.join(directory, NAME))
        check = db.execute("PRAGMA integrity_check").fetchone()[0]
        exists = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'instances'").fetchone()[0]
        rows, low, high = db.execute("SELECT count(*), min(id), max(id) FROM instances").fetchone() if exists else (0, None, None)
        return {"check": check, "rows": rows, "low": low or 0, "high": high or 0}
    except sqlite3.Error as error:
        return {"check": f"{error}", "rows": -1, "low": -1, "high": -1}


if sys.argv[1] == "write":
    write(sys.argv[2], float(sys.argv[3]))
else:
    print(json.dumps([look(directory) for directory in sys.argv[2:]]))
