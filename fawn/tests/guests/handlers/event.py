import os
import random
from datetime import datetime


def handle(event, context):
    if event.method == "HEAD":
        return {"headers": {"Content-Length": 5}}
    if event.path == "/echo":
        return event.body
    if event.path == "/fail":
        return {}["nothing"]  # Fails here.
    if event.path == "/random":
        return str(random.random())
    if event.path == "/date":
        # Imports _strptime, and so does the next line something.
        date = datetime.strptime("22 11 2026", "%d %m %Y")
        return f"{date:%Y-%m-%d}".encode("punycode")
    if event.path == "/secret":
        with open("/var/openfaas/secrets/token") as secret:
            return f"{len(secret.read())} letters"
    if event.path == "//cookies":
        return {"headers": {"Set-Cookie": ["a=1", "b=2"]}}
    if event.path == "/status":
        return {"statusCode": int(event.query["status"])}
    return {
        "statusCode": 201,
        "headers": {"X-Made-By": ["me"]},
        "body": {
            "method": event.method,
            "path": event.path,
            "name": event.query["name"],
            "thing": event.headers["x-thing"],
            "greeting": os.environ["GREETING"],
            "body": event.body.decode(),
        },
    }
