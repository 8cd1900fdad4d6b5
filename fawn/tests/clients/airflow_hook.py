"""Does with Airflow's own hook, unmodified, what each line of standard input asks for, and says what came of it.

A line is {"function": NAME, "method": NAME, "arguments": [...]}; the answer to it is {"returned": ...} or, for the
exception that fails a task, {"raised": TEXT}.
"""

import json
import sys

from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.openfaas.hooks.openfaas import OpenFaasHook

for line in sys.stdin:
    asked = json.loads(line)
    hook = OpenFaasHook(function_name=asked["function"], conn_id="faas")
    try:
        outcome = {"returned": getattr(hook, asked["method"])(*asked["arguments"])}
    except AirflowException as exception:
        outcome = {"raised": str(exception)}
    # Airflow's own log goes to standard output too.
    print("outcome", json.dumps(outcome), flush=True)
