"""``python -m tests.stream.sinks.http_receiver PORT DIRECTORY``: notes the events it is sent.

An event is in ``events.jsonl`` before it is answered. The file ``status`` has the status that it
answers with; events answered with any other than 200 are not noted.
"""

import json
import os
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def main(port: int, directory: Path) -> None:
    file = os.open(directory / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def take(request: Request) -> Response:
        body = await request.body()
        status = directory / "status"
        code = int(status.read_text()) if status.exists() else 200
        if code == 200:
            event = {
                "target": str(request.url.path) + f"?{request.url.query}",
                "headers": dict(request.headers),
                "body": json.loads(body),
            }
            os.write(file, json.dumps(event).encode() + b"\n")
        return Response(status_code=code)

    app = Starlette(routes=[Route("/events", take, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
