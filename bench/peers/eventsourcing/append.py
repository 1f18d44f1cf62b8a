"""Appends with the Python package eventsourcing, one process and connection a client.

append.py URL CLIENTS SECONDS STREAMS, the event's JSON on standard input. Says what it counted in the words of pgbench.
"""

import multiprocessing
import random
import sys
import time
import uuid
from urllib.parse import urlparse

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

SEED_EVENTS = 1000
TOPIC = "parcel:ParcelScanned"


def recorder(url):
    at = urlparse(url)
    store = PostgresDatastore(
        dbname=at.path.lstrip("/"), host=at.hostname, port=at.port, user=at.username, password=at.password
    )
    return PostgresApplicationRecorder(store, events_table_name="stored_events")


def stream(number):
    return uuid.UUID(int=(0x4A << 120) + number * 0x9E3779B97F4A7C15 % (1 << 120))


def append(url, client, seconds, streams, state, ready, counted):
    events = recorder(url)
    events.insert_events([StoredEvent(stream(client), -1 - client, TOPIC, state)])
    ready.wait()
    begun, appends = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        # The client chooses the version, as in the smallest insert: no two clients ever choose the
        # same.
        version = client * 1_000_000_000 + appends + 1
        events.insert_events([StoredEvent(stream(random.randrange(streams)), version, TOPIC, state)])
        appends += 1
    counted.put((appends, appends / (time.monotonic() - begun)))


def main():
    url, clients, seconds, streams = sys.argv[1], *map(int, sys.argv[2:5])
    state = sys.stdin.buffer.read()
    first = recorder(url)
    first.create_table()
    for start in range(0, streams, SEED_EVENTS):
        numbers = range(start, min(start + SEED_EVENTS, streams))
        first.insert_events([StoredEvent(stream(number), 0, TOPIC, state) for number in numbers])
    first.datastore.close()
    spawn = multiprocessing.get_context("spawn")
    ready, counted = spawn.Barrier(clients), spawn.Queue()
    shared = (seconds, streams, state, ready, counted)
    processes = [spawn.Process(target=append, args=(url, client, *shared), daemon=True) for client in range(clients)]
    for process in processes:
        process.start()
    results = [counted.get(timeout=seconds + 120) for _ in processes]
    # The events from before the clock started are recorded, too.
    recorded = sum(appends for appends, _ in results) + clients + streams
    print(f"number of transactions actually processed: {recorded}")
    print(f"tps = {sum(rate for _, rate in results)} ")


if __name__ == "__main__":
    main()
