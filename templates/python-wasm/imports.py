"""Keeps the source of what may yet be imported: when a call runs, the files that the module was built from are gone."""

import sys
import zlib
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from pathlib import Path

# Parts of Python that need what a module has not, and much room.
LEFT_OUT = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "venv"}


class Kept(MetaPathFinder, InspectLoader):
    def __init__(self):
        self.modules = {}
        for root in dict.fromkeys(path for path in sys.path if Path(path).is_dir()):
            self.keep(Path(root), "")
        # A folder without an __init__.py is a package too, unless another one has its name.
        for name in list(self.modules):
            while name := name.rpartition(".")[0]:
                self.modules.setdefault(name, (zlib.compress(b""), None, True))

    def keep(self, folder, prefix):
        for path in folder.iterdir():
            if path.is_dir() and path.name not in LEFT_OUT and "." not in path.name:
                self.keep(path, f"{prefix}{path.name}.")
            elif path.suffix == ".py":
                package = path.stem == "__init__"
                name = prefix[:-1] if package else prefix + path.stem
                # The first on the path is the one that is imported.
                self.modules.setdefault(name, (zlib.compress(path.read_bytes()), str(path), package))

    def find_spec(self, name, path, target=None):
        if name in self.modules:
            _, origin, package = self.modules[name]
            return ModuleSpec(name, self, origin=origin, is_package=package)

    def get_source(self, name):
        return decode_source(zlib.decompress(self.modules[name][0]))

    def get_code(self, name):
        # Of bytes, since the source itself may say how it is encoded.
        source, origin, _ = self.modules[name]
        return compile(zlib.decompress(source), origin or name, "exec", dont_inherit=True)


sys.meta_path.append(Kept())
