"""What Schemathesis is told beyond the API's description, so that it tests the gateway and not other machines."""

import os

import schemathesis

# A module that is there, and one that is not: neither is asked for elsewhere.
IMAGES = [os.environ["FAWN_TEST_IMAGE"], "fawn.local/module@sha256:" + "0" * 64]

# A function behind the gateway, what it must not post to, and what is no URL.
CALLBACKS = ["http://gateway.openfaas:8080/function/hello", "http://10.0.0.1/", "nonsense"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """A deployment goes far, and asks no registry of the public's; no log is followed, which has no end; every other
    function is one that there is; no answer is posted to anybody else."""
    if isinstance(case.body, dict) and isinstance(case.body.get("image"), str) and case.body["image"]:
        case.body["image"] = IMAGES[len(case.body["image"]) % len(IMAGES)]
    if isinstance(case.query, dict) and "follow" in case.query:
        case.query["follow"] = "false"
    if isinstance(case.path_parameters, dict) and len(str(case.path_parameters.get("name", "x"))) % 2 == 0:
        case.path_parameters["name"] = "hello"
    # These are no dict, but like one.
    if hasattr(case.headers, "get") and "X-Callback-Url" in case.headers:
        case.headers["X-Callback-Url"] = CALLBACKS[len(str(case.headers["X-Callback-Url"])) % len(CALLBACKS)]


@schemathesis.serializer("application/wasm")
def wasm(ctx, value):
    """Bytes are bytes."""
    return value if isinstance(value, bytes) else getattr(value, "data", str(value).encode())


@schemathesis.check
def only_documented_failures(ctx, response, case):
    """500 is a defect, documented or not. What a function answers is its own affair."""
    if case.path.startswith("/function/") or response.status_code < 500:
        return
    documented = case.operation.definition.raw.get("responses", {})
    if response.status_code == 500 or str(response.status_code) not in documented:
        raise AssertionError(f"{response.status_code} to {case.method} {case.path}: {response.text}")
