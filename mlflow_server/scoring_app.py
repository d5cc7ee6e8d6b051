"""MLflow's scoring server, with a note on every answer and errors in one sentence.

uvicorn runs `make_app` in a process of its own. Owns what is said beside the predictions. Imports
none of our packages: the model brings its own code.
"""

import json
import os

from fastapi import FastAPI, Request, Response
from mlflow.pyfunc import scoring_server

MODEL, NAME, NOTE = "__pyfunc_model_path__", "SCORING_NAME", "SCORING_NOTE"  # environment
JSON = scoring_server.CONTENT_TYPE_JSON
LONGEST = 300  # letters of a sentence; MLflow's repeat what was sent


def make_app() -> FastAPI:
    """The server over the model that the environment names; the first is MLflow's own variable."""
    model = scoring_server.load_model_with_mlflow_config(os.environ[MODEL])
    name, note = os.environ[NAME], os.environ[NOTE]
    app = scoring_server.init(model)

    @app.get("/")
    async def about() -> dict[str, str]:
        """Which model answers, and how it is asked."""
        ask = 'POST /invocations {"inputs": [<base64 of an image file, or rows of pixels>, ...]}'
        return {"model": name, "ask": ask, "note": note}

    @app.middleware("http")
    async def with_note(request: Request, call_next) -> Response:
        if request.url.path != "/invocations":
            return await call_next(request)
        if request.headers.get("content-type", "").partition(";")[0] != JSON:
            said = {"error": f"Images come as JSON: -H 'Content-Type: {JSON}'.", "note": note}
            return Response(json.dumps(said), 415, media_type=JSON)
        response = await call_next(request)
        body = b"".join([part async for part in response.body_iterator])
        if response.status_code == 200:
            # one more member of the JSON object, without parsing thousands of predictions
            body = body.rstrip()[:-1] + f', "note": {json.dumps(note)}}}'.encode()
            return Response(body, media_type=JSON)
        said = {"error": sentence(body), "note": note}
        return Response(json.dumps(said), response.status_code, media_type=JSON)

    return app


def sentence(body: bytes) -> str:
    """What went wrong, of what MLflow says of it: the model's own words where it has any."""
    text = body.decode(errors="replace")
    try:
        said = json.loads(text)
        trace, message = said.get("stack_trace", ""), said["message"]
    except (ValueError, KeyError, AttributeError):
        trace, message = "", text
    lines = trace.strip().splitlines()
    if lines:
        message = lines[-1].partition(": ")[2] or lines[-1]
    elif "\nError: " in message:  # after all that was sent
        message = message.rpartition("\nError: ")[2]
    first = (message.strip().splitlines() or ["no reason given"])[0]
    return first if len(first) <= LONGEST else f"{first[:LONGEST]} ..."
