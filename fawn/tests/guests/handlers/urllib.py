import json
import time
from urllib import request
from urllib.error import HTTPError, URLError

# Made when the module is built.
OPENER = request.build_opener()


def handle(event, context):
    if event.path == "/echo":
        return {"headers": {"X-Method": event.method}, "body": event.body}
    if event.path == "/moved":
        return {"statusCode": 302, "headers": {"Location": event.query["to"]}}
    if event.path == "/slow":
        time.sleep(10)
    asked = json.loads(event.body)
    timeout = asked.pop("timeout", None)
    if "bytes" in asked:
        asked["data"] = b"x" * asked.pop("bytes")
    if "pieces" in asked:
        asked["data"] = (b"x" * 10 for _ in range(asked.pop("pieces")))
    try:
        with OPENER.open(request.Request(**asked), timeout=timeout) as answer:
            return f"{answer.status} {answer.headers['X-Method']} {len(answer.read())} {answer.url}"
    except HTTPError as error:
        return f"{error} {error.read().decode()}"
    except URLError as error:
        return f"{type(error.reason).__name__}: {error.reason}"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__} alone: {error}"
