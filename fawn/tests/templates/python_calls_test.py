"""What templates/python-wasm makes of handlers and their answers, and what it can import late, without WebAssembly.

python3 -B fawn/tests/templates/python_calls_test.py
"""

import importlib
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from unittest import mock

TEMPLATE = str(Path(__file__).resolve().parents[3] / "templates/python-wasm")
sys.path.insert(0, TEMPLATE)
import calls

# It keeps all that is on the path as it is imported.
with mock.patch.object(sys, "path", [TEMPLATE]), mock.patch.object(sys, "meta_path", list(sys.meta_path)):
    import imports

JSON, HTML, TEXT, BYTES = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8", calls.BYTES


def call(handle, body=b"", headers=(), method="POST", query="", path="/"):
    handler = ModuleType("handler")
    handler.handle, handler.__file__ = handle, "handler.py"
    return calls.form(handler)(calls.Event(body, headers, method, query, path))


def answer(given, method="POST"):
    return call(lambda event, context: given, method=method)


class Answers(unittest.TestCase):
    def test_bodies(self):
        for given, body, kind in [
            ("text", b"text", HTML),
            ("ünïcode", "ünïcode".encode(), HTML),
            (None, b"", HTML),
            (7, b"7", HTML),
            (b"\xff", b"\xff", BYTES),
            (bytearray(b"\xff"), b"\xff", BYTES),
            ([1, {"a": None}], b'[1, {"a": null}]', JSON),
            ({"body": {"a": 1}}, b'{"a": 1}', JSON),
            ({"body": b"\xff"}, b"\xff", BYTES),
            ({"body": None}, b"", HTML),
            ({}, b"", HTML),
        ]:
            with self.subTest(given):
                self.assertEqual(answer(given), calls.Answer(body, 200, [("Content-Type", kind)], len(body)))

    def test_statuses_and_headers(self):
        mine, html = ("X-A", "1"), ("Content-Type", HTML)
        for given, status, headers in [
            ({"statusCode": 201}, 201, [html]),
            ({"statusCode": "404"}, 404, [html]),
            ({"headers": {"X-A": 1}}, 200, [mine, html]),
            ({"headers": [("X-A", "1"), ["X-A", "1"]]}, 200, [mine, mine, html]),
            ({"headers": {"content-type": "text/css"}}, 200, [("content-type", "text/css")]),
            ({"headers": {"Set-Cookie": ["a=1", "b=2"]}}, 200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), html]),
            ({"headers": [("X-A", ("1", 1))]}, 200, [mine, mine, html]),
            ({"headers": {"X-A": []}}, 200, [html]),
            (("",), 200, [html]),
            (("", 201), 201, [html]),
            (("", 201, {"X-A": "1"}), 201, [mine, html]),
            (("", 201, [("X-A", "1")]), 201, [mine, html]),
        ]:
            with self.subTest(given):
                self.assertEqual(answer(given), calls.Answer(b"", status, headers, 0))

    def test_what_cannot_be_sent_is_refused(self):
        for given, says in [
            ({"statusCode": 199}, "the status 199,"),
            ({"statusCode": 600}, "the status 600,"),
            ({"headers": {"X-A": "1\r\nX-B: 2"}}, r"the header 'X-A': '1\\r\\nX-B: 2'"),
            ({"headers": {"X-A": ["1", "2\n"]}}, r"the header 'X-A': '2\\n'"),
            ({"headers": {"X\n": "1"}}, r"the header 'X\\n'"),
            (("", 200, [], ""), "too many values"),
            ((), "not enough values"),
        ]:
            with self.subTest(given), self.assertRaisesRegex(ValueError, says):
                answer(given)

    def test_a_length_is_true_unless_no_body_is_sent(self):
        def promising(length, body="", status=200):
            return {"statusCode": status, "headers": {"content-length": length}, "body": body}

        for given, method, length in [
            (promising(5, "hello"), "GET", 5),
            (promising("5", "hello"), "HEAD", 5),
            (promising(5), "HEAD", 5),
            (promising(1 << 40), "HEAD", 1 << 40),
            (promising(2, "hello"), "HEAD", 2),
            (promising(5, status=304), "GET", 5),
        ]:
            with self.subTest(given, method=method):
                self.assertEqual(answer(given, method).length, length)
        for given, method in [
            (promising(5), "GET"),
            (promising(5, "hell"), "POST"),
            (promising(5, "hello!"), "GET"),
            (promising(-1), "HEAD"),
            (promising("²"), "HEAD"),
            (promising("many"), "HEAD"),
            (promising([0, 5]), "GET"),
        ]:
            with self.subTest(given, method=method), self.assertRaisesRegex(ValueError, "the Content-Length"):
                answer(given, method)


