"""Stores telemetry from an MQTT broker in Postgres, the way one would without Setpoint.

A paho-mqtt client in its own thread takes the messages; the main thread parses what has come, and writes it in one
transaction of up to BATCH rows. `device-sim bench telemetry --peer mosquitto-psycopg` runs it:

    python3 mosquitto_psycopg.py MQTT_PORT DATABASE_URL [plain|keyed]

- `plain`: COPY into a table without an index. Messages are acknowledged as they are read, so those that wait for their
  commit are lost when this ends, and what comes twice is stored twice.
- `keyed`: a primary key over serial, metric and time. COPY into a temporary table, and from there what is not there yet.
  Messages are acknowledged after their commit, in a session that the broker keeps: none is lost, each is stored once.

Prints `ready` once it is subscribed, and after each commit how many rows it has stored in all.
"""

import json
import queue
import sys
import threading

import paho.mqtt.client as mqtt
import psycopg

BATCH = 5_000
WAIT = 0.01  # seconds that a batch waits for more

COLUMNS = "serial text not null, metric text not null, at timestamptz not null, value double precision not null"


def main(port: int, url: str, keyed: bool) -> None:
    messages: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
    subscribed = threading.Event()

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id="bench-subscriber", clean_session=not keyed, manual_ack=keyed
    )
    client.on_connect = lambda client, *_: client.subscribe("devices/+/telemetry", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: messages.put(message)

    with psycopg.connect(url) as connection:
        if keyed:
            connection.execute(f"create table telemetry ({COLUMNS}, primary key (serial, metric, at))")
            connection.execute(f"create temporary table staging ({COLUMNS}) on commit delete rows")
        else:
            connection.execute(f"create table telemetry ({COLUMNS})")
        connection.commit()
        client.connect("127.0.0.1", port)
        client.loop_start()
        subscribed.wait()
        print("ready", flush=True)
        stored = 0
        while True:
            message = messages.get()
            batch, rows = [message], rows_of(message)
            try:
                while len(rows) < BATCH:
                    message = messages.get(timeout=WAIT)
                    batch.append(message)
                    rows += rows_of(message)
            except queue.Empty:
                pass
            with connection.cursor() as cursor:
                if keyed:
                    copy(cursor, "staging", rows)
                    cursor.execute("insert into telemetry select * from staging on conflict do nothing")
                    stored += cursor.rowcount
                else:
                    copy(cursor, "telemetry", rows)
                    stored += len(rows)
            connection.commit()
            if keyed:
                for message in batch:
                    client.ack(message.mid, message.qos)
            print(stored, flush=True)


def copy(cursor: psycopg.Cursor, table: str, rows: list[tuple[str, str, str, float]]) -> None:
    with cursor.copy(f"copy {table} (serial, metric, at, value) from stdin") as to:
        for row in rows:
            to.write_row(row)


def rows_of(message: mqtt.MQTTMessage) -> list[tuple[str, str, str, float]]:
    serial = message.topic.split("/")[1]
    samples = json.loads(message.payload)
    rows = []
    for sample in samples if isinstance(samples, list) else [samples]:
        at = sample.pop("at")
        rows += [(serial, metric, at, value) for metric, value in sample.items()]
    return rows


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], keyed=sys.argv[3:] == ["keyed"])
