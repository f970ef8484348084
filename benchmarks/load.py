"""Many callers at once: 16 gradio_client callers on several revisions for two minutes; prints a table, writes JSON.

    python benchmarks/load.py [--callers 16] [--seconds 120] [--revisions v1 v2 main]

Starts the app on the starter in a process of its own. Every answer is checked against the commit that was asked for; a
full queue that says so counts as refused, not as lost. The page is fetched every second, memory read from /proc.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--revisions", nargs="+", default=["v1", "v2", "main"])
    parser.add_argument("--policy", default="GREEN")
    parser.add_argument("--json", type=Path, default=Path("runs/load.json"))
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env={**os.environ, "GRADIO_SERVER_PORT": str(port)})
    try:
        _until_ready(url)
        found = measured(url, app.pid, args)
    finally:
        app.terminate()
        app.wait(30)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n")
    print("| what | found |\n|---|---:|")
    for name, value in found.items():
        print(f"| {name.replace('_', ' ')} | {value} |")


def measured(url: str, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    from gradio_client import Client, handle_file

    picture = handle_file(str(ROOT / "starter/examples/2-missing-wire.png"))
    client = Client(url, verbose=False)
    commits = {entry["name"]: entry["commit"] for entry in client.predict("", api_name="/revisions")}
    counts: Counter[str] = Counter()
    waits: list[float] = []
    pages: list[float] = []
    memory: list[tuple[float, float]] = []
    lock, stop = threading.Lock(), threading.Event()

    def call(number: int) -> None:
        caller = Client(url, verbose=False)
        turn = number
        while not stop.is_set():
            revision = args.revisions[turn % len(args.revisions)]
            turn += 1
            started = time.perf_counter()
            try:
                report, _ = caller.predict(picture, "", revision, args.policy, api_name="/inspect")
                outcome = "answered" if report["commit"] == commits[revision] else "wrong commit"
            except Exception as error:
                full = "queue" in f"{type(error).__name__} {error}".lower()
                outcome = "refused, queue full" if full else f"lost: {type(error).__name__}"
            with lock:
                counts[outcome] += 1
                waits.append(time.perf_counter() - started)

    def watch() -> None:
        while not stop.wait(1.0):
            started = time.perf_counter()
            with urllib.request.urlopen(url, timeout=30) as page:
                page.read()
            pages.append(time.perf_counter() - started)
            memory.append((time.perf_counter(), _resident_mb(pid)))

    begun = time.perf_counter()
    threads = [threading.Thread(target=call, args=(i,)) for i in range(args.callers)]
    threads.append(threading.Thread(target=watch))
    for thread in threads:
        thread.start()
    time.sleep(args.seconds)
    stop.set()
    for thread in threads:
        thread.join()
    half = begun + args.seconds / 2
    first = [mb for at, mb in memory if at <= half][-5:]
    return {
        "callers": args.callers,
        "seconds": args.seconds,
        "revisions": ", ".join(args.revisions),
        **dict(sorted(counts.items())),
        "wrong_commit": counts["wrong commit"],
        "lost": sum(count for outcome, count in counts.items() if outcome.startswith("lost")),
        "call_median_s": round(statistics.median(waits), 2),
        "page_median_s": round(statistics.median(pages), 3),
        "page_worst_s": round(max(pages), 3),
        "memory_at_half_time_mb": round(statistics.median(first)) if first else None,
        "memory_at_the_end_mb": round(statistics.median([mb for _, mb in memory[-5:]])),
    }


def _until_ready(url: str) -> None:
    body = json.dumps({"data": []}).encode()
    for _ in range(600):
        try:
            request = urllib.request.Request(f"{url}/gradio_api/run/health", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                if json.load(answer)["data"][0]["status"] == "ready":
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the app did not become ready within a minute")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
