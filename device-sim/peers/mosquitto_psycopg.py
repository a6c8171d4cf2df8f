"""Stores telemetry from an MQTT broker in Postgres, the way one would without Setpoint.

A paho-mqtt client in its own thread takes the messages; the main thread parses what has come, and copies it in one
transaction of up to BATCH rows. `device-sim bench telemetry --peer mosquitto-psycopg` runs it:

    python3 mosquitto_psycopg.py MQTT_PORT DATABASE_URL

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


def main(port: int, url: str) -> None:
    messages: queue.SimpleQueue = queue.SimpleQueue()
    subscribed = threading.Event()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="bench-subscriber")
    client.on_connect = lambda client, *_: client.subscribe("devices/+/telemetry", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: messages.put((message.topic, message.payload))

    with psycopg.connect(url) as connection:
        connection.execute(
            "create table telemetry"
            " (serial text not null, metric text not null, at timestamptz not null, value double precision not null)"
        )
        connection.commit()
        client.connect("127.0.0.1", port)
        client.loop_start()
        subscribed.wait()
        print("ready", flush=True)
        stored = 0
        while True:
            rows = rows_of(*messages.get())
            try:
                while len(rows) < BATCH:
                    rows += rows_of(*messages.get(timeout=WAIT))
            except queue.Empty:
                pass
            with connection.cursor() as cursor, cursor.copy(
                "copy telemetry (serial, metric, at, value) from stdin"
            ) as copy:
                for row in rows:
                    copy.write_row(row)
            connection.commit()
            stored += len(rows)
            print(stored, flush=True)


def rows_of(topic: str, payload: bytes) -> list[tuple[str, str, str, float]]:
    serial = topic.split("/")[1]
    samples = json.loads(payload)
    rows = []
    for sample in samples if isinstance(samples, list) else [samples]:
        at = sample.pop("at")
        rows += [(serial, metric, at, value) for metric, value in sample.items()]
    return rows


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
