"""Cold start: process start to the first score, to the page, to the first decision, and a change of revision.

    python benchmarks/start.py [--runs 5] [--json FILE]

Every run is a fresh process on the starter; the files are cached, by the machine too. Prints the medians beside their
floors. Times mean something on a quiet machine only.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "starter/examples/2-missing-wire.png"
FLOORS = {  # seconds
    "process start to first score": 3.5,
    "page served": 5.0,
    "first decision": 8.0,
    "change of revision, files cached": 1.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(args.runs)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(runs: int) -> list[dict[str, Any]]:
    """A row for each of FLOORS; the seconds of every run are kept."""
    seconds: dict[str, list[float]] = {name: [] for name in FLOORS}
    command = [sys.executable, "-m", "anomaly", "inspect", str(PICTURE)]
    first_line_s(command)  # brings the libraries into the machine's cache
    for _ in range(runs):
        seconds["process start to first score"].append(first_line_s(command))
        for name, value in app_s().items():
            seconds[name].append(value)
    return [row(name, values) for name, values in seconds.items()]


def row(name: str, seconds: list[float]) -> dict[str, Any]:
    middle = median(seconds)
    return {
        "measure": name,
        "median_s": middle,
        "floor_s": FLOORS[name],
        "met": middle <= FLOORS[name],
        "seconds": seconds,
    }


def first_line_s(command: list[str]) -> float:
    """From the start of a process to its first line on stdout."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = time.perf_counter() - started
        process.stdout.read()
    if not line or process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return found


def app_s() -> dict[str, float]:
    """Of one `python app.py`; the first picture is sent as soon as the page is there."""
    from gradio_client import Client, handle_file

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    started = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not answers(url):
            if app.poll() is not None:
                raise SystemExit(f"app.py ended with exit code {app.returncode}")
            time.sleep(0.02)
        page = time.perf_counter() - started
        client = Client(url, verbose=False)
        client.predict(handle_file(PICTURE), "", "v2", "", api_name="/inspect")
        decision = time.perf_counter() - started
        asked = time.perf_counter()
        client.predict(handle_file(PICTURE), "", "v1", "", api_name="/inspect")
        change = time.perf_counter() - asked
        client.close()
    finally:
        app.terminate()
        app.wait(30)
    return {"page served": page, "first decision": decision, "change of revision, files cached": change}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return b"gradio" in page.read()
    except (urllib.error.URLError, ConnectionError):
        return False


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| cold start | median s | floor s | |", "|---|---:|---:|---|"]
    lines += [
        f"| {row['measure']} | {row['median_s']:.2f} | {row['floor_s']:g} | {'met' if row['met'] else 'not met'} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
