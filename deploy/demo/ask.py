"""Ask the gateway one question after the other, so that there is something to see.

    python ask.py ADDRESS FOLDER [NUMBER]

The key comes from M3ROUTER_API_KEYS; FOLDER is what questions.py wrote.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def main(address: str, folder: Path, number: int) -> None:
    """Ask so many questions, or without end for 0."""
    lines = (folder / "examples.jsonl").read_text().splitlines()
    key = os.environ.get("M3ROUTER_API_KEYS", "none").partition(",")[0]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    asked = 0
    while not number or asked < number:
        example = json.loads(random.choice(lines))
        image = base64.b64encode((folder / "images" / example["image"]).read_bytes()).decode()
        content = [
            {"type": "text", "text": example["question"]},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        ]
        body = {"model": "m3router/auto", "messages": [{"role": "user", "content": content}]}
        request = urllib.request.Request(
            f"{address}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            sys.stderr.write(f"{error.code}: {error.read().decode(errors='replace')[:200]}\n")
        except OSError as error:
            sys.stderr.write(f"{error}\n")
        asked += 1
        time.sleep(random.expovariate(5.0))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