class Classic(unittest.TestCase):
    def test_prints_as_the_classic_watchdog(self):
        for given, body, kind in [
            ("text", b"text\n", TEXT),
            (7, b"7\n", TEXT),
            ([1], b"[1]\n", TEXT),
            (None, b"", TEXT),
            ({"a": 1}, b'{"a": 1}\n', JSON),
            (b"\xff", b"\xff", BYTES),
            (" <!DOCTYPE html>", b" <!DOCTYPE html>\n", HTML),
            ("<HTML></HTML>", b"<HTML></HTML>\n", HTML),
            ("a <html>", b"a <html>\n", TEXT),
        ]:
            with self.subTest(given):
                wanted = calls.Answer(body, 200, [("Content-Type", kind)], len(body))
                self.assertEqual(call(lambda req: given), wanted)

    def test_answers_in_the_type_of_the_request(self):
        for given, kind in [("<html>", "text/csv"), (b"", "text/csv"), ({}, JSON), (None, TEXT)]:
            with self.subTest(given):
                made = call(lambda req: given, headers=[("content-type", "text/csv")])
                self.assertEqual(made.headers, [("Content-Type", kind)])

    def test_takes_text(self):
        self.assertEqual(call(str.upper, "é".encode()).body, "É\n".encode())
        with self.assertRaises(UnicodeDecodeError):
            call(lambda req: req, b"\xff")


class Events(unittest.TestCase):
    def test_headers_of_any_case_and_number(self):
        headers = calls.Headers([("x-thing", "a"), ("Accept", "b"), ("X-THING", "c")])
        self.assertEqual(headers, {"X-Thing": "a, c", "Accept": "b"})
        self.assertEqual((headers["X-thing"], headers.get("accept"), headers.get("no", 1)), ("a, c", "b", 1))
        self.assertTrue("ACCEPT" in headers and "no" not in headers)

    def test_queries(self):
        query = calls.Query("a=1&b=&a=%C3%A9+&c")
        self.assertEqual(query, {"a": "1", "b": "", "c": ""})
        self.assertEqual((query.getlist("a"), query.getlist("no")), (["1", "é "], []))

    def test_the_event_and_the_context(self):
        def handle(event, context):
            text, query, header = event.body.decode(), event.query["q"], event.headers["x"]
            return [event.method, event.path, text, query, header, context.hostname]

        with mock.patch.dict("os.environ", HOSTNAME="here"):
            made = call(handle, b"text", [("X", "y")], "PATCH", "q=1", "//a/b")
        self.assertEqual(made.body, b'["PATCH", "//a/b", "text", "1", "y", "here"]')


class Forms(unittest.TestCase):
    def refused(self, text, says):
        """Loads a handler as the build does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "handler.py")
            path.write_text(text)
            handler = ModuleType("handler")
            handler.__file__ = str(path)
            exec(compile(text, path, "exec"), handler.__dict__)
            with self.assertRaises(SystemExit) as refusal:
                calls.form(handler)
        self.assertTrue(str(refusal.exception).startswith(f"{path}:{says}"), refusal.exception)

    def test_what_cannot_answer_is_refused_with_its_place(self):
        for text, says in [
            ("", "1: there is no handle"),
            ("handle = 7", "1: there is no handle"),
            ("\ndef handle():\n  pass", "2: handle has 0 parameters"),
            ("def handle(a, b, c):\n  pass", "1: handle has 3 parameters"),
            ("\n\nasync def handle(event, context):\n  pass", "3: handle is async, or yields"),
            ("async def handle(req):\n  yield req", "1: handle is async, or yields"),
            ("def handle(req):\n  yield req", "1: handle is async, or yields"),
            (
                "class Handler:\n  async def __call__(self, req):\n    pass\n\nhandle = Handler()",
                "5: handle is async, or yields",
            ),
            ("from functools import partial\nhandle = partial(print, 1, sep='')", "2: handle has"),
            ("class Handler:\n  def __call__(self):\n    pass\nhandle = Handler()", "4: handle has 0 parameters"),
            ("class handle:\n  def __init__(self):\n    pass", "1: handle has 0 parameters"),
            ("class H:\n  __signature__ = 0\n  __call__ = print\n\nhandle = H()", "5: nobody knows the parameters"),
        ]:
            with self.subTest(text):
                self.refused(text, says)

    def test_a_decorated_handle_is_told_by_its_own_line(self):
        decorated = "import functools\ndef odd(f):\n  return functools.wraps(f)(lambda *a: f())\n"
        self.refused(decorated + "@odd\ndef handle():\n  pass", "4: handle has 0 parameters")

    def test_callables_that_are_no_functions_answer(self):
        class Handler:
            def __call__(self, event, context):
                return "called"

        self.assertEqual(call(Handler()).body, b"called")


class LateImports(unittest.TestCase):
    def test_work_when_the_files_are_gone(self):
        with tempfile.TemporaryDirectory() as folder:
            write = lambda path, data: Path(folder, path).write_bytes(data)
            Path(folder, "late_space/deep").mkdir(parents=True)
            Path(folder, "late_package").mkdir()
            write("late_space/deep/module.py", b"word = 'deep'")
            write("late_package/__init__.py", b"word = 'package'")
            write("late_package/part.py", b"from . import word")
            write("late_latin.py", b"# coding: latin-1\nword = '\xe9'")
            with mock.patch.object(sys, "path", [folder]):
                kept = imports.Kept()
        with mock.patch.object(sys, "meta_path", [*sys.meta_path, kept]), mock.patch.dict(sys.modules):
            words = {"late_space.deep.module": "deep", "late_package.part": "package", "late_latin": "é"}
            for name, word in words.items():
                with self.subTest(name):
                    self.assertEqual(importlib.import_module(name).word, word)
                    self.assertIn("word", kept.get_source(name))
            with self.assertRaises(ModuleNotFoundError):
                importlib.import_module("late_space.nothing")


if __name__ == "__main__":
    unittest.main()
