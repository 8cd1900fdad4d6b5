import unittest
from types import SimpleNamespace

from .handler import handle


class Handle(unittest.TestCase):
    def test_greets(self):
        answer = handle(SimpleNamespace(body=b"some text"), None)
        self.assertEqual(answer["statusCode"], 200)
        self.assertEqual(answer["body"], "Hello! You said: some text\n")
