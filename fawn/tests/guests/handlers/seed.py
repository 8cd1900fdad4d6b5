import json
def handle(req):
    data = json.loads(req)
    return json.dumps({"message": f"Hello {data.get('name', 'World')}!", "timestamp": data.get("timestamp"), "processed": True})
